"""What goes into the store and comes out of it, as plain values."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenure.common.retry import RetryPolicy as RetryPolicy
from tenure.common.spec import Config, Requirements, TaskSpec
from tenure.common.states import TaskState
from tenure.common.traceparent import lease_traceparent, log_fields
from tenure.master.store.compute import Compute
from tenure.master.store.lease_facts import LeaseFacts
from tenure.master.store.origins import search_of
from tenure.master.store.verdicts import Answer as Answer
from tenure.master.store.verdicts import RenewVerdict as RenewVerdict
from tenure.master.store.verdicts import Verdict as Verdict

DEFAULT_CLASS = "-"
# In the requirements of tasks that name their evaluator. No worker can have a label of this name (rpc/workers.py), so a
# master that knows nothing of such tasks never gives one out.
ACCEPTS_CODE_LABEL = "=accepts-code"


class FailureKind(enum.StrEnum):
    """Which budget a bad end is charged to."""

    FAILURE = "failure"
    LOSS = "loss"
    OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True)
class NewTask:
    """A checked task with the id it will have if its key is new."""

    task_id: str
    key: str
    spec: TaskSpec


@dataclass(frozen=True)
class Submitted:
    """What became of a submitted task: created, or known by its key. ``trace`` is the task's."""

    task_id: str
    key: str
    created: bool
    state: TaskState
    trace: str = ""


@dataclass(frozen=True)
class ClaimRequest:
    """One worker asks for tasks; it is given at most ``len(tokens)``.

    ``elsewhere``: the classes that another worker waits for, too. Of those it is not given what it lost lately.
    """

    worker_id: str
    tokens: list[str]
    classes: list[str]
    legacy: bool = False
    instance_id: str = ""
    elsewhere: Sequence[str] = ()


@dataclass(frozen=True)
class Lease:
    """A live lease: of which task, under which token, whose, and which start of that worker was given it."""

    task_id: str
    token: str
    worker_id: str
    instance_id: str


@dataclass(frozen=True)
class CheckpointRecord:
    """A registered checkpoint. ``score``: higher is better, None is worst."""

    url: str
    step: int
    digest: str
    size_bytes: int
    epoch: int
    score: float | None = None

    def to_json(self) -> str:
        """As the store keeps it."""
        parts = {
            "url": self.url,
            "step": self.step,
            "digest": self.digest,
            "size": self.size_bytes,
            "epoch": self.epoch,
            "score": self.score,
        }
        return json.dumps({name: value for name, value in parts.items() if value is not None})

    @staticmethod
    def from_json(text: bytes | str) -> CheckpointRecord:
        """The inverse of :meth:`to_json`."""
        parts = json.loads(text)
        return CheckpointRecord(
            parts["url"], parts["step"], parts["digest"], parts["size"], parts["epoch"], parts.get("score")
        )


@dataclass(frozen=True)
class Grant:
    """One task under a fresh lease. ``waited_ms``: for how long it could have been taken; ``trace``: the task's."""

    task_id: str
    token: str
    epoch: int
    attempt: int
    search: str
    architecture: str
    config: Config
    timeout_ms: int
    progress_deadline_ms: int
    checkpoints: list[CheckpointRecord]
    origin: str = ""
    out_of_memory: int = 0
    evaluator: str = ""
    code: str = ""
    waited_ms: int = 0
    trace: str = ""

    @property
    def log_fields(self) -> dict[str, Any]:
        """What every log line about it carries, beside the worker."""
        about = {"search": self.search, "task": self.task_id, "epoch": self.epoch, "attempt": self.attempt}
        return {**about, **log_fields(lease_traceparent(self.trace, self.token, "lease"))}


