"""Traces for OpenTelemetry, where somebody asked for them; else nothing, and nothing is imported.

A task is one trace, from the client that submits it to the one that sees its result. Processes pass the trace on as
text (:mod:`tenure.common.traceparent`), in the fields of messages and in the store. Spans are sent by OTLP over HTTP,
in the background: a collector that is down costs its spans and nothing else. docs/traces.md lists the spans.

What asks for them: ``--traces on``, or the standard variables of OpenTelemetry (``OTEL_EXPORTER_OTLP_ENDPOINT``). How
is theirs, too: ``OTEL_TRACES_SAMPLER``, ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_BSP_…``.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from tenure import __version__
from tenure.common.errors import InvalidSetting
from tenure.common.trace_settings import refused

Mode = Literal["auto", "on", "off"]
Kind = Literal["internal", "server", "client", "producer", "consumer"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_ATTRIBUTE_CHARS_MAX = 1000
# With an exporter that takes spans at once.
_AT_ONCE_MS, _AT_ONCE_SPANS, _QUEUE_MAX = 200, 50, 2048

_tracer: Any = None
# Ours; None if it is another's.
_provider: Any = None
_processor: Any = None
_instance = ""
# The id of the span that is being made; empty: a random one.
_span_id: contextvars.ContextVar[str] = contextvars.ContextVar("tenure_span_id", default="")


class Span:
    """A span that is under way, or the one that stands for all of them while nothing is traced: then it is false."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def __bool__(self) -> bool:
        return self._span is not None

    @property
    def traceparent(self) -> str:
        """Its context, for who goes on from it; empty when nothing is traced."""
        if self._span is None:
            return ""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def set(self, **attributes: Any) -> None:
        """Add attributes; their names get the prefix ``tenure.``."""
        if self._span is not None:
            self._span.set_attributes(_attributes(attributes))

    def event(self, name: str, **attributes: Any) -> None:
        """Note that something happened now."""
        if self._span is not None:
            self._span.add_event(name, _attributes(attributes))

    def end(self, error: str = "", end_ns: int | None = None) -> None:
        """It is over; with an error, if that is not empty."""
        if self._span is None:
            return
        if error:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, error[:_ATTRIBUTE_CHARS_MAX]))
        self._span.end(end_ns)

    @contextlib.contextmanager
    def current(self) -> Iterator[Span]:
        """Within the block it is the parent of spans that other libraries begin. It is not ended."""
        if self._span is None:
            yield self
            return
        from opentelemetry.trace import use_span

        with use_span(self._span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            yield self


_OFF = Span()


def on() -> bool:
    """Whether this process traces."""
    return _tracer is not None


def begin(
    name: str,
    *,
    parent: str | None = "",
    kind: Kind = "internal",
    span_id: str = "",
    start_ns: int | None = None,
    links: Sequence[str] = (),
    **attributes: Any,
) -> Span:
    """Begin a span.

    Args:
        parent: The context to go on from; empty: a new trace; None: whatever this thread's current span is.
        kind: As OpenTelemetry means it.
        span_id: Its id, sixteen hexadecimal digits; empty: a random one.
        start_ns: When it began, Unix nanoseconds; None: now.
        links: Contexts of spans that it belongs to, beside its parent.
        attributes: Their names get the prefix ``tenure.``; what is empty is left out.
    """
    if _tracer is None:
        return _OFF
    from opentelemetry import trace
    from opentelemetry.context import Context

    set_before = _span_id.set(span_id)
    try:
        return Span(
            _tracer.start_span(
                name,
                context=None if parent is None else trace.set_span_in_context(_remote(parent), Context()),
                kind=trace.SpanKind[kind.upper()],
                attributes=_attributes(attributes),
                links=[trace.Link(span.get_span_context()) for span in map(_remote, links) if _is_valid(span)],
                start_time=start_ns,
            )
        )
    finally:
        _span_id.reset(set_before)


def told(
    name: str, *, start_ns: int, end_ns: int | None = None, error: str = "", parent: str = "", **arguments: Any
) -> None:
    """A span that is over, told after the fact; arguments as :func:`begin`'s."""
    if _tracer is not None:
        end_ns = time.time_ns() if end_ns is None else end_ns
        # Start and end may come from clocks of two hosts.
        begin(name, parent=parent, start_ns=min(start_ns, end_ns), **arguments).end(error, end_ns)


def current() -> str:
    """The context of the span that this thread is in, ours or another library's; empty outside of any."""
    if _tracer is None:
        return ""
    from opentelemetry import trace

    return Span(trace.get_current_span()).traceparent if _is_valid(trace.get_current_span()) else ""


def start(service: str, mode: Mode = "auto", *, instance: str = "", shared: bool = False, exporter: Any = None) -> bool:
    """Trace from now on, if that is asked for; whether it is.

    Args:
        service: ``service.name`` of the resource, unless ``OTEL_SERVICE_NAME`` says otherwise.
        mode: ``auto``: if the environment names an OTLP endpoint. ``on``, ``off``: whatever it says.
        instance: ``service.instance.id``.
        shared: Other code of this process traces, too: use its provider if there is one, else let it use ours.
        exporter: Where spans go instead of a collector, at once.

    Raises:
        InvalidSetting: ``on`` is impossible: the extra isn't installed, the environment wants a protocol that Tenure
            doesn't speak, or OpenTelemetry doesn't take one of its variables. With ``auto`` that is a warning.
    """
    if _tracer is not None:
        return True
    if mode == "off" or (mode == "auto" and not _environment_asks()):
        return mode == "auto" and shared and _use_the_programs()
    try:
        _start(service, instance, shared, exporter)
    except InvalidSetting as error:
        if mode == "on":
            raise
        # Many an environment names an endpoint for everything that runs in it.
        logging.getLogger("tenure.traces").warning("nothing is traced: %s", error)
        return False
    return True


def _use_the_programs() -> bool:
    """Trace with the provider that this program has set up itself, if it has."""
    trace = sys.modules.get("opentelemetry.trace")
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    if trace is None or sdk is None or not isinstance(provider := trace.get_tracer_provider(), sdk.TracerProvider):
        return False
    use(provider)
    return True


def _start(service: str, instance: str, shared: bool, exporter: Any) -> None:
    global _instance
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), _PROTOCOL)
    if protocol != _PROTOCOL:
        raise InvalidSetting(
            f"spans are sent by {_PROTOCOL} only",
            field="OTEL_EXPORTER_OTLP_PROTOCOL",
            given=protocol,
            expected=f"set it to {_PROTOCOL}, and the endpoint to the collector's port for HTTP, mostly 4318",
        )
    try:
        from opentelemetry import trace

        provider = trace.get_tracer_provider() if shared else None
        if provider is None or isinstance(provider, trace.ProxyTracerProvider):
            _instance = instance
            provider, processor = _new_provider(_new_resource(service), exporter)
            if shared:
                trace.set_tracer_provider(provider)
            use(provider, processor)
        else:
            use(provider)
    except ImportError as error:
        raise InvalidSetting(
            f"traces need packages that aren't installed: {error}",
            field="traces",
            given="on",
            expected="pip install 'tenure[traces]', or turn them off",
        ) from error
    except Exception as error:
        # Whatever it makes of its variables: neither a start nor a submit may fail by that where nobody insists.
        raise refused(error) from error


