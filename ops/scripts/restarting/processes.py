"""Ends a running process and starts it again as it was: command line, environment, directory, output."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

_POLL_SECONDS = 0.05
# Where a look is a call to a master.
CALL_POLL_SECONDS = 0.25
# The clocks behind a file's time and a process's start agree to about this.
CLOCK_SLACK_SECONDS = 2.0
_UNIT = re.compile(r"/(tenure[^/]*\.service)$")


class CannotRestart(Exception):
    """Nothing was changed yet; the text says why not, and what would do."""


class AnotherRun(CannotRestart):
    """Somebody restarts or upgrades things from this machine at this moment."""


class RestartFailed(Exception):
    """A process did not end, or did not come back; the text says which and what is left to do."""


@dataclass(frozen=True)
class Ready:
    """A ready file: who serves where.

    Attributes:
        worker_id: Empty for a master.
        grpc: Where it listens, ``H:P``.
        http: The same of its ``/readyz``; '' if it doesn't say.
    """

    path: Path
    pid: int
    worker_id: str
    grpc: str
    http: str = ""

    @classmethod
    def read(cls, path: Path) -> Ready:
        """Read the file.

        Raises:
            CannotRestart: It isn't there, or is no ready file.
        """
        try:
            facts = json.loads(path.read_text())
            pid, grpc = int(facts["pid"]), str(facts["grpc"])
            return cls(path.absolute(), pid, str(facts.get("worker_id", "")), grpc, str(facts.get("http", "")))
        except FileNotFoundError:
            raise CannotRestart(f"{path} is not there: nothing runs, or it was started without --ready-file") from None
        except OSError as error:
            raise CannotRestart(f"{path} can't be read: {error.strerror}") from None
        except KeyError as error:
            raise CannotRestart(f"{path} is no ready file: it has no {error}") from None
        except (ValueError, TypeError):
            raise CannotRestart(f"{path} is no ready file: that is JSON with pid and grpc, by --ready-file") from None


@dataclass(frozen=True)
class Recipe:
    """Everything that starting a process takes."""

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    directory: Path

    @classmethod
    def of_this_process(cls) -> Recipe:
        """For a process that has no predecessor: what it would inherit from this one; ``argv`` is empty."""
        return cls((), dict(os.environ), Path.cwd())

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Recipe:
        """From a record; raises KeyError, TypeError or ValueError if it is none."""
        environ = {str(name): str(value) for name, value in dict(content["environ"]).items()}
        return cls(tuple(map(str, content["argv"])), environ, Path(content["directory"]))

    def written(self) -> dict[str, Any]:
        """For a record."""
        return {"argv": list(self.argv), "environ": dict(self.environ), "directory": str(self.directory)}

    @property
    def settings(self) -> dict[str, str]:
        """The part of the environment that Tenure reads."""
        return {name: value for name, value in sorted(self.environ.items()) if name.startswith("TENURE_")}

    def option(self, name: str, variable: str) -> str:
        """What the command line says of ``--name``, else the environment of ``variable``; '' if neither does."""
        given = self.environ.get(variable, "")
        for index, part in enumerate(self.argv):
            if part == f"--{name}" and index + 1 < len(self.argv):
                given = self.argv[index + 1]
            elif part.startswith(f"--{name}="):
                given = part.partition("=")[2]
        return given

    @property
    def ready_file(self) -> Path | None:
        """Where it was told to say who it is; None: by none of its words and variables."""
        variables = ("TENURE_MASTER_READY_FILE", "TENURE_WORKER_READY_FILE")
        given = next(filter(None, (self.option("ready-file", variable) for variable in variables)), "")
        return self.directory / given if given else None

    def with_options(self, variables: Mapping[str, str]) -> Recipe:
        """The same, with Tenure settings added: on the command line if it is the ``tenure`` command, in the
        environment in any case.
        """
        argv = list(self.argv)
        if any(part in ("master", "worker") for part in self.argv):
            for variable, value in variables.items():
                option = variable.removeprefix("TENURE_MASTER_").removeprefix("TENURE_WORKER_")
                argv += [f"--{option.lower().replace('_', '-')}", value]
        return replace(self, argv=tuple(argv), environ={**self.environ, **variables})


class Running:
    """A process that runs.

    Attributes:
        recipe: How it was started.
        ready: The file that named it, if one did.
        exit_status: Set once it has ended, if the system still tells: None otherwise.
    """

    def __init__(self, pid: int) -> None:
        try:
            self._process = psutil.Process(pid)
            with self._process.oneshot():
                self.recipe = Recipe(tuple(self._process.cmdline()), self._process.environ(), Path(self._process.cwd()))
                self.started_unix = self._process.create_time()
        except psutil.NoSuchProcess:
            raise CannotRestart(f"no process {pid} runs") from None
        except psutil.AccessDenied:
            raise CannotRestart(f"process {pid} belongs to somebody else: run this as its user") from None
        if not any("tenure" in part for part in self.recipe.argv):
            raise CannotRestart(f"process {pid} is not Tenure's: {' '.join(self.recipe.argv)[:200]}")
        self.pid = pid
        self.ready: Path | None = None
        self.exit_status: int | None = None
        _refuse_supervised(pid)

    @classmethod
    def of(cls, ready: Ready) -> Running:
        """The process that wrote the ready file.

        Raises:
            CannotRestart: It runs no more, or can't be restarted from here.
        """
        try:
            running = cls(ready.pid)
        except CannotRestart as error:
            raise CannotRestart(f"{ready.path} is left over: {error}") from None
        if ready.path.stat().st_mtime < running.started_unix - CLOCK_SLACK_SECONDS:
            raise CannotRestart(f"{ready.path} is left over: process {ready.pid} was started after it was written")
        running.ready = ready.path
        return running

    @property
    def ended(self) -> bool:
        """Whether it has; a zombie that nobody has reaped yet has, too."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE:
                return False
            self._read_exit_status()
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.send_signal(number)

    def wait(self, seconds: float, waiting: Callable[[], None] = lambda: None) -> bool:
        """Whether it ended in time; ``waiting`` is called again and again meanwhile."""
        return wait_until(lambda: self.ended, seconds, waiting=waiting)

    def _read_exit_status(self) -> None:
        """Of a zombie; only its parent and this file in /proc know it."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            status = int(stat.rpartition(")")[2].split()[49])
            self.exit_status = os.waitstatus_to_exitcode(status)


def runs(pid: int) -> bool:
    """Whether there is such a process; a zombie that nobody has reaped yet is none."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def writer_started_unix(ready: Ready) -> float | None:
    """When the process that wrote the ready file was started; None: it runs no more, or can't be seen from here. Whose
    it is, and who else restarts it, does not matter."""
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(ready.pid)
        started_unix = process.create_time()
        if (
            runs(ready.pid)
            and any("tenure" in part for part in process.cmdline())
            and ready.path.stat().st_mtime >= started_unix - CLOCK_SLACK_SECONDS
        ):
            return started_unix
    return None


