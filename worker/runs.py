"""One run: a lease being carried out, and what its end means to the master."""

from __future__ import annotations

import asyncio
import enum
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tenure.common import limits
from tenure.proto import worker_pb2
from tenure.worker.checkpoint.interval import CheckpointPolicy
from tenure.worker.leases import fields_of, key_of
from tenure.worker.out_of_memory import ExpectedMemory, died_for_memory
from tenure.worker.pipe import Message
from tenure.worker.run_spans import RunSpan
from tenure.worker.scratch import Scratch
from tenure.worker.slots.executor_process import Exited

Kind = worker_pb2.OutcomeKind
_ERROR_CLASS_BYTES_MAX = 200
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class _Rule:
    """What a stopped run is told to be. ``kind`` None: nothing is sent, nobody waits for it."""

    kind: worker_pb2.OutcomeKind | None
    error_class: str = ""
    message: str = ""


class StopReason(enum.Enum):
    """Why a run is to stop; the value is the word in logs, metrics and revocations."""

    CANCELLED = "cancelled"
    DRAIN = "drain"
    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    NO_PROGRESS = "no_progress"
    # The rest are revocations and their like: the lease is somebody else's.
    LOST = "lost"
    FINISHED_ELSEWHERE = "finished_elsewhere"
    UNKNOWN = "unknown"
    SUPERSEDED = "superseded"
    CALL_ENDED = "call_ended"

    @property
    def rule(self) -> _Rule:
        """What the end of a run stopped for this reason is reported as."""
        return _RULES[self]

    @classmethod
    def of_revocation(cls, reason: str) -> StopReason:
        """The reason in a Revocation; a word that a newer master may use counts as lost."""
        known = (cls.CANCELLED, cls.LOST, cls.FINISHED_ELSEWHERE, cls.UNKNOWN)
        return next((one for one in known if one.value == reason), cls.LOST)


_RULES = {
    StopReason.CANCELLED: _Rule(Kind.OUTCOME_RELEASE, "Cancelled", "stopped because it was cancelled"),
    StopReason.DRAIN: _Rule(Kind.OUTCOME_RELEASE, "WorkerDrained", "handed back unfinished because the worker drains"),
    StopReason.PREEMPTED: _Rule(
        Kind.OUTCOME_RELEASE, "WorkerPreempted", "handed back unfinished because the worker's machine is taken away"
    ),
    StopReason.TIMEOUT: _Rule(Kind.OUTCOME_FAILURE, "TaskTimeout", "did not end within its timeout"),
    StopReason.NO_PROGRESS: _Rule(
        Kind.OUTCOME_FAILURE, "ProgressDeadlineExceeded", "reported no progress within its progress deadline"
    ),
    StopReason.LOST: _Rule(None),
    StopReason.FINISHED_ELSEWHERE: _Rule(None),
    StopReason.UNKNOWN: _Rule(None),
    StopReason.SUPERSEDED: _Rule(None),
    StopReason.CALL_ENDED: _Rule(None),
}


