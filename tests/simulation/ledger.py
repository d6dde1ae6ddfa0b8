"""The books: every event is checked against what may happen, every second of computing is accounted for."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

from simulation.runs import Run
from simulation.world import World
from tenure.common.states import TRANSITIONS_BY_NAME, TaskState
from tenure.master.store.records import TaskEvent

VIOLATIONS_SHOWN = 20
LEASED = TaskState.LEASED


class Fault(NamedTuple):
    """Why a task's run was lost, and when."""

    cause: str
    at_ms: int


class Ledger:
    """See the module.

    Attributes:
        numbers: Task id -> task number.
        states, epochs: By task number, as the events say.
        violations: What must not have happened.
        threatened: Task id -> what befell its holder: its lease may be taken.
        noticed_ms, resumed_ms: By cause: how long after the fault the task was queued again, and was run again.
        running: How many leases each search has.
        leased_ms, claims: Of each search so far.
        computed_ms, useful_ms: Of all runs; of tasks that succeeded.
        wasted_ms: By cause: what was computed and thrown away.
        counts: Of whatever is told at the end.
        ended: How many tasks are in an end state.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        tasks = len(world.search_of)
        self.numbers: dict[str, int] = {}
        self.states: list[TaskState | None] = [None] * tasks
        self.epochs = np.zeros(tasks, dtype=np.int32)
        self.violations: list[str] = []
        self.violation_count = 0
        self.threatened: dict[str, Fault] = {}
        self._waiting: dict[str, Fault] = {}
        self.noticed_ms: defaultdict[str, list[int]] = defaultdict(list)
        self.resumed_ms: defaultdict[str, list[int]] = defaultdict(list)
        self.search_numbers: dict[str, int] = {}
        self.running = [0] * len(world.ranges)
        self.submitted = [0] * len(world.ranges)
        self.done = [0] * len(world.ranges)
        self.leased_ms = [0] * len(world.ranges)
        self.claims = [0] * len(world.ranges)
        self._counted_to = [0] * len(world.ranges)
        self.computed_ms = self.useful_ms = 0
        self.wasted_ms: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.ended = 0
        self.served_since_ms = 0
        self._winners: dict[int, Run] = {}
        self._accepted = bytearray(tasks)
        self._credits: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)

    def violated(self, text: str) -> None:
        """Something happened that must not."""
        self.violation_count += 1
        if len(self.violations) < VIOLATIONS_SHOWN:
            self.violations.append(text)

    # ---- the history ----------------------------------------------------------------------------------------------

    def note_event(self, event: TaskEvent, now_ms: int) -> None:
        """One transition, as every master hears of it."""
        number = self.numbers.get(event.task_id)
        if number is None:
            if event.task_id:
                self.violated(f"an event of a task that nobody submitted: {event}")
            return
        before, after = self.states[number], TaskState(event.state)
        if (before, after) not in TRANSITIONS_BY_NAME[event.transition].edges:
            self.violated(f"{event.transition} from {before} to {after}: {event}")
        self.states[number] = after
        if after.terminal:
            self.ended += 1
            self.done[self._world.search_of[number]] += 1
        if (before is LEASED) != (after is LEASED):
            self._count_lease(int(self._world.search_of[number]), 1 if after is LEASED else -1, now_ms)
        if event.transition == "claim":
            self._claimed(event, number, now_ms)
        elif event.transition == "readopt":
            self.counts["readopted"] += 1
            self._waiting.pop(event.task_id, None)
        elif before is LEASED:
            self._lease_ended(event, now_ms)

    def _claimed(self, event: TaskEvent, number: int, now_ms: int) -> None:
        self.claims[self._world.search_of[number]] += 1
        if event.epoch <= self.epochs[number]:
            self.violated(f"the epoch didn't rise: {event}")
        self.epochs[number] = event.epoch
        fault = self._waiting.pop(event.task_id, None)
        if fault is not None:
            self.resumed_ms[fault.cause].append(self._since(fault, now_ms))

    def _lease_ended(self, event: TaskEvent, now_ms: int) -> None:
        fault = self.threatened.pop(event.task_id, None)
        if event.transition == "expire":
            self.counts["leases taken back"] += 1
            if fault is None:
                self.counts["leases taken from healthy workers"] += 1
                self.violated(f"a healthy worker lost its lease: {event}")
        if fault is not None and event.transition != "complete":
            self.noticed_ms[fault.cause].append(self._since(fault, now_ms))
            if event.state in ("QUEUED", "SCHEDULED"):
                self._waiting[event.task_id] = fault

    def _since(self, fault: Fault, now_ms: int) -> int:
        # While no master could serve, nobody could notice.
        return now_ms - max(fault.at_ms, self.served_since_ms)

    def _count_lease(self, search: int, by: int, now_ms: int) -> None:
        self.leased_ms[search] += self.running[search] * (now_ms - self._counted_to[search])
        self._counted_to[search] = now_ms
        self.running[search] += by

    def lease_time(self, search: int, now_ms: int) -> int:
        """Slot time that a search has had so far."""
        self._count_lease(search, 0, now_ms)
        return self.leased_ms[search]

    # ---- computing ------------------------------------------------------------------------------------------------

    def threaten(self, run: Run, cause: str, now_ms: int) -> None:
        """Something befell the holder of this run's lease."""
        if self.epochs[run.number] == run.epoch and self.states[run.number] is LEASED:
            self.threatened.setdefault(run.task_id, Fault(cause, now_ms))

    def run_ended(self, run: Run, now_ms: int, cause: str) -> None:
        """It computes no more, and didn't win: what it saved counts, if a later run went on from there."""
        computed = run.progress_ms(now_ms) - run.base_ms
        credit = run.saved_ms - run.base_ms
        winner = self._winners.get(run.number)
        if winner is not None and run.epoch > winner.epoch:
            cause, credit = "overtaken by a late success", 0
        self.computed_ms += computed
        self.wasted_ms[cause] += computed - credit
        self._credits[run.number].append((run.epoch, credit))

    def succeeded(self, run: Run) -> None:
        """Its success was taken."""
        if self._accepted[run.number]:
            self.violated(f"a second success of task {run.task_id} was taken")
        self._accepted[run.number] = 1
        self.counts["successes taken"] += 1
        late = self.epochs[run.number] != run.epoch
        self.counts["late successes taken"] += late
        duration = int(self._world.duration_ms[run.number])
        self.computed_ms += duration - run.base_ms
        self.useful_ms += duration
        self._winners[run.number] = run
        kept = []
        for epoch, credit in self._credits.get(run.number, ()):
            if epoch > run.epoch:
                self.wasted_ms["overtaken by a late success"] += credit
                credit = 0
            kept.append((epoch, credit))
        if kept:
            self._credits[run.number] = kept

    def close(self) -> None:
        """Everything has ended: check that the books balance."""
        for number, kept in self._credits.items():
            total = sum(credit for _, credit in kept)
            winner = self._winners.get(number)
            if winner is None:
                self.wasted_ms["tasks that failed for good"] += total
            elif total != winner.base_ms:
                self.violated(
                    f"task {winner.task_id} went on from {winner.base_ms} ms; earlier runs had saved {total} ms"
                )
        if self.computed_ms != self.useful_ms + sum(self.wasted_ms.values()):
            self.violated(
                f"computed {self.computed_ms} ms, but {self.useful_ms} useful and {sum(self.wasted_ms.values())} wasted"
            )
