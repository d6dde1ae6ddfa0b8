"""Compares two looks at a broker and says which promise broke between them.

The promises of a restart: every task that was known is still known; what had ended has not changed; no lease expired;
nothing was charged to a task's budgets on account of the restart; no task was given out again while its holder had it.

A search goes on while things are restarted, so numbers move for good reasons: evaluations end, and some fail by
themselves. Attempt records are the evidence that tells one from the other: each lease that ended has one, and it says
how. What no record explains counts as broken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from restarting.snapshot import Snapshot, TaskLine
from tenure.client import AttemptRecord
from tenure.common.states import TaskState

Evidence = Mapping[str, Sequence[AttemptRecord]]

# The budget that each ending of a lease is charged to.
CHARGED_TO = {"failure": "attempts", "out_of_memory": "out_of_memory", "loss": "losses", "expired": "losses"}
BUDGETS = ("attempts", "out_of_memory", "losses")
_SHOWN_MAX = 20


@dataclass
class Accounting:
    """The result of a comparison.

    Attributes:
        states: By state name: (before, after), of the tasks known before.
        figures: Named numbers, in the order in which they are shown.
        breaches: Promises that broke, a sentence each.
        notes: What happened beside the restart, a sentence each.
    """

    states: dict[str, tuple[int, int]] = field(default_factory=dict)
    figures: dict[str, int] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return not self.breaches


def account(
    before: Snapshot,
    after: Snapshot,
    evidence_of: Callable[[Iterable[str]], Evidence],
    *,
    drained: Collection[tuple[str, int]] = (),
) -> Accounting:
    """Compare.

    Args:
        before: The look before the restart.
        after: The look after it, taken with ``known=before.tasks``.
        evidence_of: Reads the attempt records of tasks by id; asked only for tasks that changed.
        drained: Leases that a worker held when it was told to drain, each a task's id and the lease's epoch. Whatever
            they are charged with is put down to the restart.
    """
    result = Accounting()
    burned: Counter[str] = Counter()
    drained = frozenset(drained)
    known = {task_id: after.tasks[task_id] for task_id in before.tasks if task_id in after.tasks}
    # What was submitted meanwhile began with nothing charged.
    earlier_lines = {task_id: before.tasks.get(task_id) or _as_submitted(task) for task_id, task in after.tasks.items()}
    result.states = {
        state.value: (before.count(state), sum(task.state is state for task in known.values())) for state in TaskState
    }
    forgotten = _account_for_vanished(before, after, result)
    changed = [
        task_id for task_id, task in after.tasks.items() if _was_leased_anew_or_charged(earlier_lines[task_id], task)
    ]
    evidence = evidence_of(changed) if changed else {}
    ends: Counter[str] = Counter()
    unexplained: list[str] = []
    for task_id in changed:
        earlier, task = earlier_lines[task_id], after.tasks[task_id]
        records = new_records(earlier, evidence.get(task_id, ()))
        ends.update(record.outcome for record in records)
        burned += _account_for_charges(task_id, earlier, task, records, drained, result)
        if _was_given_again(earlier, task) and not any(record.epoch == earlier.epoch for record in records):
            unexplained.append(
                f"task {task_id} was given to {task.worker_id} although nothing says that lease {earlier.epoch} "
                f"on {earlier.worker_id} had ended"
            )
    changed_results = _account_for_ended(before, known, result)
    _account_for_unexplained(unexplained, _growth("released", before, after) - ends["release"], result)
    for name, count in before.counters.items():
        if after.counters.get(name, 0) < count:
            result.breaches.append(
                f"the store's counter {name} went back from {count} to {after.counters.get(name, 0)}: "
                "this is another store, or an older copy of it"
            )
    expired = max(0, _growth("leases_expired", before, after))
    if expired:
        result.breaches.append(f"{expired} leases expired, by the store's own count")
    result.figures = {
        "tasks known before": len(before.tasks),
        "still there": len(known),
        "lost": len(before.tasks) - len(known) - forgotten,
        "deleted by retention": forgotten,
        "submitted meanwhile": len(after.tasks.keys() - before.tasks.keys()),
        "ended meanwhile": sum(task.state.terminal and not before.tasks[i].state.terminal for i, task in known.items()),
        "results changed": changed_results,
        "leases expired": expired,
        "attempts burned": burned["attempts"] + burned["out_of_memory"],
        "losses burned": burned["losses"],
        "failed by themselves": sum(ends[name] for name in CHARGED_TO) - burned["explained"],
        "handed back": ends["release"],
    }
    return result


def new_records(before: TaskLine, records: Iterable[AttemptRecord]) -> list[AttemptRecord]:
    """Those of leases that had not ended before."""
    first = before.epoch if before.state is TaskState.LEASED else before.epoch + 1
    return [record for record in records if record.epoch >= first]


def _was_leased_anew_or_charged(before: TaskLine, after: TaskLine) -> bool:
    was_let_go = before.state is TaskState.LEASED and after.state is not TaskState.LEASED
    return was_let_go or before.epoch != after.epoch or _charges(before, after).total() > 0


def _as_submitted(task: TaskLine) -> TaskLine:
    return TaskLine(task.search, TaskState.QUEUED, 0, 0, 0, 0, "", 0, None, 0)


def _charges(before: TaskLine, after: TaskLine) -> Counter[str]:
    return Counter({name: max(0, getattr(after, name) - getattr(before, name)) for name in BUDGETS})


def _account_for_vanished(before: Snapshot, after: Snapshot, result: Accounting) -> int:
    """Breaches for tasks that are gone; returns how many retention may have deleted: those that ended first."""
    oldest_kept: dict[tuple[str, TaskState], int] = {}
    vanished: list[str] = []
    for task_id, task in before.tasks.items():
        if task_id not in after.tasks:
            vanished.append(task_id)
        elif task.state.terminal:
            kind = (task.search, task.state)
            oldest_kept[kind] = min(task.ended_unix_ms, oldest_kept.get(kind, task.ended_unix_ms))
    forgotten = 0
    for task_id in vanished:
        task = before.tasks[task_id]
        kind = (task.search, task.state)
        if task.state.terminal and kind in oldest_kept and task.ended_unix_ms <= oldest_kept[kind]:
            forgotten += 1
        else:
            result.breaches.append(f"task {task_id} of search {task.search} vanished; it was {task.state.value}")
    if forgotten:
        result.notes.append(f"{forgotten} ended tasks, the oldest of their search, were deleted by retention")
    return forgotten


def _account_for_ended(before: Snapshot, known: Mapping[str, TaskLine], result: Accounting) -> int:
    """Breaches for tasks whose end is another now; returns how many."""
    changed = 0
    for task_id, task in known.items():
        earlier = before.tasks[task_id]
        if earlier.state.terminal and earlier.ending != task.ending:
            changed += 1
            result.breaches.append(
                f"task {task_id} had ended {earlier.state.value} and is now {task.state.value}"
                f"{' with another result' if earlier.state is task.state else ''}"
                f"{' (did somebody requeue it?)' if earlier.state is not TaskState.SUCCEEDED else ''}"
            )
    return changed


def _account_for_charges(
    task_id: str,
    before: TaskLine,
    after: TaskLine,
    records: Sequence[AttemptRecord],
    drained: Collection[tuple[str, int]],
    result: Accounting,
) -> Counter[str]:
    """Breaches and notes for what was charged. Returns what the restart burned, by budget, and under ``explained`` how
    much of it has a record."""
    burned: Counter[str] = Counter()
    explained: Counter[str] = Counter()
    for record in records:
        budget = CHARGED_TO.get(record.outcome)
        if budget is None:
            continue
        explained[budget] += 1
        what = f"task {task_id}, lease {record.epoch} on {record.worker_id}: {_said(record)}"
        by_drain = (task_id, record.epoch) in drained
        if by_drain or record.outcome == "expired":
            burned.update((budget, "explained"))
        if record.outcome == "expired":
            result.breaches.append(f"{what}; the lease expired and a loss was burned")
        elif by_drain:
            result.breaches.append(f"{what}; it was draining, which must burn nothing")
        else:
            result.notes.append(f"{what}; an end of its own, charged to its {budget}")
    for budget, number in _charges(before, after).items():
        if number > explained[budget]:
            burned[budget] += number - explained[budget]
            result.breaches.append(
                f"task {task_id} was charged {number} {budget} and its records explain {explained[budget]}"
            )
    return burned


def _account_for_unexplained(leases: Sequence[str], handed_back: int, result: Accounting) -> None:
    """A lease that never reached its worker is handed back without a record; the store only counts it."""
    if leases and len(leases) <= handed_back:
        result.notes.append(f"{len(leases)} leases were handed back before they reached their worker")
    else:
        result.breaches += leases


def _growth(counter: str, before: Snapshot, after: Snapshot) -> int:
    return after.counters.get(counter, 0) - before.counters.get(counter, 0)


def _was_given_again(before: TaskLine, after: TaskLine) -> bool:
    return before.state is TaskState.LEASED and after.epoch > before.epoch


def _said(record: AttemptRecord) -> str:
    error = f" {record.error_class}: {record.error_message}" if record.error_class else ""
    return (record.outcome + error).splitlines()[0][:200]


def shortened(sentences: Sequence[str]) -> list[str]:
    """At most so many that a person would read them."""
    more = len(sentences) - _SHOWN_MAX
    return [*sentences[:_SHOWN_MAX], f"… and {more} more"] if more > 0 else list(sentences)