def use(provider: Any, processor: Any = None) -> None:
    """Trace with this provider of OpenTelemetry's SDK, or no more (None). One with its processor is ours to end."""
    global _tracer, _provider, _processor
    _provider, _processor = provider if processor is not None else None, processor
    _tracer = None if provider is None else provider.get_tracer("tenure", __version__)


def passes_on() -> bool:
    """Whether this process sends spans itself, and so can send those of others."""
    return _processor is not None


def pass_on(span: Any) -> None:
    """Send a span (a ``ReadableSpan``) that another process has told."""
    if _processor is not None:
        _processor.on_end(span)


def flush() -> None:
    """Hand every span that is over to the exporter. Only for one that takes it at once: others may block."""
    if _processor is not None:
        _processor.force_flush()


def stop(seconds: float = 2.0) -> None:
    """Send what is left, but wait no longer than this: a collector that is down holds no exit up."""
    provider = _provider
    use(None)
    if provider is not None:
        ending = threading.Thread(target=provider.shutdown, name="tenure-traces", daemon=True)
        ending.start()
        ending.join(seconds)


def _environment_asks() -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() not in ("", "otlp"):
        return False
    return any(map(os.environ.get, _ENDPOINTS))


def resource_of(service: str) -> Any:
    """The same process, as this service; needs a provider of ours. Asks nothing anew, so an event loop may call it."""
    from opentelemetry.sdk.resources import Resource

    return _provider.resource.merge(Resource(_named(service)))


def _new_resource(service: str) -> Any:
    """What the environment says of this process, and where it says nothing this name. May take seconds: it asks
    whatever detectors are installed."""
    from opentelemetry.sdk.resources import Resource

    attributes = {"service.version": __version__, "service.instance.id": _instance, **_named(service)}
    return Resource.create({name: value for name, value in attributes.items() if value})


def _named(service: str) -> dict[str, str]:
    given = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {} if given else {"service.name": service}


def _new_provider(resource: Any, exporter: Any) -> tuple[Any, Any]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # At exit it would flush for as long as the collector keeps it waiting; stop() doesn't.
    provider = TracerProvider(resource=resource, id_generator=_id_generator(), shutdown_on_exit=False)
    if exporter is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        processor = BatchSpanProcessor(OTLPSpanExporter())
    else:
        processor = BatchSpanProcessor(
            exporter,
            max_queue_size=_QUEUE_MAX,
            schedule_delay_millis=_AT_ONCE_MS,
            max_export_batch_size=_AT_ONCE_SPANS,
        )
    provider.add_span_processor(processor)
    return provider, processor


def _id_generator() -> Any:
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class Ids(IdGenerator):
        """Random, but for spans whose id is known before they are made.

        Of the system, not of the module ``random``, as the library's own are: a program that seeds that one would give
        each of its runs the same traces, and an evaluator's numbers would be others with tracing than without.
        """

        def generate_span_id(self) -> int:
            return int(_span_id.get(), 16) if _span_id.get() else 1 + secrets.randbelow(2**64 - 1)

        def generate_trace_id(self) -> int:
            return 1 + secrets.randbelow(2**128 - 1)

    return Ids()


def _remote(traceparent: str) -> Any:
    """The span that the text stands for."""
    from opentelemetry import trace

    if not traceparent:
        return trace.INVALID_SPAN
    _, trace_id, span_id, flags = traceparent.split("-")
    return trace.NonRecordingSpan(
        trace.SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(int(flags, 16))
        )
    )


def _is_valid(span: Any) -> bool:
    return bool(span.get_span_context().is_valid)


def _attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """With the prefix, bounded, and without what says nothing."""
    return {
        f"tenure.{name}": value[:_ATTRIBUTE_CHARS_MAX] if isinstance(value, str) else value
        for name, value in attributes.items()
        if value is not None and value != ""
    }
