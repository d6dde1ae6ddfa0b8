"""Spans on their way from an executor to its supervisor.

An executor doesn't send its spans to a collector: it may be killed at any moment between two runs, or live where only
its supervisor reaches one. It puts them on the pipe, and the supervisor sends them with its own
(:mod:`tenure.worker.span_intake`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tenure.worker.pipe import Message, PipeBroken

_EVENTS_MAX = 128
_TEXT_CHARS_MAX = 1000


def pipe_exporter(send: Callable[[Message], None]) -> Any:
    """A ``SpanExporter`` of OpenTelemetry's SDK that sends spans as ``spans`` messages."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class PipeExporter(SpanExporter):
        """Whatever goes wrong with spans is no reason to disturb an evaluation."""

        def export(self, spans: Sequence[Any]) -> Any:
            try:
                send({"type": "spans", "spans": [_frame_of(span) for span in spans]})
            except PipeBroken:
                return SpanExportResult.FAILURE
            return SpanExportResult.SUCCESS

    return PipeExporter()


def _frame_of(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "trace_id": f"{span.context.trace_id:032x}",
        "span_id": f"{span.context.span_id:016x}",
        "parent_id": f"{span.parent.span_id:016x}" if span.parent is not None else "",
        "kind": span.kind.name,
        "start": span.start_time,
        "end": span.end_time,
        "attributes": _plain(span.attributes),
        "events": [[event.name, event.timestamp, _plain(event.attributes)] for event in span.events[-_EVENTS_MAX:]],
        "links": [[f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}"] for link in span.links],
        "status": span.status.status_code.name,
        "description": (span.status.description or "")[:_TEXT_CHARS_MAX],
        "scope": span.instrumentation_scope.name if span.instrumentation_scope is not None else "",
    }


def _plain(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """What JSON has words for; texts within a bound."""
    return {name: _plain_value(value) for name, value in (attributes or {}).items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_TEXT_CHARS_MAX]
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return repr(value)[:_TEXT_CHARS_MAX]
