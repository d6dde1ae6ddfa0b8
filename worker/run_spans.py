"""What a worker tells of its runs in traces (docs/traces.md); nothing while they are off.

The span of the ``lease`` is told by the master that settles it. Below it are the worker's: ``run``, from the
task's arrival until its outcome is kept on disk; ``evaluate`` below that, told by the executor, or in its place by its
supervisor if it died; and ``deliver``, until a master has judged the outcome.
"""

from __future__ import annotations

import time
from typing import Any

from tenure.common import tracing
from tenure.common.traceparent import checked_traceparent, log_fields, span_id_of
from tenure.common.tracing import Span
from tenure.proto import worker_pb2
from tenure.worker.leases import LeaseKey, key_of


class RunSpan:
    """The spans of one run."""

    def __init__(self, request: worker_pb2.EvaluateRequest) -> None:
        self._token = request.lease_token
        self._evaluating_ns: int | None = None
        self._lease = checked_traceparent(request.trace)
        self._span: Span = tracing.begin("run", parent=self._lease, span_id=self._id("run"), **_facts(request))

    @property
    def log_fields(self) -> dict[str, str]:
        """Of every log line about the run."""
        return log_fields(self._span.traceparent or self._lease)

    def started(self, slot: int) -> dict[str, str]:
        """The run goes to its slot's executor now; returns what that needs for its own spans."""
        self._evaluating_ns = time.time_ns()
        self._span.set(slot=slot)
        if not self._span:
            return {}
        parent = self._span.traceparent
        return {"parent": parent, "span_id": self._id("evaluate"), "lease": self._lease or parent}

    def executor_died(self, how: str) -> None:
        """Nobody else will tell the evaluation's span."""
        if self._span and self._evaluating_ns is not None:
            span_id = self._id("evaluate")
            parent = self._span.traceparent
            tracing.told("evaluate", parent=parent, span_id=span_id, start_ns=self._evaluating_ns, error=how)

    def end(self, outcome: worker_pb2.Outcome | None, kind: str, stop_reason: str) -> None:
        """The run is over; None: nobody is told."""
        self._span.set(outcome=kind, stop_reason=stop_reason)
        error = ""
        if outcome is not None and kind != "success":
            self._span.set(error_class=outcome.error_class, exit_signal=outcome.exit_signal or None)
            if kind != "release":
                error = f"{outcome.error_class}: {outcome.error_message}"
        self._span.end(error)

    def _id(self, what: str) -> str:
        return span_id_of(self._token, what) if self._token and self._lease else ""


class Deliveries:
    """How long outcomes wait for a master's verdict."""

    def __init__(self) -> None:
        self._since_ns: dict[LeaseKey, int] = {}

    def begin(self, outcome: worker_pb2.Outcome) -> None:
        """The outcome is on disk."""
        if tracing.on() and outcome.trace:
            self._since_ns[key_of(outcome)] = time.time_ns()

    def end(self, outcome: worker_pb2.Outcome, verdict: str) -> None:
        """A master has judged it."""
        if (since := self._since_ns.pop(key_of(outcome), None)) is not None:
            parent = checked_traceparent(outcome.trace)
            tracing.told("deliver", parent=parent, kind="client", start_ns=since, verdict=verdict, **_facts(outcome))


def tell_left_over(request: worker_pb2.EvaluateRequest) -> None:
    """The run that an earlier process of this worker died under: when it began is known to its master only."""
    if lease := checked_traceparent(request.trace):
        span_id = span_id_of(request.lease_token, "run")
        error = "the worker's process, or its machine, died during the run"
        tracing.told("run", parent=lease, span_id=span_id, start_ns=time.time_ns(), error=error, **_facts(request))


def _facts(message: worker_pb2.EvaluateRequest | worker_pb2.Outcome) -> dict[str, Any]:
    return {
        "search": message.search,
        "task": message.task_id,
        "epoch": message.epoch,
        "attempt": message.attempt,
    }
