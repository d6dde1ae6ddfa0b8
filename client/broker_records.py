"""What a master says of searches, workers and the broker as a whole, as values; of tasks: records.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tenure.client.device_records import GpuRecord, SlotRecord
from tenure.common.retry import RetryPolicy
from tenure.common.states import TaskState
from tenure.proto.convert import retry_from_message


@dataclass(frozen=True, slots=True)
class ComputeTime:
    """What became of the time that runs took, in ms; the end of each lease counts it once.

    Attributes:
        useful_ms: Of runs whose result was accepted.
        saved_ms: By cause. ``checkpoint``: of runs that ended unfinished, until their last checkpoint. ``late`` and
            ``readopted``: counted as wasted when their lease was lost, and not lost after all. ``shared``: of results
            that an equal submission found.
        wasted_ms: By cause: ``loss``, ``failure``, ``out_of_memory``, ``release``, ``cancelled``, ``duplicate``,
            ``stale``.
    """

    useful_ms: int = 0
    saved_ms: Mapping[str, int] = field(default_factory=dict)
    wasted_ms: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_message(cls, message: Any) -> ComputeTime:
        """From ``tenure.v1.ComputeTime``; nothing from masters of earlier versions."""
        return cls(message.useful_ms, dict(message.saved_ms), dict(message.wasted_ms))


@dataclass(frozen=True, slots=True)
class SearchStatus:
    """A search: its settings and how far it is.

    Attributes:
        weight: Among searches of equal priority tasks are given in this proportion.
        max_leased: No task is given out while so many are leased; 0 = no limit.
        architecture_format: ``graph`` or ``json``.
        status: ``active``, ``paused`` or ``cancelled``.
        tasks: Number of tasks by state.
        oldest_queued_ms: Age of the oldest QUEUED task.
        best_fitness: The highest ``fitness`` of a SUCCEEDED task, ``best_task_id``; None while there is none.
        retry: Its retry policy; None: the master's settings.
        evaluator: What evaluates its tasks, as ``module:function``; empty: the workers' own.
        code: Digest of the archive that the evaluator is in; empty: it is installed on the workers.
        compute: What became of the time that its runs took.
    """

    name: str
    priority: int
    weight: float
    max_leased: int
    architecture_format: str
    status: str
    created_unix_ms: int
    tasks: Mapping[TaskState, int]
    oldest_queued_ms: int
    last_ended_unix_ms: int
    best_fitness: float | None
    best_task_id: str
    retry: RetryPolicy | None = None
    evaluator: str = ""
    code: str = ""
    compute: ComputeTime = field(default_factory=ComputeTime)

    @property
    def open(self) -> int:
        """Tasks that have not ended."""
        return sum(number for state, number in self.tasks.items() if not state.terminal)

    @property
    def total(self) -> int:
        """All tasks."""
        return sum(self.tasks.values())

    @classmethod
    def from_message(cls, message: Any) -> SearchStatus:
        """From ``tenure.v1.Search``."""
        return cls(
            name=message.name,
            priority=message.priority,
            weight=message.weight,
            max_leased=message.max_leased,
            architecture_format=message.architecture_format,
            status=message.status,
            created_unix_ms=message.created_unix_ms,
            tasks=_by_state(message.tasks),
            oldest_queued_ms=message.oldest_queued_ms,
            last_ended_unix_ms=message.last_ended_unix_ms,
            best_fitness=message.best_fitness if message.HasField("best_fitness") else None,
            best_task_id=message.best_task_id,
            retry=retry_from_message(message.retry) if message.HasField("retry") else None,
            evaluator=message.evaluator,
            code=message.code,
            compute=ComputeTime.from_message(message.compute),
        )


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One worker as the broker sees it.

    Attributes:
        status: ``live``, ``silent`` (its lease time runs out) or ``gone``.
        mode: ``active``, ``cordoned`` (gets nothing more) or ``draining`` (hands back what it holds, too).
        dispatch: ``session``, ``pull`` or ``push``.
        slots_busy: The worker's own word, as of its last heartbeat.
        leases: What it holds by the store, which knows at once.
        gpus_per_slot: What a task on one of its slots may use.
        gpus: Its GPUs, as of its last heartbeat; none of a worker that doesn't say.
        slot_list: The same of its slots.
        accepts_code: Whether it is given tasks that name their evaluator.
        slot_memory_bytes: What a task on one of its slots may use, of the smallest GPU's memory or the host's; 0: it
            doesn't say, and is given no task that requires memory.
    """

    worker_id: str
    instance_id: str
    status: str
    mode: str
    host: str
    port: int
    slots: int
    slots_busy: int
    num_gpus: int
    gpu_ids: tuple[int, ...]
    labels: Mapping[str, str]
    dispatch: str
    version: str
    registered_unix_ms: int
    last_seen_ms_ago: int
    cpu_percent: float
    memory_percent: float
    gpu_percent: float
    gpu_memory_percent: float
    tasks_completed: int
    tasks_failed: int
    current_task_id: str
    leases: int
    gpus_per_slot: int
    gpus: tuple[GpuRecord, ...]
    slot_list: tuple[SlotRecord, ...]
    accepts_code: bool
    slot_memory_bytes: int = 0

    @classmethod
    def from_message(cls, message: Any) -> WorkerRecord:
        """From ``tenure.v1.Worker``."""
        plain = {name: getattr(message, name) for name in _WORKER_PLAIN}
        return cls(
            **plain,
            gpu_ids=tuple(message.gpu_ids),
            labels=dict(message.labels),
            gpus=tuple(map(GpuRecord.from_message, message.gpus)),
            slot_list=tuple(map(SlotRecord.from_message, message.slot_list)),
        )


