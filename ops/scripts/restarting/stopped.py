"""What a run is about to stop, noted before it does: whoever comes after it can start that again, however it ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import psutil

from restarting.console import Console
from restarting.interruptions import finishing
from restarting.processes import (
    CLOCK_SLACK_SECONDS,
    CannotRestart,
    Output,
    Ready,
    Recipe,
    RestartFailed,
    Running,
    reachable,
    runs,
    start,
    wait_until,
    writer_started_unix,
)

_DIAL_SECONDS = 1.0
_ASKING_SECONDS = 5.0
# One that came up and doesn't serve may not heed a SIGTERM either.
_END_SECONDS = 5.0


@dataclass(frozen=True)
class Stopped:
    """A process of this machine, and how it is started again.

    Attributes:
        name: As a record of the run has it: ``worker ID``, ``master H:P``.
        ready: Its ready file, which its successor writes anew; None: it writes none.
        address: Where its successor serves, of a master; '' of a worker.
        pid: Of the process that is stopped; the same of ``started_unix``.
        noted_unix: Its successor was started after this.
        recipe: How it was started itself: that is known to be good.
        successor: How the run meant to start it; the same, if not by another version or command line.
        outputs: Where stdout and stderr go.
        unwanted: What runs by one of these, and doesn't serve, is ended first.
    """

    name: str
    ready: Path | None
    address: str
    pid: int
    started_unix: float
    noted_unix: float
    recipe: Recipe
    successor: Recipe
    outputs: tuple[str, str]
    unwanted: tuple[Recipe, ...] = ()

    @classmethod
    def of(
        cls, name: str, running: Running, recipe: Recipe, successor: Recipe, output: Output, address: str = ""
    ) -> Self:
        """Of a process that runs."""
        # As it was named to us, where its successor is told of the same one.
        told_alike = running.ready is not None and successor.ready_file == recipe.ready_file
        ready = running.ready if told_alike else successor.ready_file
        now = time.time()
        return cls(name, ready, address, running.pid, running.started_unix, now, recipe, successor, output.names)

    @classmethod
    def read(cls, content: dict[str, Any]) -> Self:
        """From a record; raises KeyError, TypeError or ValueError if it is none."""
        stdout, stderr = content["outputs"]
        return cls(
            str(content["name"]),
            Path(content["ready"]) if content["ready"] else None,
            str(content["address"]),
            int(content["pid"]),
            float(content["started_unix"]),
            float(content["noted_unix"]),
            Recipe.read(content["recipe"]),
            Recipe.read(content["successor"]),
            (str(stdout), str(stderr)),
        )

    def written(self) -> dict[str, Any]:
        """For a record."""
        return {
            "name": self.name,
            "ready": str(self.ready or ""),
            "address": self.address,
            "pid": self.pid,
            "started_unix": self.started_unix,
            "noted_unix": self.noted_unix,
            "recipe": self.recipe.written(),
            "successor": self.successor.written(),
            "outputs": list(self.outputs),
        }

    def only_by(self, recipe: Recipe) -> Self:
        """The same, to be started by this recipe, whatever it was started by before or meant to be."""
        unwanted = tuple(each for each in (self.recipe, self.successor) if each != recipe)
        return replace(self, recipe=recipe, successor=recipe, unwanted=unwanted)

    def meant_as(self, recipe: Recipe) -> Self:
        """The same, to be started by this recipe. What was started otherwise meanwhile is ended, unless it serves."""
        unwanted = tuple(each for each in (self.recipe, self.successor) if each != recipe)
        return replace(self, successor=recipe, unwanted=unwanted)

    @property
    def still_runs(self) -> bool:
        """Whether it has not ended: it was never told to, or has not done so yet."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return process.create_time() == self.started_unix and process.status() != psutil.STATUS_ZOMBIE
        return False

    @property
    def is_leaving(self) -> bool:
        """Whether it was told to end and hasn't yet: a SIGTERM waits for it, or it is a worker that takes no more tasks
        (which a cordoned one says, too).
        """
        if not self.still_runs:
            return False
        if _has_sigterm_pending(self.pid):
            return True
        with contextlib.suppress(CannotRestart):
            ready = Ready.read(self.ready) if self.ready is not None else None
            if ready is not None and ready.worker_id and ready.pid == self.pid:
                return takes_no_tasks(ready.http)
        return False

    @property
    def serving_pid(self) -> int | None:
        """Of the successor that serves, whoever started it and restarts it; None: none does yet."""
        if self.ready is None:
            return self.coming_pid if self.address and _listens(self.address) else None
        with contextlib.suppress(CannotRestart):
            ready = Ready.read(self.ready)
            started_unix = writer_started_unix(ready)
            if started_unix is not None:
                return ready.pid if (ready.pid, started_unix) != (self.pid, self.started_unix) else None
            # In a container it has another pid than it knows of.
            written_since = _written_unix(self.ready) > self.noted_unix
            return ready.pid if written_since and _listens(reachable(ready.grpc)) else None
        return None

    @property
    def coming_pid(self) -> int | None:
        """Of a successor that runs and need not serve yet, whoever started it."""
        return self._pid_by(self.recipe, self.successor)

    @property
    def successor_pid(self) -> int | None:
        """The same, of one that was started as the run meant to."""
        return self._pid_by(self.successor)

    @property
    def unwanted_pid(self) -> int | None:
        """Of a successor that is to be ended."""
        return self._pid_by(*self.unwanted)

    def end_unwanted(self, console: Console) -> None:
        """End every one of them; raises RestartFailed if one doesn't end."""
        while (pid := self.unwanted_pid) is not None:
            _end(self.name, pid, console)

    def _pid_by(self, *recipes: Recipe) -> int | None:
        ours = psutil.Process()
        # After -- the new command line stands at our own end, and at that of a sudo before us.
        not_it = {ours.pid, *(parent.pid for parent in ours.parents())}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    process.pid not in not_it
                    and process.create_time() >= self.noted_unix - CLOCK_SLACK_SECONDS
                    and (process.pid, process.create_time()) != (self.pid, self.started_unix)
                    and any(_runs(process, recipe) for recipe in recipes)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    return process.pid
        return None

    @property
    def is_down(self) -> bool:
        """Whether it has ended and nothing serves in its place."""
        return not self.still_runs and self.serving_pid is None

    def describe(self, console: Console, log: Path | None) -> str:
        """Say whether it is back, and if not, how it is started by hand. Returns that in a few words, '' if it is."""
        if self.still_runs:
            console.say(f"not restarted: {self.name}: pid {self.pid} has not ended")
            return f"{self.name} was not restarted"
        if self.serving_pid is not None:
            return ""
        if (pid := self.coming_pid) is not None:
            sign = f"has not written {self.ready}" if self.ready is not None else f"does not serve at {self.address}"
            console.say(f"not back yet: {self.name}: pid {pid} was started, and {sign} yet")
            return f"{self.name} is not back yet"
        console.say(f"NOT BACK: {self.name} is down; once it can, start it by hand:")
        console.recipe(self.recipe, Output.at(self.outputs, log))
        return f"{self.name} is not back"


