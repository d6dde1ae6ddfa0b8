"""The console's web server: a few threads of their own, so that the master's event loop never waits for a browser."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import threading
import time
import weakref
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import structlog
import waitress.server
import waitress.wasyncore

from tenure.common.addresses import Address
from tenure.common.errors import AddressInUse
from tenure.master.console.app import ConsoleApp
from tenure.master.console.asking import Asker

if TYPE_CHECKING:
    from tenure.master.master import Master

log = structlog.get_logger()

THREADS = 6
CONNECTIONS_MAX = 64
# A connection on which nothing happens for so long is closed, whether it waits or dawdles.
IDLE_SECONDS_MAX = 20
# A request must have come by then.
REQUEST_SECONDS_MAX = 5.0
REQUEST_HEADER_BYTES_MAX = 16 * 1024
REQUEST_BODY_BYTES_MAX = 64 * 1024


class ConsoleServer:
    """Serves the console until closed.

    Args:
        address: Where to listen; port 0 lets the system choose, :attr:`address` tells what it chose.
        master: Whose console it is.
        loop: That the master runs on.
        port: Of its gRPC server.
        names: Host names by which browsers may call it, besides addresses, ``localhost`` and the host it listens on.

    Raises:
        AddressInUse: Somebody listens there, or the host is not this machine's.
    """

    def __init__(
        self, address: Address, master: Master, loop: asyncio.AbstractEventLoop, port: int, names: Collection[str]
    ) -> None:
        listener = _listen(address)
        self.address = Address(address.host, listener.getsockname()[1])
        # What it says of slow requests is for people who write web servers.
        logging.getLogger("waitress").setLevel(logging.ERROR)
        self._sockets: dict[int, Any] = {}
        self._begun: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
        self._server = waitress.server.create_server(
            ConsoleApp(Asker(master, loop, port), {*names, address.bare_host}),
            map=self._sockets,
            sockets=[listener],
            threads=THREADS,
            connection_limit=CONNECTIONS_MAX,
            channel_timeout=IDLE_SECONDS_MAX,
            cleanup_interval=5,
            max_request_header_size=REQUEST_HEADER_BYTES_MAX,
            max_request_body_size=REQUEST_BODY_BYTES_MAX,
            asyncore_use_poll=True,
            ident=None,
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="console", daemon=True)
        self._thread.start()
        if not _is_loopback(address.bare_host):
            log.warning(
                "console.open",
                console=str(self.address),
                why="whoever reaches this address may look, drain, pause and cancel: there is no authentication yet",
            )

    @property
    def url(self) -> str:
        """For a browser on this machine."""
        anywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
        return f"http://{anywhere.get(self.address.host, self.address.host)}:{self.address.port}/"

    def close(self) -> None:
        """Stop serving."""
        self._closing.set()
        self._server.pull_trigger()
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        while not self._closing.is_set():
            waitress.wasyncore.loop(timeout=1.0, use_poll=True, map=self._sockets, count=1)
            self._end_dawdlers()
        self._server.task_dispatcher.shutdown(timeout=1)
        self._server.close()

    def _end_dawdlers(self) -> None:
        """Whoever sends a byte now and then is never idle, and may not keep a connection for it."""
        now = time.monotonic()
        for channel in list(self._server.active_channels.values()):
            unfinished = channel.request
            if unfinished is not None and now - self._begun.setdefault(unfinished, now) > REQUEST_SECONDS_MAX:
                channel.will_close = True


def _listen(address: Address) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address.bare_host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.bare_host, address.port))
        listener.listen(CONNECTIONS_MAX)
    except OSError as error:
        listener.close()
        raise AddressInUse(
            f"can't listen: {error.strerror}",
            field="console",
            given=str(address),
            expected="end the process that listens there, choose another --console address, or --console off",
        ) from error
    return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
