"""What must hold at the end: each task in one end state, results taken = tasks succeeded, nothing for fsck to find."""

from __future__ import annotations

from simulation.ledger import Ledger
from simulation.world import SEARCHES
from tenure.common.states import TERMINAL, TaskState
from tenure.master.store import Store

PAGE = 1_000


async def audit(store: Store, ledger: Ledger, tasks: int) -> int:
    """Adds to the ledger's violations; returns how many tasks fsck has checked."""
    ledger.close()
    seen: set[str] = set()
    by_state = dict.fromkeys(TaskState, 0)
    for search in SEARCHES:
        for state in TERMINAL:
            cursor, first = "", True
            while cursor or first:
                first = False
                cursor, ids = await store.tasks.page(search.name, [state], cursor, PAGE)
                by_state[state] += len(ids)
                for task_id in ids:
                    if task_id in seen:
                        ledger.violated(f"task {task_id} is in two states")
                    seen.add(task_id)
                    if ledger.states[ledger.numbers[task_id]] is not state:
                        ledger.violated(f"task {task_id} is {state}, its last event says otherwise")
    _equal(ledger, "tasks in an end state", len(seen), tasks)
    _equal(ledger, "successes taken", ledger.counts["successes taken"], by_state[TaskState.SUCCEEDED])
    (overview,) = await store.searches.overview()
    counted = dict.fromkeys(TaskState, 0)
    for view in overview.searches:
        for state, count in view.counts.items():
            counted[state] += count
    for state, count in counted.items():
        _equal(ledger, f"tasks counted {state}", count, by_state[state])
    _equal(ledger, "leases left", overview.leases, 0)
    _equal(ledger, "late successes", overview.counters.get("late_accepted", 0), ledger.counts["late successes taken"])
    for state in (TaskState.SUCCEEDED, TaskState.FAILED):
        ledger.counts[f"ended {state}"] = by_state[state]
    checked, violations = await store.fsck.run()
    _equal(ledger, "tasks that fsck has checked", checked, tasks)
    for violation in violations:
        ledger.violated(f"fsck: {violation}")
    return checked


def _equal(ledger: Ledger, what: str, found: int, expected: int) -> None:
    if found != expected:
        ledger.violated(f"{what}: {found}, expected {expected}")