class Grants(list[Grant]):
    """What one worker was given.

    Attributes:
        passed_over: Whether tasks wait that it lost lately and another worker should be asked for.
        damaged: Leases of tasks that nobody can be given, since what a worker needs of them can't be read.
    """

    passed_over: bool = False
    damaged: tuple[Lease, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What a run left behind, for the attempt record. ``memory``: a MemoryReport's fields that are known."""

    error_class: str = ""
    error_message: str = ""
    exit_signal: int = 0
    exit_code: int = 0
    log_tail: str = ""
    steps_start: int = 0
    steps_end: int = 0
    duration_seconds: float = 0.0
    memory: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Without what is empty."""
        return json.dumps({name: value for name, value in vars(self).items() if value})


@dataclass(frozen=True)
class Success:
    """A good end under one lease; an empty token is a legacy peer's."""

    task_id: str
    token: str
    epoch: int
    worker_id: str
    metrics: Mapping[str, float]
    detail: str = ""
    architecture: str = ""
    evidence: Evidence = Evidence()
    origin: str = ""
    attempt: int = 0


@dataclass(frozen=True)
class Failure:
    """A bad end under one lease, with the numbers that decide what follows.

    Attributes:
        retry: Its backoff; the rules are applied already.
        rule: The retry rule whose own budget is charged; empty: the kind's budget is.
        rule_budget: That budget.
        policy: Id of the search's policy it was judged by; empty: the search has none.
        memory_needed_bytes: What the task requires of a slot from now on; 0 = no more than before.
        epoch, attempt: Of the lease, as the worker says it; 0 = it doesn't.
    """

    task_id: str
    token: str
    worker_id: str
    kind: FailureKind
    retryable: bool
    evidence: Evidence
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    rule: str = ""
    rule_budget: int = 0
    policy: str = ""
    memory_needed_bytes: int = 0
    epoch: int = 0
    attempt: int = 0


@dataclass(frozen=True)
class Release:
    """A task handed back unfinished. ``evidence`` is None when it never reached its worker."""

    task_id: str
    token: str
    worker_id: str
    evidence: Evidence | None = None
    epoch: int = 0
    attempt: int = 0


@dataclass(frozen=True)
class Renewal:
    """A lease that its holder still has. ``progress`` is JSON text {step, total, metrics} or empty, ``instance_id`` the
    process that says so."""

    task_id: str
    token: str
    epoch: int
    worker_id: str
    progress: str = ""
    origin: str = ""
    instance_id: str = ""
    attempt: int = 0

    @property
    def log_fields(self) -> dict[str, Any]:
        """What every log line about it carries."""
        about = {"search": search_of(self.origin), "task": self.task_id, "worker": self.worker_id}
        return {**about, "epoch": self.epoch, "attempt": self.attempt}


@dataclass(frozen=True)
class Expired:
    """A lease that the reaper took back, and where its task went. ``cause``: silent, or disconnected."""

    task_id: str
    state: TaskState
    worker_id: str
    token: str
    cause: str = "silent"
    lease: LeaseFacts | None = field(default=None, compare=False)


@dataclass(frozen=True)
class AttemptRecord:
    """One lease of a task and how it ended: success, failure, loss, out_of_memory, release or expired."""

    epoch: int
    worker_id: str
    outcome: str
    leased_unix_ms: int
    ended_unix_ms: int
    evidence: Evidence


@dataclass(frozen=True)
class TaskView:
    """A task as it is at one moment. ``fields`` are the metadata hash's own. ``payload_damaged``: what a worker needs
    of it was asked for, and can't be read any more.
    """

    task_id: str
    state: TaskState
    search: str
    fields: Mapping[str, str]
    outcome: Mapping[str, Any] | None
    progress: Mapping[str, Any] | None
    checkpoint: CheckpointRecord | None
    lease_left_ms: int | None
    scheduled_in_ms: int | None
    requirements: Requirements
    architecture: str = ""
    config: Config | None = None
    attempt_records: list[AttemptRecord] = field(default_factory=list)
    evaluator: str = ""
    code: str = ""
    payload_damaged: bool = False

    def number(self, name: str) -> int:
        """A numeric field of the metadata; 0 when absent, or no number."""
        try:
            return int(self.fields.get(name) or 0)
        except ValueError:
            return 0


@dataclass(frozen=True)
class SearchView:
    """A search with its counts."""

    name: str
    status: str
    priority: int
    weight: float
    max_leased: int
    architecture_format: str
    created_unix_ms: int
    last_ended_unix_ms: int
    counts: Mapping[TaskState, int]
    oldest_queued_ms: int | None
    best_fitness: float | None
    best_task_id: str
    retry: RetryPolicy | None = None
    evaluator: str = ""
    code: str = ""
    compute: Compute = field(default_factory=Compute)


@dataclass(frozen=True)
class Overview:
    """A store's searches and figures at one moment (of each shard)."""

    lease_clock_ms: int
    leases: int
    leases_due: int
    scheduled: int
    counters: Mapping[str, int]
    searches: list[SearchView]


@dataclass(frozen=True)
class WorkerView:
    """A registered worker. ``fields`` are those of its registration and last heartbeat."""

    worker_id: str
    seen_ms_ago: int
    fields: Mapping[str, str]

    def number(self, name: str) -> float:
        """A numeric field; 0 when absent."""
        return float(self.fields.get(name) or 0)


@dataclass(frozen=True)
class TaskEvent:
    """One transition, as every master and watcher hears of it."""

    cursor: str
    at_unix_ms: int
    task_id: str
    search: str
    transition: str
    state: str
    worker_id: str
    epoch: int


def requirement_class(requirements: Requirements, *, accepts_code: bool = False) -> tuple[str, str]:
    """(class, its requirements as JSON): tasks with equal requirements share one ready index. ``accepts_code``: the
    worker must let tasks name their evaluator."""
    labels = dict(requirements.labels) | ({ACCEPTS_CODE_LABEL: "1"} if accepts_code else {})
    parts: dict[str, object] = {"gpus": requirements.gpus, "labels": labels}
    if requirements.memory_bytes:
        # Only then: the classes of earlier versions keep their names.
        parts["memory_bytes"] = requirements.memory_bytes
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    if requirements == Requirements() and not labels:
        return DEFAULT_CLASS, text
    return hashlib.sha256(text.encode()).hexdigest()[:12], text


def requirements_from_json(text: bytes | str) -> Requirements:
    """The inverse of :func:`requirement_class`'s text."""
    if not text:
        return Requirements()
    parts = json.loads(text)
    return Requirements(parts["gpus"], parts["labels"], parts.get("memory_bytes", 0))