class Run:
    """A lease that this worker carries out, from its acceptance to its end.

    Attributes:
        number: Names the run on the pipe.
        request: As the master sent it.
        key: The lease.
        progress: The last report.
        reported_at: When that was; before, when the run started. Monotonic seconds.
        checkpointed_at: When it last wrote a checkpoint.
        steps_start: The step it went on from.
        checkpoint_policy: What the executor is told of when checkpoints are worth it.
        stop_reason: The first reason it was told to stop for.
        expected_memory: What the evaluation has said that it is going to take.
        slot_memory_bytes: What its slot has; 0: unknown.
        kernel_kills: How many processes the kernel has killed for want of memory during the run, once it is over.
        spans: What is told of it in traces.
        log_fields: What every log line about it carries.
        ended: Resolves to the outcome, None if there is nothing to tell.
    """

    def __init__(self, number: int, request: worker_pb2.EvaluateRequest) -> None:
        now = time.monotonic()
        self.number = number
        self.request = request
        self.key = key_of(request)
        self.accepted_at = now
        self.started_at: float | None = None
        self.reported_at = now
        self.checkpointed_at: float | None = None
        self.progress = worker_pb2.Progress()
        self.progress_sent = 0
        self.scratch: Scratch | None = None
        self.checkpoint_policy = CheckpointPolicy()
        self.steps_start = max((named.step for named in request.checkpoints[:1]), default=0)
        self.expected_memory: ExpectedMemory | None = None
        self.slot_memory_bytes = 0
        self.kernel_kills = 0
        self.spans = RunSpan(request)
        self.log_fields: dict[str, Any] = {**fields_of(request), **self.spans.log_fields}
        self.stop_reason: StopReason | None = None
        self.stop_at = math.inf
        self.grace_seconds = 0.0
        self.ended: asyncio.Future[worker_pb2.Outcome | None] = asyncio.get_running_loop().create_future()
        self._wake: Callable[[], None] = lambda: None

    @property
    def holds_lease(self) -> bool:
        """Whether the lease is still ours to renew: false once it was revoked."""
        return self.stop_reason is None or self.stop_reason.rule.kind is not None

    def seconds(self) -> float:
        """How long it has been running."""
        return 0.0 if self.started_at is None else time.monotonic() - self.started_at

    def start(self, scratch: Scratch, wake: Callable[[], None]) -> None:
        """It is in an executor now; its limits count from here. ``wake`` is called when it is told to stop."""
        self.scratch = scratch
        self.started_at = self.reported_at = time.monotonic()
        self._wake = wake

    def stop(self, reason: StopReason, grace_seconds: float) -> None:
        """Tell it to stop, and when its time for that is over.

        A second reason replaces the first only if the lease has gone with it: then nobody waits for the end. The
        shortest grace counts.
        """
        now = time.monotonic()
        if self.stop_reason is None or (self.holds_lease and reason.rule.kind is None):
            self.stop_reason = reason
        if now + grace_seconds < self.stop_at:
            self.stop_at = now + grace_seconds
            self.grace_seconds = grace_seconds
        self._wake()

    def report(self, message: Message) -> None:
        """Take a ``progress`` message."""
        self.reported_at = time.monotonic()
        self.progress = worker_pb2.Progress(
            sequence=int(message["sequence"]),
            step=int(message["step"]),
            total_steps=int(message["total_steps"]),
            metrics=finite_metrics(message["metrics"]),
        )

    def checkpointed(self, checkpoint: worker_pb2.Checkpoint) -> None:
        """It has written a checkpoint."""
        self.checkpointed_at = time.monotonic()
        if self.scratch is not None and self.key.token:
            self.scratch.note_checkpoint(self.request, checkpoint)

    def overdue(self) -> StopReason | None:
        """The limit that has passed, if any."""
        now = time.monotonic()
        timeout_at, progress_at = self._limits()
        if now >= timeout_at:
            return StopReason.TIMEOUT
        return StopReason.NO_PROGRESS if now >= progress_at else None

    def look_up_at(self) -> float:
        """When the next limit passes, or the grace is over once it was told to stop; infinity if never."""
        return self.stop_at if self.stop_reason is not None else min(self._limits())

    def grace_is_over(self) -> bool:
        """Whether it was told to stop and its time for that has passed."""
        return time.monotonic() >= self.stop_at

    def renewal(self) -> worker_pb2.Renewal:
        """Its lease, renewed, with its progress."""
        return worker_pb2.Renewal(
            task_id=self.key.task_id,
            lease_token=self.key.token,
            epoch=self.request.epoch,
            progress=self.progress,
            origin=self.request.origin,
            attempt=self.request.attempt,
        )

    def _limits(self) -> tuple[float, float]:
        if self.started_at is None:
            return math.inf, math.inf
        timeout, deadline = self.request.timeout_ms, self.request.progress_deadline_ms
        return (
            self.started_at + timeout / 1000 if timeout else math.inf,
            self.reported_at + deadline / 1000 if deadline else math.inf,
        )


def outcome_of(run: Run, ending: Message | Exited, log_tail: str) -> worker_pb2.Outcome | None:
    """What the master is told of a run's end; None: nothing, as the lease is gone.

    A run that was told to stop and ended with a success all the same is a success: the work is done.
    """
    rule = run.stop_reason.rule if run.stop_reason is not None else None
    if rule is not None and rule.kind is None:
        return None
    outcome = _outcome(
        run.request,
        duration_seconds=run.seconds(),
        steps_start=run.steps_start,
        steps_end=max(run.progress.step, run.steps_start),
    )
    _describe_memory(outcome, run, ending)
    if not isinstance(ending, Exited) and ending["type"] == "done":
        outcome.kind = Kind.OUTCOME_SUCCESS
        outcome.metrics.update(finite_metrics(ending["metrics"]))
        outcome.detail = _cut(ending["detail"], limits.DETAIL_BYTES_MAX)
        outcome.architecture = ending["architecture"]
        return outcome
    outcome.log_tail = log_tail
    if rule is not None and rule.kind is not None:
        outcome.kind = rule.kind
        outcome.error_class, outcome.error_message = rule.error_class, rule.message
        if isinstance(ending, Exited):
            outcome.error_message += f"; the executor {ending}"
    elif isinstance(ending, Exited):
        outcome.kind = Kind.OUTCOME_LOSS
        outcome.error_class = "ExecutorDied"
        outcome.error_message = f"the executor process {ending}"
        outcome.exit_signal, outcome.exit_code = ending.signal, ending.code
        if not ending.killed and (how := died_for_memory(ending.signal, ending.code, log_tail, run.kernel_kills)):
            outcome.kind = Kind.OUTCOME_OUT_OF_MEMORY
            outcome.error_class = "ExecutorOutOfMemory"
            outcome.error_message += f"; {how}"
    else:
        _describe_failure(outcome, ending)
    if outcome.kind == Kind.OUTCOME_OUT_OF_MEMORY:
        _choose_what_follows(outcome, run)
    return outcome