def _written_unix(path: Path) -> float:
    """When the file was written; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def takes_no_tasks(address: str) -> bool:
    """Whether the worker whose ``/readyz`` is at this address says so; one that says nothing may take some."""
    with contextlib.suppress(OSError, ValueError, KeyError, http.client.HTTPException):
        host, _, port = reachable(address).rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_ASKING_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/readyz")
            return json.loads(connection.getresponse().read())["open"] is False
    return False


def _has_sigterm_pending(pid: int) -> bool:
    """Whether one waits for it; as far as /proc says."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, mask = line.partition(":")
            if name in ("SigPnd", "ShdPnd") and int(mask, 16) >> (signal.SIGTERM - 1) & 1:
                return True
    return False


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with (
        contextlib.suppress(OSError, ValueError),
        socket.create_connection((host.strip("[]"), int(port)), _DIAL_SECONDS),
    ):
        return True
    return False


def _runs(process: psutil.Process, recipe: Recipe) -> bool:
    """Whether it was started so. What a script is started by stands before it then, and where it was found on PATH."""
    words = process.cmdline()[-len(recipe.argv) :]
    if len(words) < len(recipe.argv) or tuple(words[1:]) != recipe.argv[1:]:
        return False
    return (
        Path(words[0]).name == Path(recipe.argv[0]).name
        and Recipe((), process.environ(), Path()).settings == recipe.settings
    )


