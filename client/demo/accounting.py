"""Holds the broker's own records of the demo's tasks against what Tenure promises."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tenure.client.broker_records import FsckReport, Stats
from tenure.client.demo.chaos import Damage
from tenure.client.records import TaskRecord
from tenure.common.states import TaskState

ACCURACY_MIN = 0.97
ACCURACY_METRIC = "val_accuracy"


@dataclass(frozen=True)
class Account:
    """Figures of one run, each read from the broker's records of the tasks.

    Attributes:
        submitted: Tasks that the broker acknowledged to the search program.
        succeeded: Of those, with their one result.
        resumed: With a run that went on from a checkpoint (it started above step 0).
        lost: Acknowledged, but unknown to the broker or never ended.
        evaluated_twice: Evaluated to the end more than once: more than one lease of theirs ended in success, or a
            second result came in and was refused as a duplicate.
        interrupted: Evaluations that had reported progress when the master was killed, and whose lease then ended
            without their result.
        leases: All leases together.
    """

    submitted: int
    succeeded: int
    resumed: int
    lost: int
    evaluated_twice: int
    interrupted: int
    leases: int


@dataclass(frozen=True)
class Promise:
    """One thing that must hold, whether it did, and what was seen."""

    text: str
    kept: bool
    seen: str


def account(acknowledged: Collection[str], records: Mapping[str, TaskRecord], stats: Stats, damage: Damage) -> Account:
    """The figures.

    Args:
        acknowledged: Ids of all submitted tasks, as the search program has them.
        records: Full records by id, as the broker has them.
        stats: The broker's counters.
        damage: What was killed.
    """
    succeeded = [record for record in records.values() if record.state is TaskState.SUCCEEDED]
    ended = [task_id for task_id in acknowledged if task_id in records and records[task_id].state.terminal]
    twice = sum(_number(record, "success") > 1 for record in records.values())
    return Account(
        submitted=len(acknowledged),
        succeeded=len(succeeded),
        resumed=sum(any(lease.steps_start > 0 for lease in record.attempt_records) for record in succeeded),
        lost=len(acknowledged) - len(ended),
        evaluated_twice=twice + stats.counters.get("duplicates", 0),
        interrupted=sum(
            not _delivered(records.get(task_id), epoch) for task_id, epoch in damage.running_at_master_kill
        ),
        leases=sum(record.epoch for record in records.values()),
    )


def promises(
    figures: Account,
    records: Mapping[str, TaskRecord],
    fsck: FsckReport,
    damage: Damage,
    *,
    chaos: bool,
) -> list[Promise]:
    """What must hold, and whether it does."""
    best = max((record.metrics.get(ACCURACY_METRIC, 0.0) for record in records.values()), default=0.0)
    found = [
        Promise("every submitted task ended", figures.lost == 0, f"{figures.lost} lost"),
        Promise(
            "every task has its result",
            figures.succeeded == figures.submitted,
            f"{figures.succeeded} of {figures.submitted} succeeded",
        ),
        Promise("nothing was evaluated twice", figures.evaluated_twice == 0, f"{figures.evaluated_twice} were"),
        Promise(
            "the store's indexes and tasks agree",
            not fsck.violations,
            f"{len(fsck.violations)} violations in {fsck.tasks_checked} tasks",
        ),
        Promise(f"the best accuracy is at least {ACCURACY_MIN}", best >= ACCURACY_MIN, f"{best:.4f}"),
    ]
    if chaos:
        found += [_worker_promise(records, damage), _master_promise(figures, damage)]
    return found


def _worker_promise(records: Mapping[str, TaskRecord], damage: Damage) -> Promise:
    text = "the killed worker's task went on from its checkpoint"
    if not damage.victims:
        return Promise(text, False, "no worker was killed: the run was over before; try more trials")
    seen: list[str] = []
    kept = True
    for victim in damage.victims:
        record = records.get(victim.task_id)
        later = [lease for lease in record.attempt_records if lease.epoch > victim.epoch] if record else []
        start = later[0].steps_start if later else 0
        kept = kept and start >= victim.checkpoint_step
        seen.append(f"epoch {victim.checkpoint_step} was registered, the next run started from epoch {start}")
    return Promise(text, kept, "; ".join(seen))


def _master_promise(figures: Account, damage: Damage) -> Promise:
    text = "the master's death interrupted no evaluation"
    if not damage.master_kills:
        return Promise(text, False, "the master was not killed: the run was over before; try more trials")
    running = len(damage.running_at_master_kill)
    return Promise(text, figures.interrupted == 0, f"{running} ran meanwhile, {figures.interrupted} were interrupted")


def _delivered(record: TaskRecord | None, epoch: int) -> bool:
    """Whether the lease of this epoch brought the result."""
    leases = record.attempt_records if record is not None else ()
    return any(lease.epoch == epoch and lease.outcome == "success" for lease in leases)


def _number(record: TaskRecord, outcome: str) -> int:
    return sum(lease.outcome == outcome for lease in record.attempt_records)
