"""One look at everything a broker must not lose: every task, the workers, the store's own counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tenure.client import AttemptRecord, Client, TaskRecord
from tenure.common.states import TaskState


class TaskLine(NamedTuple):
    """What is compared of one task.

    Attributes:
        epoch: Leases so far.
        ended_unix_ms: When it ended, with ``fitness`` the identity of its one accepted result.
        lease_left_ms: While LEASED, in lease-clock time.
    """

    search: str
    state: TaskState
    attempts: int
    losses: int
    out_of_memory: int
    epoch: int
    worker_id: str
    ended_unix_ms: int
    fitness: float | None
    lease_left_ms: int

    @classmethod
    def of(cls, record: TaskRecord) -> TaskLine:
        """The line of a record."""
        return cls(
            record.search,
            record.state,
            record.attempts,
            record.losses,
            record.out_of_memory,
            record.epoch,
            record.worker_id,
            record.ended_unix_ms,
            record.metrics.get("fitness"),
            record.lease_left_ms,
        )

    @property
    def ending(self) -> tuple[TaskState, int, float | None]:
        """What must never change once a task has ended."""
        return self.state, self.ended_unix_ms, self.fitness


@dataclass(frozen=True)
class Snapshot:
    """One look.

    Attributes:
        master_id: Of the master that was asked; new with each start of a master.
        tasks: Every task by id.
        counters: The store's, counted since it was made.
        workers: Workers that were live: (instance id, dispatch) by worker id.
        violations: What fsck found, where it was asked (console.known_violations).
    """

    master_id: str
    tasks: Mapping[str, TaskLine]
    counters: Mapping[str, int]
    workers: Mapping[str, tuple[str, str]]
    violations: frozenset[str] = frozenset()

    def count(self, state: TaskState) -> int:
        """How many tasks are in a state."""
        return Counter(task.state for task in self.tasks.values())[state]

    def held(self, workers: Iterable[str] | None = None) -> dict[str, TaskLine]:
        """The tasks under a lease: all, or those of some workers."""
        wanted = None if workers is None else set(workers)
        return {
            task_id: task
            for task_id, task in self.tasks.items()
            if task.state is TaskState.LEASED and (wanted is None or task.worker_id in wanted)
        }


def take_snapshot(client: Client, known: Iterable[str] = ()) -> Snapshot:
    """Look at the broker now.

    Args:
        client: Any master of the store.
        known: Ids that must be there: those that no search lists any more are asked for one by one.

    Raises:
        TenureError: No master answers.
    """
    workers = {
        worker.worker_id: (worker.instance_id, worker.dispatch)
        for worker in client.workers()
        if worker.status == "live"
    }
    tasks = {
        record.task_id: TaskLine.of(record) for search in client.searches() for record in client.tasks(search.name)
    }
    if missing := [task_id for task_id in known if task_id not in tasks]:
        tasks |= {task_id: TaskLine.of(record) for task_id, record in client.get_tasks(missing).items()}
    # Last: what a later look finds grown has grown after this one.
    stats = client.stats()
    return Snapshot(stats.master_id, tasks, dict(stats.counters), workers)


def leased_now(client: Client) -> dict[str, TaskLine]:
    """Every task under a lease at this moment."""
    return {
        record.task_id: TaskLine.of(record)
        for search in client.searches()
        for record in client.tasks(search.name, [TaskState.LEASED])
    }


def read_evidence(client: Client, task_ids: Iterable[str]) -> dict[str, tuple[AttemptRecord, ...]]:
    """How each lease of these tasks ended."""
    return {task_id: record.attempt_records for task_id, record in client.get_tasks(task_ids, full=True).items()}
