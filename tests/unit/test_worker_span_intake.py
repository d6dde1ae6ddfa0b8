"""Spans of executors, sent on by their supervisor from its event loop: nothing there may wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tenure.common import tracing
from tenure.worker.pipe import Message
from tenure.worker.span_frames import pipe_exporter
from tenure.worker.span_intake import pass_on_spans


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """What the supervisor sends goes there."""
    exporter = InMemorySpanExporter()
    assert tracing.start("tenure-worker", "on", instance="w1", exporter=exporter)
    yield exporter
    tracing.stop()


@pytest.fixture
def told() -> Message:
    """What an executor tells of one span."""
    messages: list[Message] = []
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(pipe_exporter(messages.append)))
    provider.get_tracer("mine").start_span("evaluate").end()
    (message,) = messages
    return message


def sent(exporter: InMemorySpanExporter) -> list[Any]:
    tracing.flush()
    return list(exporter.get_finished_spans())


def test_spans_are_sent_as_the_executors_without_asking_again_what_runs_where(
    exporter: InMemorySpanExporter, told: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detectors are asked once, at the start: each may take seconds, and leases are renewed by this very loop."""

    def asked(*_: Any) -> Resource:
        raise AssertionError("detectors are asked on the event loop")

    monkeypatch.setattr(Resource, "create", asked)
    for _ in range(2):
        pass_on_spans(told)
    spans = sent(exporter)
    assert [span.name for span in spans] == ["evaluate", "evaluate"]
    for span in spans:
        assert span.resource.attributes["service.name"] == "tenure-executor"
        assert span.resource.attributes["service.instance.id"] == "w1"


def test_what_is_no_span_is_left(exporter: InMemorySpanExporter, told: Message) -> None:
    pass_on_spans({"type": "spans", "spans": [{"name": "x"}]})
    pass_on_spans(told)
    assert [span.name for span in sent(exporter)] == ["evaluate"]


def test_a_supervisor_that_does_not_trace_sends_nothing(told: Message) -> None:
    pass_on_spans(told)
    assert not tracing.on()
