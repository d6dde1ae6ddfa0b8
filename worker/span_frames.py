"""Spans on the pipe between an executor and its supervisor.

An executor doesn't send its spans to a collector: it may be killed at any moment between two runs, or live where only
its supervisor reaches one. It puts them on the pipe (:class:`PipeExporter`), and the supervisor sends them
(:func:`pass_on_spans`) with its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from tenure.common import tracing
from tenure.worker.pipe import Message, PipeBroken

log = structlog.get_logger()

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


def pass_on_spans(message: Message) -> None:
    """Send what an executor has told, as far as it is spans: user code may do anything to the pipe."""
    if not tracing.on():
        return
    resource = tracing.resource_of("tenure-executor")
    try:
        for frame in message["spans"]:
            tracing.pass_on(_span_of(frame, resource))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        log.debug("trace.unreadable", error=f"{type(error).__name__}: {error}")


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


def _span_of(frame: Mapping[str, Any], resource: Any) -> Any:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    def context(span_id: str, trace_id: str = frame["trace_id"]) -> Any:
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        return trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags)

    return ReadableSpan(
        name=str(frame["name"]),
        context=context(frame["span_id"]),
        parent=context(frame["parent_id"]) if frame["parent_id"] else None,
        resource=resource,
        attributes=dict(frame["attributes"]),
        events=[Event(str(name), dict(fields), int(at)) for name, at, fields in frame["events"]],
        links=[trace.Link(context(span_id, trace_id)) for trace_id, span_id in frame["links"]],
        kind=trace.SpanKind[frame["kind"]],
        status=trace.Status(trace.StatusCode[frame["status"]], frame["description"] or None),
        start_time=int(frame["start"]),
        end_time=int(frame["end"]),
        instrumentation_scope=InstrumentationScope(str(frame["scope"])),
    )
