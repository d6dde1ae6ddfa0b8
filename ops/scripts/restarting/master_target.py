"""A master that is to be restarted: a process on this machine, or one that somebody else restarts by a command."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
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
    reachable,
    run_command,
    runs,
    start,
    wait_until,
)
from restarting.stopped import Stopped
from tenure.client import Client
from tenure.common.errors import TenureError


@dataclass(frozen=True)
class Patience:
    """How long a process may take.

    Attributes:
        stop_seconds: To end.
        ready_seconds: To serve again.
    """

    stop_seconds: float
    ready_seconds: float


class MasterTarget(Protocol):
    """A master to be restarted.

    Attributes:
        address: Where it serves.
    """

    @property
    def address(self) -> str: ...

    def describe(self, console: Console) -> None:
        """Say what is about to be done."""

    def carry_out(self, patience: Patience, has_come: Callable[[], bool], console: Console) -> None:
        """End it, start it, wait until ``has_come``.

        Raises:
            RestartFailed: It didn't end, or did not come back.
        """


@dataclass
class LocalMaster:
    """A process on this machine.

    Attributes:
        running: None: it doesn't run.
        recipe: How it is started.
        output: Where it writes to.
        was: How it was started itself; None: by ``recipe``.
        ending: What ends it.
        child: What was started in its place.
        left: What an earlier run left down, and this one starts by ``recipe``.
    """

    address: str
    running: Running | None
    recipe: Recipe
    output: Output
    was: Recipe | None = None
    ending: signal.Signals = signal.SIGTERM
    child: subprocess.Popen[bytes] | None = None
    left: Stopped | None = None

    @classmethod
    def of(cls, ready: Ready, output: Callable[[Running], Output]) -> LocalMaster:
        """The master of a ready file, to be started as it was.

        Raises:
            CannotRestart: It runs no more, or is supervised by somebody else.
        """
        if ready.worker_id:
            raise CannotRestart(f"{ready.path} is not a master's ready file")
        running = Running.of(ready)
        return cls(reachable(ready.grpc), running, keeping_port(running.recipe, ready.grpc), output(running))

    def describe(self, console: Console) -> None:
        """See MasterTarget."""
        if self.running is not None:
            console.say(f"pid {self.running.pid}, to be ended by {self.ending.name} and started by")
        elif (pid := self.coming_pid) is not None:
            console.say(f"pid {pid} was started by an earlier run, and is waited for; it was started by")
        else:
            if self.left is not None and (pid := self.left.unwanted_pid) is not None:
                console.say(f"pid {pid} was started by an earlier run and does not serve: it is to be ended")
            console.say("to be started by")
        console.recipe(self.recipe, self.output)

    def started_as(self, recipe: Recipe) -> LocalMaster:
        """The same, started by another recipe."""
        return replace(self, recipe=recipe, was=self.was or self.recipe)

    @property
    def coming_pid(self) -> int | None:
        """Of what an earlier run started by the same recipe: another beside it would fight it for port and store."""
        return self.left.successor_pid if self.left is not None else None

    def noted(self) -> Stopped | None:
        """What is noted before it is stopped, or started instead of what is down; None: nothing is known of it."""
        if self.running is None:
            return self.left
        name = f"master {self.address}"
        return Stopped.of(name, self.running, self.was or self.recipe, self.recipe, self.output, self.address)

    def carry_out(self, patience: Patience, has_come: Callable[[], bool], console: Console) -> None:
        """See MasterTarget."""
        pid = self.coming_pid
        if pid is None:
            pid = self._start(patience, console)
        else:
            console.say(f"pid {pid} was started by an earlier run: it is waited for")
        wait_until(
            lambda: self._has_ended(pid) or has_come(),
            patience.ready_seconds,
            CALL_POLL_SECONDS,
            console.progress(f"pid {pid} does not serve yet"),
        )
        if self._has_ended(pid):
            status = f" with status {self.child.returncode}" if self.child is not None else ""
            raise RestartFailed(
                f"the new master ended{status}; its output says why; once it can, start it by hand in its environment: "
                f"{command_line(self.recipe.argv)}"
            )
        if not has_come():
            raise RestartFailed(
                f"pid {pid} does not serve at {self.address} after {patience.ready_seconds:g} s; it was left "
                "alone; its output says what it waits for"
            )

    def _start(self, patience: Patience, console: Console) -> int:
        self.output.open()
        with undisturbed():
            if self.running is not None:
                _stop(self.running, self.ending, patience.stop_seconds, console)
            self.child = start(self.recipe, self.output)
            self.output.close()
        console.say(f"started pid {self.child.pid}")
        return self.child.pid

    def _has_ended(self, pid: int) -> bool:
        return self.child.poll() is not None if self.child is not None else not runs(pid)


@dataclass(frozen=True)
class ForeignMaster:
    """One that somebody else restarts for us."""

    address: str
    command: Sequence[str]

    def describe(self, console: Console) -> None:
        """See MasterTarget."""
        console.say("to be restarted by")
        console.say(f"  {command_line(self.command)}")

    def carry_out(self, patience: Patience, has_come: Callable[[], bool], console: Console) -> None:
        """See MasterTarget."""
        run_command(self.command)
        waiting = console.progress(f"no new master answers at {self.address} yet")
        if not wait_until(has_come, patience.ready_seconds, CALL_POLL_SECONDS, waiting):
            raise RestartFailed(f"no new master answers at {self.address} after {patience.ready_seconds:g} s")


def keeping_port(recipe: Recipe, address: str) -> Recipe:
    """The recipe with the port that the system chose, of the address where it served: workers and clients know that
    one, another they would never find."""
    listen = recipe.option("listen", "TENURE_MASTER_LISTEN")
    if listen.endswith(":0"):
        return recipe.with_options({"TENURE_MASTER_LISTEN": listen[:-1] + address.rpartition(":")[2]})
    return recipe


def master_id(glance: Client) -> str:
    """Of the master that answers now; '' if none does. It is new with each start of a master."""
    try:
        return glance.stats().master_id
    except TenureError:
        return ""


def _stop(running: Running, number: signal.Signals, timeout_seconds: float, console: Console) -> None:
    began = time.monotonic()
    running.signal(number)
    if not running.wait(timeout_seconds, console.progress(f"pid {running.pid} has not ended yet")):
        raise RestartFailed(
            f"process {running.pid} still runs {timeout_seconds:g} s after {number.name}, and was left alone; "
            "give --stop-timeout, or --kill"
        )
    console.say(f"ended after {time.monotonic() - began:.1f} s")