def start_again(
    stopped: Iterable[Stopped],
    ready_seconds: float,
    log: Path | None,
    console: Console,
    is_back: Callable[[str], None] = lambda name: None,
) -> list[str]:
    """Start what a run that was broken off left down, and wait until it serves. All are started before any is waited
    for, and one that can't be keeps none of the others down.

    Args:
        stopped: What was left down.
        ready_seconds: For all of them to serve in.
        log: The file that they write to instead.
        console: Told of it.
        is_back: Called with the name of each that serves, whoever has started it.

    Returns:
        The names of those that were started.

    Raises:
        RestartFailed: Some can't be started, ended again, or don't serve in time.
    """
    stopped = list(stopped)
    _await_ends([each for each in stopped if each.is_leaving], ready_seconds, console)
    down = []
    for each in stopped:
        if each.still_runs:
            continue
        if each.serving_pid is not None:
            is_back(each.name)
        else:
            down.append(each)
    if not down:
        return []
    console.changing = True
    started: list[str] = []
    failures: list[str] = []
    with finishing(", ".join(each.name for each in down)):
        coming = []
        for each in down:
            try:
                coming.append(_Coming(each, log, console))
            except RestartFailed as failure:
                failures.append(f"{each.name}: {failure}")
        deadline = time.monotonic() + ready_seconds
        for one in coming:
            if wrong := one.await_service(max(0.0, deadline - time.monotonic()), ready_seconds):
                failures.append(wrong)
            else:
                is_back(one.stopped.name)
                started.append(one.stopped.name)
    if failures:
        raise RestartFailed(f"{'; '.join(failures)}; nothing else was changed")
    return started


def _await_ends(leaving: Sequence[Stopped], seconds: float, console: Console) -> None:
    """Of what a run that was broken off has told to end: what is restarted beside it would be one more that is down."""
    for each in leaving:
        console.say(f"{each.name}, pid {each.pid}, still ends for a run that was broken off: it is waited for")
    names = ", ".join(each.name for each in leaving)
    waiting = console.progress(f"{names}: not ended yet")
    if leaving and not wait_until(lambda: not any(each.still_runs for each in leaving), seconds, waiting=waiting):
        console.say(f"{names}: not ended after {seconds:g} s, and left to a later run, which starts what is down then")


class _Coming:
    """What was left down, on its way: started now, or by the run that was broken off.

    Raises:
        RestartFailed: It can't be started.
    """

    def __init__(self, stopped: Stopped, log: Path | None, console: Console) -> None:
        self.stopped = stopped
        self._console = console
        self._child: subprocess.Popen[bytes] | None = None
        stopped.end_unwanted(console)
        pid = stopped.coming_pid
        if pid is None:
            console.say(f"{stopped.name} was left down by a run that was broken off: it is started first")
            output = Output.at(stopped.outputs, log)
            output.open()
            try:
                self._child = start(stopped.recipe, output)
            finally:
                output.close()
            pid = self._child.pid
        else:
            console.say(f"{stopped.name} was started by a run that was broken off, as pid {pid}: it is waited for")
        self._pid = pid

    def await_service(self, seconds: float, ready_seconds: float) -> str:
        """Wait until it serves; returns what went wrong, '' if nothing did."""
        name, pid = self.stopped.name, self._pid
        waiting = self._console.progress(f"{name}, pid {pid}, does not serve yet")
        wait_until(lambda: self._has_ended() or self.stopped.serving_pid is not None, seconds, waiting=waiting)
        if self.stopped.serving_pid is not None:
            self._console.say(f"{name} is back, pid {pid}")
            return ""
        what = "ended after its start" if self._has_ended() else f"does not serve after {ready_seconds:g} s"
        return f"{name}, pid {pid}, {what}; its output says why"

    def _has_ended(self) -> bool:
        return self._child.poll() is not None if self._child is not None else not runs(self._pid)


def _end(name: str, pid: int, console: Console) -> None:
    console.say(f"{name} was started by a run that was broken off, as pid {pid}, which does not serve: it is ended")
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if wait_until(lambda: not runs(pid), _END_SECONDS):
            return
    raise RestartFailed(f"{name}, pid {pid}, does not end, not even by SIGKILL")
