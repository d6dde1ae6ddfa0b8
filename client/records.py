"""What a master says of tasks, as values; of searches, workers and itself: broker_records.py.

All are frozen and safe to share between threads. Field names are those of ``proto/tenure.proto``, units last;
times ``*_unix_ms`` are for people (0 = not yet): nothing is decided by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tenure.common.errors import TenureError
from tenure.common.spec import Config, Requirements
from tenure.common.states import TaskState
from tenure.proto.convert import config_from_message, requirements_from_message, state_from_message


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed.

    Attributes:
        error_class: The exception's class, or what the worker saw (``Killed``, ``ProgressTimeout``, …).
        message: Its text.
        retryable: False: it was never tried again, whatever the budget said.
    """

    error_class: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """The last report of a running evaluation. ``total_steps`` is 0 when the evaluator doesn't say."""

    step: int
    total_steps: int
    metrics: Mapping[str, float]
    reported_unix_ms: int


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """The newest registered checkpoint: where it lies, the step it stands after, the lease epoch that wrote
    it.
    """

    url: str
    step: int
    size_bytes: int
    epoch: int


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """What is known of a run's memory, a GPU's or the host's; 0 = unknown.

    Attributes:
        estimated_bytes: What it was going to take at its peak, as estimated at its start.
        limit_bytes: What it could have then.
        peak_bytes: What it took at its peak.
        batch_size: Rows in a batch.
        micro_batches: In how many parts a batch went through the network.
    """

    estimated_bytes: int = 0
    limit_bytes: int = 0
    peak_bytes: int = 0
    batch_size: int = 0
    micro_batches: int = 0


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One lease of a task and how it ended: the evidence.

    Attributes:
        epoch: Of the lease; rises by one with each.
        outcome: ``success``, ``failure``, ``loss``, ``out_of_memory``, ``release`` or ``expired``.
        exit_signal: Signal that ended the executor, 0 for none.
        log_tail: The last lines the evaluation printed.
        steps_start: Step the run started from: above 0, it went on from a checkpoint.
        steps_end: Step it got to.
        memory: What it was going to take and took; None if nothing is known.
    """

    epoch: int
    worker_id: str
    outcome: str
    leased_unix_ms: int
    ended_unix_ms: int
    error_class: str
    error_message: str
    exit_signal: int
    exit_code: int
    log_tail: str
    steps_start: int
    steps_end: int
    duration_seconds: float
    memory: MemoryReport | None = None


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task as the broker has it.

    Attributes:
        attempts: Failures of the evaluation so far, of ``max_attempts``.
        losses: Times the worker or executor vanished, of ``max_losses``.
        out_of_memory: Runs that ended out of memory, of ``max_out_of_memory``.
        rule_attempts: What was charged to the own budgets of the search's retry rules, by their error class.
        epoch: Leases so far.
        worker_id: Holder while LEASED, else the last one.
        metrics: Of a SUCCEEDED task; ``fitness`` among them by convention.
        failure: Of a FAILED task, or of the last attempt that failed; None if none did.
        lease_left_ms: In lease-clock time, while LEASED.
        scheduled_in_ms: Until a SCHEDULED task is QUEUED, in lease-clock time.
        resumes: How often a run went on from a checkpoint.
        architecture: JSON text. Like ``config``, ``attempt_records``, ``evaluator`` and ``code`` only in full records.
        evaluator: What evaluates it, as ``module:function``; empty: its worker's own.
        code: Digest of the archive that the evaluator is in; empty: it is installed on the workers.
        trace: W3C traceparent that the spans of its life are below; empty: it is not traced.
    """

    task_id: str
    search: str
    key: str
    state: TaskState
    priority: int
    attempts: int
    max_attempts: int
    losses: int
    max_losses: int
    out_of_memory: int
    epoch: int
    worker_id: str
    cancel_requested: bool
    submitted_unix_ms: int
    leased_unix_ms: int
    ended_unix_ms: int
    metrics: Mapping[str, float]
    detail: str
    duration_seconds: float
    failure: Failure | None
    progress: ProgressReport | None
    checkpoint: CheckpointRef | None
    lease_left_ms: int
    scheduled_in_ms: int
    resumes: int
    requirements: Requirements
    architecture: str
    config: Config | None
    attempt_records: tuple[AttemptRecord, ...]
    max_out_of_memory: int = 0
    rule_attempts: Mapping[str, int] = field(default_factory=dict)
    evaluator: str = ""
    code: str = ""
    trace: str = ""

    @classmethod
    def from_message(cls, message: Any) -> TaskRecord:
        """From ``tenure.v1.Task``."""
        plain = {name: getattr(message, name) for name in _TASK_PLAIN}
        return cls(
            **plain,
            state=_state(message.state),
            metrics=dict(message.metrics),
            failure=_part(message, "failure", _failure),
            progress=_part(message, "progress", _progress),
            checkpoint=_part(message, "checkpoint", _checkpoint),
            requirements=requirements_from_message(message.requirements),
            config=_part(message, "config", config_from_message),
            rule_attempts=dict(message.rule_attempts),
            attempt_records=tuple(_attempt(record) for record in message.attempt_records),
        )


