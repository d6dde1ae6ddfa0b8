"""What a run is about to stop, noted before it does: whoever comes after it can start that again, however it ended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from restarting.console import Console
from restarting.processes import (
    CLOCK_SLACK_SECONDS,
    CannotRestart,
    Output,
    Ready,
    Recipe,
    RestartFailed,
    Running,
    finishing,
    start,
    wait_until,
)


@dataclass(frozen=True)
class Stopped:
    """A process of this machine, and how it is started again.

    Attributes:
        name: As a record of the run has it: ``worker ID``, ``master H:P``.
        ready: Its ready file, which its successor writes anew.
        pid: Of the process that is stopped; the same of ``started_unix``.
        noted_unix: Its successor was started after this.
        outputs: Where stdout and stderr go.
    """

    name: str
    ready: Path
    pid: int
    started_unix: float
    noted_unix: float
    recipe: Recipe
    outputs: tuple[str, str]

    @classmethod
    def of(cls, name: str, running: Running, recipe: Recipe, output: Output) -> Self:
        """Of a process that runs, and was found by its ready file."""
        assert running.ready is not None
        return cls(name, running.ready, running.pid, running.started_unix, time.time(), recipe, output.names)

    @classmethod
    def read(cls, content: dict[str, Any]) -> Self:
        """From a record; raises KeyError, TypeError or ValueError if it is none."""
        argv = tuple(map(str, content["argv"]))
        environ = {str(name): str(value) for name, value in dict(content["environ"]).items()}
        stdout, stderr = content["outputs"]
        return cls(
            str(content["name"]),
            Path(content["ready"]),
            int(content["pid"]),
            float(content["started_unix"]),
            float(content["noted_unix"]),
            Recipe(argv, environ, Path(content["directory"])),
            (str(stdout), str(stderr)),
        )

    def written(self) -> dict[str, Any]:
        """For a record."""
        return {
            "name": self.name,
            "ready": str(self.ready),
            "pid": self.pid,
            "started_unix": self.started_unix,
            "noted_unix": self.noted_unix,
            "argv": list(self.recipe.argv),
            "environ": dict(self.recipe.environ),
            "directory": str(self.recipe.directory),
            "outputs": list(self.outputs),
        }

    @property
    def still_runs(self) -> bool:
        """Whether it has not ended: it was never told to, or has not done so yet."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return process.create_time() == self.started_unix and process.status() != psutil.STATUS_ZOMBIE
        return False

    @property
    def ready_pid(self) -> int | None:
        """Of the successor that serves; None: none does yet."""
        with contextlib.suppress(CannotRestart):
            running = Running.of(Ready.read(self.ready))
            if (running.pid, running.started_unix) != (self.pid, self.started_unix):
                return running.pid
        return None

    @property
    def coming_pid(self) -> int | None:
        """Of a successor that runs and need not serve yet, whoever started it."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    process.create_time() >= self.noted_unix - CLOCK_SLACK_SECONDS
                    and (process.pid, process.create_time()) != (self.pid, self.started_unix)
                    and tuple(process.cmdline()) == self.recipe.argv
                    and Recipe((), process.environ(), Path()).settings == self.recipe.settings
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    return process.pid
        return None

    def describe(self, console: Console, log: Path | None) -> str:
        """Say whether it is back, and if not, how it is started by hand. Returns that in a few words, '' if it is."""
        if self.still_runs:
            console.say(f"not restarted: {self.name}: pid {self.pid} has not ended")
            return f"{self.name} was not restarted"
        if self.ready_pid is not None:
            return ""
        if (pid := self.coming_pid) is not None:
            console.say(f"not back yet: {self.name}: pid {pid} was started, and has not written {self.ready} yet")
            return f"{self.name} is not back yet"
        console.say(f"NOT BACK: {self.name} is down; once it can, start it by hand:")
        console.recipe(self.recipe, Output.at(self.outputs, log))
        return f"{self.name} is not back"


def start_again(
    stopped: Iterable[Stopped], ready_seconds: float, log: Path | None, console: Console
) -> tuple[list[str], list[str]]:
    """Start what a run that was broken off left down, and wait until it serves.

    Returns:
        The names of those, and of what somebody has started meanwhile.

    Raises:
        RestartFailed: One can't be started, ended again, or doesn't serve in time.
    """
    started, back = [], []
    for each in stopped:
        if each.still_runs:
            continue
        if each.ready_pid is not None:
            back.append(each.name)
            continue
        console.changing = True
        with finishing(each.name):
            _start_one(each, ready_seconds, log, console)
        started.append(each.name)
    return started, back


def _start_one(stopped: Stopped, ready_seconds: float, log: Path | None, console: Console) -> None:
    pid, child = stopped.coming_pid, None
    if pid is None:
        console.say(f"{stopped.name} was left down by a run that was broken off: it is started first")
        output = Output.at(stopped.outputs, log)
        output.open()
        child = start(stopped.recipe, output)
        output.close()
        pid = child.pid
    else:
        console.say(f"{stopped.name} was started by a run that was broken off, as pid {pid}: it is waited for")

    def ended() -> bool:
        return child.poll() is not None if child is not None else not psutil.pid_exists(pid)

    waiting = console.progress(f"{stopped.name}, pid {pid}, does not serve yet")
    wait_until(lambda: ended() or stopped.ready_pid is not None, ready_seconds, waiting=waiting)
    if stopped.ready_pid is None:
        what = "ended after its start" if ended() else f"does not serve after {ready_seconds:g} s"
        stopped.describe(console, log)
        raise RestartFailed(f"{stopped.name}, pid {pid}, {what}; its output says why; nothing else was changed")
    console.say(f"{stopped.name} is back, pid {pid}")
