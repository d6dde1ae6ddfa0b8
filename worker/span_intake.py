"""Spans that executors have told (:mod:`tenure.worker.span_frames`), sent on with the supervisor's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from tenure.common import tracing
from tenure.worker.pipe import Message

log = structlog.get_logger()


def pass_on_spans(message: Message) -> None:
    """Send what an executor has told, as far as it is spans: user code may do anything to the pipe."""
    if not tracing.passes_on():
        return
    resource = tracing.resource_of("tenure-executor")
    try:
        for frame in message["spans"]:
            tracing.pass_on(_span_of(frame, resource))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        log.debug("trace.unreadable", error=f"{type(error).__name__}: {error}")


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