_TASK_PLAIN = (
    "task_id",
    "search",
    "key",
    "priority",
    "attempts",
    "max_attempts",
    "losses",
    "max_losses",
    "out_of_memory",
    "max_out_of_memory",
    "epoch",
    "worker_id",
    "cancel_requested",
    "submitted_unix_ms",
    "leased_unix_ms",
    "ended_unix_ms",
    "detail",
    "duration_seconds",
    "lease_left_ms",
    "scheduled_in_ms",
    "resumes",
    "architecture",
    "evaluator",
    "code",
    "trace",
)


@dataclass(frozen=True, slots=True)
class TaskVerdict:
    """What became of a request about one task.

    Attributes:
        verdict: ``ok``, ``already`` (it was so before), ``cancel_requested`` (a worker holds it and is told),
            ``wrong_state`` or ``unknown``.
        state: The task's state now; None if there is no such task.
    """

    task_id: str
    verdict: str
    state: TaskState | None

    @classmethod
    def from_message(cls, message: Any) -> TaskVerdict:
        """From ``tenure.v1.TaskVerdict``."""
        return cls(message.task_id, message.verdict, state_from_message(message.state))


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One change of one task: the transition's name and the state after it."""

    task_id: str
    search: str
    transition: str
    state: TaskState | None
    at_unix_ms: int
    worker_id: str
    epoch: int

    @classmethod
    def from_message(cls, message: Any) -> TaskEvent:
        """From ``tenure.v1.TaskEvent``."""
        return cls(
            message.task_id,
            message.search,
            message.transition,
            state_from_message(message.state),
            message.at_unix_ms,
            message.worker_id,
            message.epoch,
        )


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events that came together. A watch that starts from ``cursor`` goes on right after them."""

    cursor: str
    events: tuple[TaskEvent, ...]

    @classmethod
    def from_message(cls, message: Any) -> EventBatch:
        """From ``tenure.v1.WatchResponse``."""
        return cls(message.cursor, tuple(TaskEvent.from_message(event) for event in message.events))


def _state(number: Any) -> TaskState:
    state = state_from_message(number)
    if state is None:
        raise TenureError(
            "the master knows a state of tasks that this client doesn't",
            field="state",
            given=number,
            expected="use a client of the master's version",
        )
    return state


def _part(message: Any, name: str, make: Any) -> Any:
    return make(getattr(message, name)) if message.HasField(name) else None


def _failure(message: Any) -> Failure:
    return Failure(message.error_class, message.message, message.retryable)


def _progress(message: Any) -> ProgressReport:
    return ProgressReport(message.step, message.total_steps, dict(message.metrics), message.reported_unix_ms)


def _checkpoint(message: Any) -> CheckpointRef:
    return CheckpointRef(message.url, message.step, message.size_bytes, message.epoch)


def _attempt(message: Any) -> AttemptRecord:
    plain = {name: getattr(message, name) for name in AttemptRecord.__dataclass_fields__ if name != "memory"}
    return AttemptRecord(**plain, memory=_part(message, "memory", _memory))


def _memory(message: Any) -> MemoryReport:
    return MemoryReport(**{name: getattr(message, name) for name in MemoryReport.__dataclass_fields__})
