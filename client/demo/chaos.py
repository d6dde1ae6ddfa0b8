"""Kills a worker in the middle of a training, and the master in the middle of the run, each when it hurts.

Driven by the demo's loop from the main thread (processes are started there): :meth:`Chaos.step` looks at the
broker and does the next thing once its time has come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tenure.client.broker_records import SearchStatus
from tenure.client.demo.processes import Fleet, Process
from tenure.client.records import TaskRecord
from tenure.client.search import Search
from tenure.common.states import TaskState

# Training epochs that must be left for a task to be a victim: it must not end before the signal arrives.
_STEPS_LEFT_MIN = 3
_WORKER_KILLS_MAX = 3


@dataclass(frozen=True)
class Victim:
    """A task whose worker was killed, as the broker knew it at that moment."""

    task_id: str
    worker: str
    epoch: int
    checkpoint_step: int


@dataclass
class Damage:
    """What was done, for the accounting."""

    victims: list[Victim] = field(default_factory=list)
    master_kills: int = 0
    # (task, epoch) of the evaluations that had reported progress when the master was killed.
    running_at_master_kill: list[tuple[str, int]] = field(default_factory=list)


class Chaos:
    """A worker first, once a fifth of the trials has ended; the master once half have and the victim runs again.

    Args:
        fleet: Whose processes are killed and replaced.
        search: The search that must survive it.
        trials: Its number of trials.
        say: Tells what happens.
    """

    def __init__(self, fleet: Fleet, search: Search, trials: int, say: Callable[[str], None]) -> None:
        self.damage = Damage()
        self._fleet = fleet
        self._search = search
        self._trials = trials
        self._say = say
        self._status: SearchStatus
        self._plan: Iterator[str] | None = self._plot()

    @property
    def done(self) -> bool:
        """Whether all was done."""
        return self._plan is None

    def step(self, status: SearchStatus) -> None:
        """Go on as far as the search's status allows."""
        if self._plan is None:
            return
        self._status = status
        if next(self._plan, None) is None:
            self._plan = None

    def _plot(self) -> Iterator[str]:
        """Yields whenever there is nothing to do yet."""

        def ended() -> int:
            return self._status.total - self._status.open

        while ended() < self._trials // 5:
            yield "too early for the worker"
        for _ in range(_WORKER_KILLS_MAX):
            while (victim := self._find_victim()) is None:
                yield "no task with a checkpoint"
            self._kill_worker(victim)
            while (record := self._search.record(victim.task_id)).epoch == victim.epoch and not record.state.terminal:
                yield "the victim waits for a worker"
            if record.epoch > victim.epoch:
                self._say(f"{victim.worker}'s task is running again on {record.worker_id}, from its checkpoint")
                self.damage.victims.append(victim)
                break
            self._say(f"{victim.worker} had just delivered: one more")
        while ended() < self._trials // 2 or not (running := self._running()):
            yield "too early for the master"
        self._kill_master(running)

    def _find_victim(self) -> Victim | None:
        alive = {worker.name for worker in self._fleet.workers if worker.alive}
        for task in self._search.tasks([TaskState.LEASED]):
            if task.worker_id in alive and _in_the_middle(task):
                assert task.checkpoint is not None
                return Victim(task.task_id, task.worker_id, task.epoch, task.checkpoint.step)
        return None

    def _kill_worker(self, victim: Victim) -> None:
        worker = next(worker for worker in self._fleet.workers if worker.name == victim.worker)
        worker.kill()
        self._say(
            f"SIGKILL to {worker.name} and its executor, in the middle of a training"
            f" (checkpoint of training epoch {victim.checkpoint_step} registered)"
        )
        replacement = self._fleet.start_worker()
        self._say(f"{replacement.name} takes its place")

    def _running(self) -> list[tuple[str, int]]:
        """Evaluations that are under way for sure: a lease may also be on its way to its worker."""
        return [
            (task.task_id, task.epoch) for task in self._search.tasks([TaskState.LEASED]) if task.progress is not None
        ]

    def _kill_master(self, running: list[tuple[str, int]]) -> None:
        self.damage.running_at_master_kill = running
        self._fleet.master.kill()
        self.damage.master_kills += 1
        self._say("SIGKILL to the master and its store; the workers train on")
        started = time.monotonic()
        master: Process = self._fleet.start_master()
        master.wait_ready()
        self._say(f"the master is back on the same data directory, {time.monotonic() - started:.1f} s later")


def _in_the_middle(task: TaskRecord) -> bool:
    """Whether the task has a checkpoint of this run, and enough is left to do."""
    if task.checkpoint is None or task.progress is None or task.checkpoint.epoch != task.epoch:
        return False
    return task.progress.total_steps - max(task.progress.step, task.checkpoint.step) >= _STEPS_LEFT_MIN
