"""The HTTP endpoint of a Tenure process: ``/metrics``, ``/healthz``, ``/readyz``.

Shared by master and worker; served from threads of its own, so that a busy event loop still answers a liveness probe
with the truth (``/healthz`` asks the loop and fails when it doesn't answer).
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import make_wsgi_app

from tenure.common.addresses import Address
from tenure.common.errors import AddressInUse

Probe = Callable[[], tuple[bool, dict[str, Any]]]


# Prometheus, probers, a browser: a thread for each while it is served.
CONNECTIONS_MAX = 128
# Who says nothing for so long is cut off.
SILENCE_SECONDS = 10.0


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # SO_REUSEADDR only: a second process on one port must fail, not share it.
    allow_reuse_port = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        """One more than may be served at a time is cut off at once."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread of one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hangs up or falls silent is no news; anything else is a bug, and logged as one."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            logging.getLogger(__name__).error("a request to the HTTP endpoint failed", exc_info=error)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    timeout = SILENCE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Probes every few seconds are no news."""


class HttpEndpoint:
    """Serves metrics and health until closed.

    Args:
        address: Where to listen; port 0 lets the system choose, :attr:`address` tells what it chose.
        registry: What ``/metrics`` exports.
        healthy: Whether the process itself works; ``/healthz`` answers 200 or 503.
        ready: Whether it can do its job now; ``/readyz`` answers 200 or 503. Both return (verdict, details).
        measures: Whether the metrics mean anything yet; until then ``/metrics`` answers 503.

    Raises:
        AddressInUse: Somebody listens there.
    """

    def __init__(
        self,
        address: Address,
        registry: CollectorRegistry,
        healthy: Probe,
        ready: Probe,
        measures: Callable[[], bool] = lambda: True,
    ) -> None:
        metrics_app = make_wsgi_app(registry)
        probes = {"/healthz": healthy, "/readyz": ready}

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "/")
            if path == "/metrics" and measures():
                return metrics_app(environ, start_response)  # type: ignore[no-any-return]
            if path in probes:
                good, details = probes[path]()
                body = json.dumps({"ok": good, **details}).encode() + b"\n"
                status = "200 OK" if good else "503 Service Unavailable"
            elif path == "/metrics":
                body, status = b"nothing is measured yet, see /readyz\n", "503 Service Unavailable"
            else:
                body, status = b"see /metrics, /healthz, /readyz\n", "404 Not Found"
            start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
            return [body]

        server_class = _ServerV6 if ":" in address.bare_host else _Server
        try:
            self._server = make_server(
                address.bare_host, address.port, app, server_class=server_class, handler_class=_QuietHandler
            )
        except OSError as error:
            raise AddressInUse(
                f"can't listen: {error.strerror}",
                field="http",
                given=str(address),
                expected="end the process that listens there, or choose another --http address",
            ) from error
        self.address = Address(address.host, self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, name="http-endpoint", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
