"""Real master processes for tests: start, signal, restart, read what they logged.

::

    master = start_master(tmp_path / "master", lease_ttl_seconds=2, heartbeat_seconds=0.5)
    try:
        ...                       # talk to master.address
        master.kill()             # SIGKILL; its embedded store goes with it
        master.restart()          # same address, same data
        wait_for(lambda: master.logged("worker.register", worker="w1"))
    finally:
        master.remove()

Everything here blocks; from a coroutine use ``asyncio.to_thread`` or :func:`eventually`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

# Far above what anything takes, the start of a process that imports torch on a busy machine included: a test that waits
# this long has failed.
DEADLINE_SECONDS = 90.0
_POLL_SECONDS = 0.02


def wait_for(predicate: Callable[[], T], deadline: float = DEADLINE_SECONDS, what: str = "") -> T:
    """Poll until ``predicate()`` is true; returns its value.

    Raises:
        AssertionError: Not within ``deadline`` seconds.
    """
    end = time.monotonic() + deadline
    while not (value := predicate()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline:g} s: {what or inspect.getsource(predicate).strip()}")
        time.sleep(_POLL_SECONDS)
    return value


async def eventually(
    predicate: Callable[[], T | Awaitable[T]], deadline: float = DEADLINE_SECONDS, what: str = ""
) -> T:
    """:func:`wait_for` for coroutines; ``predicate`` may be one, too."""
    end = time.monotonic() + deadline
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value  # type: ignore[return-value]
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline:g} s: {what or inspect.getsource(predicate).strip()}")
        await asyncio.sleep(_POLL_SECONDS)


class MasterProcess:
    """One ``tenure master``; made by :func:`start_master`.

    Attributes:
        facts: What its ready file says: ``pid``, ``grpc``, ``http``, ``master_id``, ``store``, ``store_pid``.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {}
        self._settings = settings
        self._ready_file = folder / "ready.json"
        self._log_file = folder / "master.log"
        self._process: subprocess.Popen[bytes] | None = None

    # ---- life -------------------------------------------------------------------------------------------------

    def start(self) -> MasterProcess:
        """Start it and wait until it serves.

        Raises:
            RuntimeError: It ended instead; with the end of its log.
        """
        self.spawn()
        wait_for(lambda: self._ready_file.exists() or self.returncode is not None, what="the master's ready file")
        if self.returncode is not None:
            raise RuntimeError(f"the master ended with {self.returncode}: {self.log_text()[-3000:]}")
        self.facts = json.loads(self._ready_file.read_text())
        return self

    def spawn(self) -> None:
        """Start it without waiting for anything."""
        self._ready_file.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
        environment |= {
            f"TENURE_MASTER_{name.upper()}": str(value) for name, value in self._settings.items() if value is not None
        }
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tenure.client.cli", "master"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        _running.add(self)

    def restart(self, **settings: Any) -> MasterProcess:
        """Start it again, after :meth:`kill` or :meth:`terminate`, on the same data and the same address."""
        assert self.returncode is not None, "still running"
        self._settings |= {"listen": self.address, **settings}
        return self.start()

    def kill(self) -> None:
        """SIGKILL, and wait until it and its embedded store are gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        if self.facts.get("store_pid"):
            wait_for(lambda: not is_alive(self.facts["store_pid"]), what="the end of the embedded store")

    def terminate(self) -> int:
        """SIGTERM; returns its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.wait()

    def wait(self, deadline: float = DEADLINE_SECONDS) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(deadline)

    def signal(self, number: signal.Signals) -> None:
        """Send any signal: SIGSTOP, SIGCONT, …"""
        os.kill(self.pid, number)

    def remove(self) -> None:
        """End it whatever state it is in; behind every test."""
        _running.discard(self)
        if self._process is None or self._process.poll() is not None:
            return
        self._process.kill()
        self._process.wait()

    # ---- facts ------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Of the process last started."""
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def address(self) -> str:
        """``host:port`` of its gRPC server; stays the same over :meth:`restart`."""
        return str(self.facts["grpc"])

    @property
    def master_id(self) -> str:
        """New with every start."""
        return str(self.facts["master_id"])

    @property
    def store_pid(self) -> int:
        """Of the embedded store that it runs now (it may have been started again)."""
        file = self.data_dir / "store.pid"
        # Found empty while it is being written.
        return int(wait_for(lambda: file.exists() and file.read_text().strip(), what="the store's pid file"))

    @property
    def data_dir(self) -> Path:
        """Its data directory."""
        return Path(self._settings["data_dir"])

    def get(self, path: str) -> tuple[int, str]:
        """(status, body) of a path of its HTTP endpoint."""
        try:
            with urllib.request.urlopen(f"http://{self.facts['http']}{path}", timeout=DEADLINE_SECONDS) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def log_text(self) -> str:
        """Everything it wrote, over all its starts."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its JSON log lines, oldest first, over all its starts."""
        lines = []
        for text in self.log_text().splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(text))
        return [line for line in lines if isinstance(line, dict)]

    def logged(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Log lines of one event with these fields."""
        wanted = {"event": event, **fields}
        return [line for line in self.lines if wanted.items() <= line.items()]


def start_master(folder: Path, **settings: Any) -> MasterProcess:
    """A master on an embedded store of its own below ``folder``, on ports that the system chooses.

    Args:
        folder: Made if need be; holds data, log and ready file.
        settings: Fields of MasterSettings, for example ``store="unix:///…"``, ``lease_ttl_seconds=2``; None drops one
            of the defaults that are set here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return make_master(folder, **settings).start()


def make_master(folder: Path, **settings: Any) -> MasterProcess:
    """The same, not started: for starts that are to fail."""
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {
        "listen": "127.0.0.1:0",
        "http": "127.0.0.1:0",
        "console": "off",
        "data_dir": folder / "data",
        "ready_file": folder / "ready.json",
        "log_format": "json",
        "log_level": "debug",
    }
    return MasterProcess(folder, defaults | settings)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie doesn't."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def spawned_here() -> list[psutil.Process]:
    """What multiprocessing has spawned in this process and its children, but its resource tracker. Nobody else's: an
    earlier test may have left a child that only waits to be collected."""
    found = []
    for child in psutil.Process().children(recursive=True):
        # It may end while we look; of a zombie there is no command line.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


_running: set[MasterProcess] = set()


@atexit.register
def _end_all() -> None:
    """A test run that was broken off leaves no masters behind."""
    for process in list(_running):
        process.remove()
