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
    """

    address: str
    running: Running | None
    recipe: Recipe
    output: Output
    was: Recipe | None = None
    ending: signal.Signals = signal.SIGTERM
    child: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, ready: Ready, output: Callable[[Running], Output]) -> LocalMaster:
        """The master of a ready file, to be started as it was.

        Raises:
            CannotRestart: It runs no more, or is supervised by somebody else.
        """
        if ready.worker_id:
            raise CannotRestart(f"{ready.path} is not a master's ready file")
        running = Running.of(ready)
        return cls(reachable(ready.grpc), running, keeping_port(running.recipe, ready), output(running))

    def describe(self, console: Console) -> None:
        """See MasterTarget."""
        if self.running is not None:
            console.say(f"pid {self.running.pid}, to be ended by {self.ending.name} and started by")
        else:
            console.say("to be started by")
        console.recipe(self.recipe, self.output)

    def started_as(self, recipe: Recipe) -> LocalMaster:
        """The same, started by another recipe."""
        return replace(self, recipe=recipe, was=self.was or self.recipe)

    def noted(self) -> Stopped | None:
        """What is noted before it is stopped; None: it doesn't run."""
        if self.running is None:
            return None
        name = f"master {self.address}"
        return Stopped.of(name, self.running, self.was or self.recipe, self.recipe, self.output, self.address)

    def carry_out(self, patience: Patience, has_come: Callable[[], bool], console: Console) -> None:
        """See MasterTarget."""
        self.output.open()
        with undisturbed():
            if self.running is not None:
                _stop(self.running, self.ending, patience.stop_seconds, console)
            child = self.child = start(self.recipe, self.output)
            self.output.close()
        console.say(f"started pid {child.pid}")
        by_hand = f"once it can, start it by hand: {command_line(self.recipe.argv)}"
        wait_until(
            lambda: child.poll() is not None or has_come(),
            patience.ready_seconds,
            CALL_POLL_SECONDS,
            console.progress(f"pid {child.pid} does not serve yet"),
        )
        if child.poll() is not None:
            raise RestartFailed(f"the new master ended with status {child.returncode}; its output says why; {by_hand}")
        if not has_come():
            raise RestartFailed(
                f"pid {child.pid} does not serve at {self.address} after {patience.ready_seconds:g} s; it was left "
                "alone; its output says what it waits for"
            )


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


def keeping_port(recipe: Recipe, ready: Ready) -> Recipe:
    """The recipe with the port that the system chose: workers and clients know that one, another they would never
    find."""
    if recipe.option("listen", "TENURE_MASTER_LISTEN").endswith(":0"):
        return recipe.with_options({"TENURE_MASTER_LISTEN": ready.grpc})
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
