"""A worker that is to be restarted: a process on this machine, or one that somebody else restarts by a command; and
how several are restarted together.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from restarting.console import Console, command_line
from restarting.interruptions import undisturbed
from restarting.processes import (
    CALL_POLL_SECONDS,
    CannotRestart,
    Output,
    Ready,
    Recipe,
    RestartFailed,
    Running,
    run_command,
    start,
    wait_until,
)
from restarting.snapshot import leased_now
from restarting.stopped import Stopped, takes_no_tasks
from tenure.client import Client, WorkerRecord

_DRAIN_GRACE_SECONDS = 60.0
_DRAIN_MARGIN_SECONDS = 30.0
# Those that no run is given to: a slot that starts is on its way.
_USELESS_SLOTS = ("starting", "broken", "cordoned")


class WorkerTarget(Protocol):
    """A worker to be restarted."""

    @property
    def worker_id(self) -> str: ...

    def describe(self, console: Console) -> None:
        """Say what is about to be done."""

    def stop(self, *, cordoned: bool) -> None:
        """Have it drain and end; returns at once, or (somebody else restarts it) when it is up again.

        Args:
            cordoned: Whether masters keep tasks from it.
        """

    def restart(self, console: Console) -> str:
        """Once it has ended, start it. Returns what is wrong, '' if nothing is.

        Raises:
            RestartFailed: It didn't end, or can't be started.
        """

    def check(self) -> None:
        """Raises RestartFailed if it has ended again."""


@dataclass
class LocalWorker:
    """A process on this machine.

    Attributes:
        recipe: How it is started.
        output: Where it writes to.
        drain_seconds: For it to end in.
        http: Where its ``/readyz`` is; '' if that isn't known.
        was: How it was started itself; None: by ``recipe``.
        child: What was started in its place.
    """

    worker_id: str
    running: Running
    recipe: Recipe
    output: Output
    drain_seconds: float
    http: str = ""
    was: Recipe | None = None
    child: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, ready: Ready, output: Callable[[Running], Output], drain_seconds: float | None) -> LocalWorker:
        """The worker of a ready file.

        Args:
            ready: The file.
            output: Where its successor writes to.
            drain_seconds: For it to end in; None: its own drain grace and a margin.

        Raises:
            CannotRestart: It runs no more, or is supervised by somebody else.
        """
        if not ready.worker_id:
            raise CannotRestart(f"{ready.path} is not a worker's ready file")
        running = Running.of(ready)
        recipe = running.recipe
        if not recipe.option("worker-id", "TENURE_WORKER_WORKER_ID"):
            # It would take any identity that is free, and leave what this one has spooled to somebody else.
            recipe = recipe.with_options({"TENURE_WORKER_WORKER_ID": ready.worker_id})
        if drain_seconds is None:
            grace = recipe.option("drain-grace-seconds", "TENURE_WORKER_DRAIN_GRACE_SECONDS")
            drain_seconds = float(grace or _DRAIN_GRACE_SECONDS) + _DRAIN_MARGIN_SECONDS
        return cls(ready.worker_id, running, recipe, output(running), drain_seconds, ready.http)

    def describe(self, console: Console) -> None:
        """See WorkerTarget."""
        console.say(f"worker {self.worker_id}, pid {self.running.pid}, to be drained by SIGTERM and started by")
        console.recipe(self.recipe, self.output)

    def started_as(self, recipe: Recipe) -> LocalWorker:
        """The same, started by another recipe."""
        return replace(self, recipe=recipe, was=self.was or self.recipe)

    def noted(self) -> Stopped:
        """What is noted before it is stopped."""
        return Stopped.of(f"worker {self.worker_id}", self.running, self.was or self.recipe, self.recipe, self.output)

    def stop(self, *, cordoned: bool) -> None:
        """See WorkerTarget."""
        self.output.open()
        # To one that drains already, for a run that was broken off, another SIGTERM would mean: kill what runs.
        if cordoned or not takes_no_tasks(self.http):
            self.running.signal(signal.SIGTERM)

    def restart(self, console: Console) -> str:
        """See WorkerTarget."""
        if not self.running.wait(self.drain_seconds, console.progress(f"worker {self.worker_id} still drains")):
            raise RestartFailed(
                f"worker {self.worker_id}, pid {self.running.pid}, still drains after {self.drain_seconds:g} s "
                f"and was left alone; when it has ended, start it by hand: {command_line(self.recipe.argv)}"
            )
        self.child = start(self.recipe, self.output)
        self.output.close()
        status = self.running.exit_status
        return f"worker {self.worker_id} ended its drain with status {status}" if status else ""

    def check(self) -> None:
        """See WorkerTarget."""
        if self.child is not None and self.child.poll() is not None:
            raise RestartFailed(
                f"worker {self.worker_id} ended with status {self.child.returncode} after its start; its output says "
                f"why; once it can, start it by hand: {command_line(self.recipe.argv)}"
            )


@dataclass
class ForeignWorker:
    """One that somebody else restarts for us."""

    worker_id: str
    command: Sequence[str]

    def describe(self, console: Console) -> None:
        """See WorkerTarget."""
        console.say(f"worker {self.worker_id}, to be restarted by")
        console.say(f"  {command_line(self.command)}")

    def stop(self, *, cordoned: bool) -> None:
        """See WorkerTarget."""
        run_command(self.command)

    def restart(self, console: Console) -> str:
        """See WorkerTarget."""
        return ""

    def check(self) -> None:
        """What became of it only its supervisor knows."""


def restart_together(
    client: Client,
    targets: Sequence[WorkerTarget],
    ready_seconds: float,
    wrong: list[str],
    console: Console,
    *,
    under_new_ids: bool = False,
) -> set[tuple[str, int]]:
    """Drain these workers, start them again, and wait until each is live with as many slots as it had.

    Args:
        client: Any master.
        targets: The workers.
        ready_seconds: For them to be back in.
        wrong: What isn't as it should be is added, a sentence each.
        console: Told of the steps.
        under_new_ids: A worker may also come back as another one.

    Returns:
        The leases that they held: task id and epoch.

    Raises:
        RestartFailed: One did not end, or did not come back. The others were started.
    """
    names = ", ".join(target.worker_id for target in targets)
    began = time.monotonic()
    ids = {target.worker_id for target in targets}
    before = {worker.worker_id: worker for worker in client.workers(include_gone=True)}
    drained = _leases_of(client, ids)
    failures: list[RestartFailed] = []
    with undisturbed():
        for target in targets:
            known = before.get(target.worker_id)
            target.stop(cordoned=known is not None and known.mode != "active")
        # What they were given in the moment before they knew. Those that somebody else restarts are up again by now.
        drained |= _leases_of(client, {target.worker_id for target in targets if isinstance(target, LocalWorker)})
        for target in targets:
            # One that hangs must not keep the others down.
            try:
                wrong += filter(None, [target.restart(console)])
            except RestartFailed as failure:
                failures.append(failure)
    if failures:
        raise failures[0]
    console.say(f"{names}: drained {len(drained)} tasks and started again after {time.monotonic() - began:.1f} s")

    def are_back() -> bool:
        for target in targets:
            target.check()
        now = {worker.worker_id: worker for worker in client.workers() if worker.status == "live"}
        newcomers = [worker for name, worker in now.items() if name not in before] if under_new_ids else []
        return not missing_workers(ids, before, now, newcomers)

    waiting = console.progress(f"{names}: not back yet")
    if not wait_until(are_back, ready_seconds, CALL_POLL_SECONDS, waiting):
        raise RestartFailed(f"{names}: not live again with all slots after {ready_seconds:g} s; their output says why")
    console.say(f"{names}: live again after {time.monotonic() - began:.1f} s")
    return drained


def missing_workers(
    ids: Collection[str],
    before: Mapping[str, WorkerRecord],
    now: Mapping[str, WorkerRecord],
    newcomers: Sequence[WorkerRecord] = (),
) -> list[str]:
    """Which of these workers are not back: a new instance with as many working slots as it had.

    Args:
        ids: Of the workers.
        before: How they were.
        now: Those that are live.
        newcomers: Live ones with ids that weren't known; each stands in for one that is missing.
    """
    left = list(newcomers)
    missing = []
    for worker_id in sorted(ids):
        old, new = before.get(worker_id), now.get(worker_id)
        slots = _useful_slots(old) if old is not None else 1
        if new is not None and (old is None or new.instance_id != old.instance_id) and _useful_slots(new) >= slots:
            continue
        stand_in = next((worker for worker in left if _useful_slots(worker) >= slots), None)
        if stand_in is None:
            missing.append(worker_id)
        else:
            left.remove(stand_in)
    return missing


def _useful_slots(worker: WorkerRecord) -> int:
    """How many of its slots a run can be given to, or have one: one that was broken before need not be mended."""
    return worker.slots - sum(slot.state in _USELESS_SLOTS for slot in worker.slot_list)


def _leases_of(client: Client, ids: Collection[str]) -> set[tuple[str, int]]:
    return {(task_id, task.epoch) for task_id, task in leased_now(client).items() if task.worker_id in ids}
