"""Traces: contexts as text, spans that are told after the fact, and what happens when there are none."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tenure.common import tracing
from tenure.common.errors import InvalidSetting
from tenure.common.traceparent import checked_traceparent, lease_traceparent, log_fields, span_id_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-2] + "00"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """What this process tells goes there."""
    exporter = InMemorySpanExporter()
    assert tracing.start("tenure-test", "on", instance="i1", exporter=exporter)
    yield exporter
    tracing.stop()
    assert not tracing.on()


def finished(exporter: InMemorySpanExporter) -> list[Any]:
    tracing.flush()
    return list(exporter.get_finished_spans())


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (PARENT, PARENT),
        ("", ""),
        (PARENT.upper(), ""),
        (PARENT + "-01", ""),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", ""),
        ("00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01", ""),
        ("ff" + PARENT[2:], ""),
    ],
)
def test_what_is_no_context_is_none(text: str, kept: str) -> None:
    assert checked_traceparent(text) == kept
    assert bool(log_fields(text)) == bool(kept)


def test_the_span_of_a_lease_follows_from_its_token() -> None:
    context = lease_traceparent(PARENT, "token", "lease")
    assert context == lease_traceparent(UNSAMPLED[:-2] + "01", "token", "lease")
    assert checked_traceparent(context)
    assert log_fields(context) == {"trace_id": PARENT[3:35], "span_id": span_id_of("token", "lease")}
    assert len({span_id_of(token, what) for token in "ab" for what in ("lease", "run", "evaluate")}) == 6
    assert lease_traceparent("", "token", "lease") == ""


def test_a_told_span_has_its_id_times_parent_links_and_error(exporter: InMemorySpanExporter) -> None:
    span_id = span_id_of("token", "lease")
    tracing.told(
        "lease",
        parent=PARENT,
        span_id=span_id,
        start_ns=1_000,
        end_ns=2_000,
        links=[lease_traceparent(PARENT, "other", "lease")],
        error="Boom: " + "x" * 5_000,
        task="t",
        epoch=3,
        empty="",
        absent=None,
    )
    (span,) = finished(exporter)
    assert (span.name, span.start_time, span.end_time) == ("lease", 1_000, 2_000)
    assert f"{span.context.span_id:016x}" == span_id
    assert f"{span.parent.span_id:016x}" == PARENT[36:52]
    assert dict(span.attributes) == {"tenure.task": "t", "tenure.epoch": 3}
    assert span.status.status_code is StatusCode.ERROR
    assert len(span.status.description) == 1_000
    assert f"{span.links[0].context.span_id:016x}" == span_id_of("other", "lease")
    assert span.resource.attributes["service.name"] == "tenure-test"
    assert span.resource.attributes["service.instance.id"] == "i1"


def test_clocks_of_two_hosts_make_no_negative_time(exporter: InMemorySpanExporter) -> None:
    tracing.told("queued", parent=PARENT, start_ns=2_000, end_ns=1_000)
    (span,) = finished(exporter)
    assert span.start_time == span.end_time == 1_000


def test_a_seeded_program_has_new_ids_each_time_and_the_numbers_that_it_has_untraced(
    exporter: InMemorySpanExporter,
) -> None:
    random.seed(1)
    untraced = random.random()
    for _ in range(2):
        random.seed(1)
        tracing.begin("seeded").end()
        assert random.random() == untraced
    one, other = (span.context for span in finished(exporter))
    assert one.trace_id != other.trace_id
    assert one.span_id != other.span_id


def test_what_is_not_sampled_is_not_told_but_goes_on(exporter: InMemorySpanExporter) -> None:
    span = tracing.begin("run", parent=UNSAMPLED)
    assert span.traceparent.startswith(PARENT[:36])
    assert span.traceparent.endswith("-00")
    span.end()
    assert finished(exporter) == []


def test_other_codes_spans_are_below_the_current_one(exporter: InMemorySpanExporter) -> None:
    span = tracing.begin("evaluate", parent=PARENT)
    with span.current():
        assert tracing.current() == span.traceparent
        inner = tracing.begin("inner", parent=None)
        inner.end()
    assert tracing.current() == ""
    span.end()
    told = {span.name: span for span in finished(exporter)}
    assert told["inner"].parent.span_id == told["evaluate"].context.span_id
    assert not api.get_current_span().get_span_context().is_valid


def test_off_is_free_and_says_nothing() -> None:
    assert not tracing.on()
    span = tracing.begin("run", parent=PARENT)
    assert (bool(span), span.traceparent, tracing.current()) == (False, "", "")
    with span.current() as same:
        same.set(a=1)
        same.event("x")
        same.end("error")
    tracing.told("run", start_ns=0)


def child(program: str, **environment: str) -> dict[str, Any]:
    """What a process that does this prints as JSON, with ``stderr``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "stderr": done.stderr}