_WORKER_PLAIN = (
    "worker_id",
    "instance_id",
    "status",
    "mode",
    "host",
    "port",
    "slots",
    "slots_busy",
    "num_gpus",
    "dispatch",
    "version",
    "registered_unix_ms",
    "last_seen_ms_ago",
    "cpu_percent",
    "memory_percent",
    "gpu_percent",
    "gpu_memory_percent",
    "tasks_completed",
    "tasks_failed",
    "current_task_id",
    "accepts_code",
    "slot_memory_bytes",
    "leases",
    "gpus_per_slot",
)


@dataclass(frozen=True, slots=True)
class Stats:
    """The broker as a whole. ``counters`` count since the store was made; ``compute`` is of the searches there are."""

    tasks: Mapping[TaskState, int]
    workers_live: int
    slots: int
    slots_busy: int
    leases_live: int
    lease_clock_ms: int
    oldest_queued_ms: int
    master_id: str
    version: str
    store: str
    durability: str
    counters: Mapping[str, int]
    compute: ComputeTime = field(default_factory=ComputeTime)

    @classmethod
    def from_message(cls, message: Any) -> Stats:
        """From ``tenure.v1.StatsResponse``."""
        plain = {name: getattr(message, name) for name in _STATS_PLAIN}
        return cls(
            **plain,
            tasks=_by_state(message.tasks),
            counters=dict(message.counters),
            compute=ComputeTime.from_message(message.compute),
        )


_STATS_PLAIN = (
    "workers_live",
    "slots",
    "slots_busy",
    "leases_live",
    "lease_clock_ms",
    "oldest_queued_ms",
    "master_id",
    "version",
    "store",
    "durability",
)


@dataclass(frozen=True, slots=True)
class FsckReport:
    """Whether the store's indexes and tasks agree; each violation is one sentence."""

    tasks_checked: int
    violations: tuple[str, ...]


def _by_state(numbers: Mapping[str, int]) -> dict[TaskState, int]:
    return {state: numbers.get(state.value, 0) for state in TaskState}
