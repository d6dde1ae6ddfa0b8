"""Real sentinels over a real primary with replicas, all on TCP ports of this machine."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import redis
from processes import wait_for
from redis.backoff import NoBackoff
from redis.retry import Retry
from store_server import _TIED_TO_PARENT

from tenure.master.store.embedded import find_server

SERVICE = "tenure-test"
# Replicas and sentinels must know each other's ports before they start, so these are chosen, not read back: of those
# that the system gives to nobody by itself, also 10000 above, where a cluster's nodes talk.
PORTS = range(11_000, 19_000)
# Longer than a busy machine keeps a server from answering: no test reckons with a failover that it didn't ask for.
DOWN_AFTER_MS = 2_000


class _Server:
    """One server or sentinel process."""

    def __init__(self, folder: Path, port: int, *arguments: str) -> None:
        self.folder, self.port, self._arguments = folder, port, arguments
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on the files that it has, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-c", _TIED_TO_PARENT, find_server(), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        wait_for(self._answers, what=f"an answer at {self.port}: {(self.folder / 'server.log').read_text()[-500:]}")

    def client(self) -> redis.Redis:
        """A connection to look with."""
        return redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0), socket_timeout=30, decode_responses=True)

    def kill(self) -> None:
        """SIGKILL, also of one that is stopped."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class SentinelStore:
    """One primary, ``replicas`` replicas, three sentinels."""

    def __init__(self, root: Path, replicas: int = 2) -> None:
        self._root = root
        ports = _free_ports(1 + replicas + 3)
        self.servers = [self._server(port, ports[0]) for port in ports[: 1 + replicas]]
        self.sentinels = [self._sentinel(port, ports[0]) for port in ports[1 + replicas :]]

    @property
    def url(self) -> str:
        """For :func:`open_store` and ``tenure master --store``."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    def start(self) -> SentinelStore:
        """Start everything, and wait until the sentinels know the replicas and one another."""
        for server in (*self.servers, *self.sentinels):
            server.start()
        wait_for(self._is_known, what="sentinels that know each other")
        return self

    def primary(self) -> _Server:
        """Where the sentinels send a client now."""
        with self.sentinels[0].client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(each for each in self.servers if each.port == int(port))

    def fail_over(self, how: signal.Signals = signal.SIGKILL) -> _Server:
        """End (or stop) the primary, and wait for the next; returns the old one."""
        old = self.primary()
        assert old.process is not None
        old.process.send_signal(how)
        if how == signal.SIGKILL:
            old.process.wait()
        wait_for(lambda: self.primary() is not old, what="a failover")
        return old

    def remove(self) -> None:
        """End all processes."""
        for server in (*self.sentinels, *self.servers):
            server.kill()
        shutil.rmtree(self._root, ignore_errors=True)

    def _is_known(self) -> bool:
        for sentinel in self.sentinels:
            with contextlib.closing(sentinel.client()) as client:
                (state,) = client.sentinel_masters().values()
            known = (int(state["num-slaves"]), int(state["num-other-sentinels"]))
            if known != (len(self.servers) - 1, len(self.sentinels) - 1):
                return False
        return True

    def _server(self, port: int, primary: int) -> _Server:
        folder = self._root / f"server-{port}"
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(folder.absolute()),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "repl-diskless-sync-delay": "0",
        }
        if port != primary:
            options["replicaof"] = f"127.0.0.1 {primary}"
        return _Server(folder, port, *(part for name, value in options.items() for part in (f"--{name}", value)))

    def _sentinel(self, port: int, primary: int) -> _Server:
        folder = self._root / f"sentinel-{port}"
        folder.mkdir(parents=True)
        configuration = folder / "sentinel.conf"
        configuration.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder.absolute()}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        return _Server(folder, port, os.fspath(configuration), "--sentinel")


def _free_ports(count: int) -> list[int]:
    ports: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise AssertionError(f"of {len(PORTS)} ports only {len(ports)} are free")