class Output:
    """Where a process's stdout and stderr go, for its successor.

    Args:
        running: The process; None: there is none yet.
        log: The file that both are appended to instead.
        kept: Whether it stays open until this process ends, for one more successor.

    Attributes:
        names: Where that is, of stdout and stderr. What can't be opened twice (the journal's socket) becomes /dev/null.
    """

    def __init__(self, running: Running | None, log: Path | None, *, kept: bool = False) -> None:
        self._kept = kept
        self._paths = [f"/proc/{running.pid if running else 0}/fd/{number}" for number in (1, 2)]
        self._log = log
        self._descriptors: list[int] = []
        stdout, stderr = [str(log)] * 2 if log else map(_output_name, self._paths)
        self.names = (stdout, stderr)

    @classmethod
    def at(cls, names: tuple[str, str], log: Path | None) -> Output:
        """Where a process that has ended wrote to, by its :attr:`names`."""
        output = cls(None, log)
        if log is None:
            output.names = names
            output._paths = list(names)
        return output

    @property
    def description(self) -> str:
        """For people."""
        return " and ".join(dict.fromkeys(self.names))

    def open(self) -> None:
        """Open it, while the process still runs: a pipe can't be opened any more once its last writer is gone.

        Raises:
            RestartFailed: ``log`` can't be written.
        """
        if self._descriptors:
            return
        for path in self._paths:
            try:
                if self._log is not None:
                    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                    self._descriptors.append(os.open(self._log, flags, 0o644))
                else:
                    self._descriptors.append(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
            except OSError as error:
                if self._log is not None:
                    raise RestartFailed(f"{self._log} can't be written: {error.strerror}") from None
                self._descriptors.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """The successor has its own copies."""
        while self._descriptors and not self._kept:
            os.close(self._descriptors.pop())

    @property
    def descriptors(self) -> tuple[int, int]:
        """Of stdout and stderr, between :meth:`open` and :meth:`close`."""
        stdout, stderr = self._descriptors
        return stdout, stderr


def _output_name(path: str) -> str:
    try:
        target = os.readlink(path)
    except OSError:
        target = "socket:"
    return "/dev/null (give --log FILE to keep it)" if target.startswith("socket:") else target


def start(recipe: Recipe, output: Output) -> subprocess.Popen[bytes]:
    """Start it, in a session of its own so that it outlives the terminal.

    Raises:
        RestartFailed: It can't be executed.
    """
    stdout, stderr = output.descriptors
    try:
        return subprocess.Popen(
            recipe.argv,
            env=dict(recipe.environ),
            cwd=recipe.directory,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    except OSError as error:
        raise RestartFailed(f"can't start {recipe.argv[0]}: {error.strerror}") from None


def run_command(command: Sequence[str]) -> None:
    """Run what restarts a process for us.

    Raises:
        RestartFailed: It can't be run, or its exit status isn't 0.
    """
    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        raise RestartFailed(f"can't run {command[0]}: {error.strerror}") from None
    if status != 0:
        raise RestartFailed(f"`{' '.join(command)}` ended with status {status}")


def wait_until(
    condition: Callable[[], bool],
    seconds: float,
    pause_seconds: float = _POLL_SECONDS,
    waiting: Callable[[], None] = lambda: None,
) -> bool:
    """Whether the condition came to hold in time; ``waiting`` is called again and again meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        waiting()
        time.sleep(pause_seconds)
    return True


def reachable(address: str) -> str:
    """``0.0.0.0:1`` and ``[::]:1`` as an address that can be called from here."""
    host, _, port = address.rpartition(":")
    return {"0.0.0.0": f"127.0.0.1:{port}", "[::]": f"[::1]:{port}"}.get(host, address)


def unit_of(groups: str) -> str:
    """The unit of Tenure's in the text of a ``/proc/PID/cgroup``; '' if there is none."""
    for group in groups.splitlines():
        unit = _UNIT.search(group)
        if unit is not None:
            return unit[1]
    return ""


def _refuse_supervised(pid: int) -> None:
    """Whoever supervises a process would start a second one."""
    try:
        unit = unit_of(Path(f"/proc/{pid}/cgroup").read_text())
        foreign = os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    except OSError:
        return
    if foreign:
        raise CannotRestart(f"process {pid} runs in a container: give --via, as in --via 'docker compose restart …'")
    if unit:
        raise CannotRestart(f"process {pid} is systemd's: give --via 'systemctl restart {unit}'")
