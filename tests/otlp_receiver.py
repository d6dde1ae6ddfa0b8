"""A collector of traces for tests: takes OTLP over HTTP, as OpenTelemetry's collector does, and keeps the spans."""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class KeptSpan:
    """One span; ``attributes`` without the prefix ``tenure.``, ``error`` is empty unless its status is one."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    error: str
    attributes: dict[str, Any]


class OtlpReceiver:
    """Listens on a port of its own while its block lasts."""

    def __init__(self) -> None:
        self._spans: list[KeptSpan] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver._take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Nothing to say."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> OtlpReceiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def traces(self) -> dict[str, list[KeptSpan]]:
        """By trace id, each in the order of their begin."""
        found = defaultdict(list)
        with self._lock:
            for span in sorted(self._spans, key=lambda span: span.start_ns):
                found[span.trace_id].append(span)
        return dict(found)

    def of_task(self, task_id: str) -> list[KeptSpan]:
        """The spans of the trace that the task is."""
        for spans in self.traces().values():
            if any(span.attributes.get("task") == task_id for span in spans):
                return spans
        return []

    def _take(self, request: Any) -> None:
        for resource in request.resource_spans:
            service = _plain(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_spans:
                with self._lock:
                    self._spans += [_kept(str(service), span) for span in scope.spans]


def _kept(service: str, span: Any) -> KeptSpan:
    failed = span.status.code == span.status.STATUS_CODE_ERROR
    attributes = {name.removeprefix("tenure."): value for name, value in _plain(span.attributes).items()}
    return KeptSpan(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        (span.status.message or "failed") if failed else "",
        attributes,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in attributes}