STARTED = """
import json, sys
from tenure.common import tracing
import tenure.client, tenure.worker.main
on = tracing.start("x")
print(json.dumps({"on": on, "loaded": any(name.startswith("opentelemetry") for name in sys.modules)}))
"""


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["unset", "disabled", "none"],
)
def test_nobody_asks_so_nothing_is_loaded(environment: dict[str, str]) -> None:
    found = child(STARTED, **environment)
    assert (found["on"], found["loaded"]) == (False, False)


def test_an_endpoint_in_the_environment_asks() -> None:
    assert child(STARTED, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:1/v1/traces")["on"] is True


MISSING = """
import json, sys
sys.modules["opentelemetry"] = None
from tenure.common import tracing
from tenure.common.errors import InvalidSetting
try:
    print(json.dumps({"on": tracing.start("x", sys.argv[1] if len(sys.argv) > 1 else "MODE")}))
except InvalidSetting as error:
    print(json.dumps({"error": str(error)}))
"""


def test_without_the_extra_on_is_refused_and_an_endpoint_is_a_warning() -> None:
    refused = child(MISSING.replace("MODE", "on"))
    assert "pip install 'tenure[traces]'" in refused["error"]
    warned = child(MISSING.replace("MODE", "auto"), OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert warned["on"] is False
    assert "pip install 'tenure[traces]'" in warned["stderr"]


def test_a_protocol_that_is_not_spoken_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(InvalidSetting, match=r"OTEL_EXPORTER_OTLP_PROTOCOL.*grpc.*4318"):
        tracing.start("x", "on")


REFUSED = [
    ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096"}, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "OTEL_BSP_MAX_QUEUE_SIZE"),
    ({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, "OTEL_BSP_MAX_QUEUE_SIZE", "100", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
    ({"OTEL_BSP_SCHEDULE_DELAY": "0"}, "OTEL_BSP_SCHEDULE_DELAY", "0", "milliseconds, at least 1"),
    ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", "unset it"),
    ({"OTEL_PYTHON_TRACER_PROVIDER": "none"}, "traces", "", "OTEL_PYTHON_TRACER_PROVIDER"),
]


@pytest.mark.parametrize(("environment", "field", "given", "expected"), REFUSED)
def test_on_with_a_variable_that_opentelemetry_refuses_names_it(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], field: str, given: str, expected: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSetting) as refused:
        tracing.start("x", "on", shared=True)
    assert (refused.value.field, refused.value.given) == (field, given)
    assert expected in refused.value.expected
    assert "hunter2" not in str(refused.value)
    assert not tracing.on()


SUBMITTED = """
import json
from tenure.client.spans import Submissions
from tenure.common.spec import TaskSpec
traces = [Submissions("s", [TaskSpec("{}", key="k")]).specs[0].trace for _ in range(2)]
print(json.dumps({"traces": traces}))
"""


@pytest.mark.parametrize(("environment", "field", "given", "expected"), REFUSED[::2])
def test_auto_with_such_a_variable_warns_once_and_submits_untraced(
    environment: dict[str, str], field: str, given: str, expected: str
) -> None:
    found = child(SUBMITTED, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", **environment)
    assert found["traces"] == ["", ""]
    (warning,) = [line for line in found["stderr"].splitlines() if line.startswith("nothing is traced: ")]
    assert f": {field}: " in warning
    assert expected in warning


OWN_PROVIDER = """
import json
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
from tenure.client.spans import Submissions
from tenure.common.spec import TaskSpec
with trace.get_tracer("mine").start_as_current_span("my search"):
    submissions = Submissions("s", [TaskSpec("{}", key="k")])
submissions.end([("0-t", "k", True)])
mine, submit = exporter.get_finished_spans()
print(json.dumps({
    "names": [mine.name, submit.name],
    "below": submit.parent.span_id == mine.context.span_id,
    "task": submit.attributes["tenure.task"],
    "trace": submissions.specs[0].trace[3:35] == f"{mine.context.trace_id:032x}",
}))
"""


def test_a_program_that_traces_itself_has_tenures_spans_below_its_own() -> None:
    found = child(OWN_PROVIDER)
    assert found["names"] == ["my search", "client.submit"]
    assert found["below"]
    assert found["trace"]
    assert found["task"] == "0-t"