def release_of(run: Run, message: str) -> worker_pb2.Outcome:
    """The outcome of a lease that is handed back before an executor had it."""
    return _outcome(
        run.request,
        kind=Kind.OUTCOME_RELEASE,
        error_class="NotStarted",
        error_message=message,
        steps_start=run.steps_start,
        steps_end=run.steps_start,
    )


def outcome_of_leftover(request: worker_pb2.EvaluateRequest) -> worker_pb2.Outcome:
    """The outcome of a lease that an earlier process of this worker died under."""
    step = max((named.step for named in request.checkpoints[:1]), default=0)
    return _outcome(
        request,
        kind=Kind.OUTCOME_LOSS,
        error_class="WorkerDied",
        error_message="the worker's process, or its machine, died during the run",
        steps_end=step,
    )


def _outcome(request: worker_pb2.EvaluateRequest, **fields: Any) -> worker_pb2.Outcome:
    return worker_pb2.Outcome(
        task_id=request.task_id,
        lease_token=request.lease_token,
        epoch=request.epoch,
        origin=request.origin,
        attempt=request.attempt,
        trace=request.trace,
        search=request.search,
        retryable=True,
        **fields,
    )


def _describe_failure(outcome: worker_pb2.Outcome, ending: Message) -> None:
    if ending["type"] == "stopped":
        # Free releases for an evaluator that stops as it pleases would go round for ever.
        outcome.kind = Kind.OUTCOME_FAILURE
        outcome.error_class = "Stopped"
        outcome.error_message = "the evaluator raised Stopped though nobody had asked it to stop"
        return
    outcome.kind = Kind.OUTCOME_OUT_OF_MEMORY if ending["out_of_memory"] else Kind.OUTCOME_FAILURE
    outcome.error_class = _cut(str(ending["error_class"]), _ERROR_CLASS_BYTES_MAX)
    outcome.error_message = _cut(str(ending["message"]), limits.ERROR_MESSAGE_BYTES_MAX)
    outcome.retryable = bool(ending["retryable"])


def _describe_memory(outcome: worker_pb2.Outcome, run: Run, ending: Message | Exited) -> None:
    if (expected := run.expected_memory) is not None:
        outcome.memory.estimated_bytes = expected.estimated_bytes
        outcome.memory.limit_bytes = expected.limit_bytes
        outcome.memory.batch_size = expected.batch_size
        outcome.memory.micro_batches = expected.micro_batches
    if not isinstance(ending, Exited) and isinstance(peak := ending.get("peak_bytes"), int) and peak:
        outcome.memory.peak_bytes = max(0, min(peak, _INT64_MAX))


def _choose_what_follows(outcome: worker_pb2.Outcome, run: Run) -> None:
    """The task's policy, as the evaluation has said it."""
    expected = run.expected_memory
    if expected is None:
        return
    if expected.on_out_of_memory == "fail":
        outcome.retryable = False
    elif expected.on_out_of_memory == "elsewhere":
        outcome.memory_needed_bytes = max(expected.estimated_bytes, run.slot_memory_bytes + 1)


def finite_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those that the wire may carry: finite numbers, not too many. The executor's word is not taken for it."""
    finite = {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float)
        and math.isfinite(value)
        and _is_text(name)
        and len(name.encode()) <= limits.METRIC_NAME_BYTES_MAX
    }
    return dict(list(finite.items())[: limits.METRICS_ENTRIES_MAX])


def _is_text(text: str) -> bool:
    """Whether it can be UTF-8, as all text on the wire is: no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _cut(text: str, bytes_max: int) -> str:
    """``text`` in at most so many bytes of UTF-8, and without what protobuf refuses."""
    return text.encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore")
