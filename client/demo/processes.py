"""The demo's processes: started with their output in log files, killed as hardware fails, always cleaned up.

All are started from the main thread: on Linux each asks the kernel to be ended with its parent, and "parent" means the
thread. So nothing stays behind even when the demo itself is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tenure.common.errors import StartupError

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 15.0
_POLL_SECONDS = 0.02
_LOG_LINES_SHOWN = 15

# Asks to be ended with its parent, then becomes `tenure` with this very interpreter.
_LAUNCHER = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, 15)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.executable, [sys.executable, "-m", "tenure.client.cli", *sys.argv[2:]])
"""


class Process:
    """One ``tenure master`` or ``tenure worker``.

    Attributes:
        name: For people and for the log's name.
        facts: What its ready file says (``grpc``, ``http``, …).
    """

    def __init__(self, name: str, arguments: list[str], directory: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._ready_file = directory / f"{name}.ready"
        self._ready_file.unlink(missing_ok=True)
        self.facts: dict[str, Any] = {}
        command = [sys.executable, "-c", _LAUNCHER, str(os.getpid()), *arguments]
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [*command, "--ready-file", str(self._ready_file), "--log-format", "json"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                # Ctrl-C goes to the demo alone, which ends its processes in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the process itself; its children die with it."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._popen.poll() is None

    def wait_ready(self, seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Return once it serves.

        Args:
            seconds: How long that may take.

        Raises:
            StartupError: It ended, or took too long; the end of its log is in the message.
        """
        deadline = time.monotonic() + seconds
        while not self._ready_file.exists():
            if not self.alive:
                raise self._failed(f"ended with exit code {self._popen.returncode}")
            if time.monotonic() > deadline:
                raise self._failed(f"was not ready after {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)
        self.facts = json.loads(self._ready_file.read_text())

    def kill(self) -> None:
        """SIGKILL to it and everything below it, at once: what a power cut leaves of it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.pid)
            # Nobody may start children, or notice the death of another, while the list is made.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGSTOP)
            for process in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._popen.wait()

    def stop(self, deadline: float) -> None:
        """End it in order until ``deadline`` (monotonic), then by force."""
        if self.alive:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(max(0.1, deadline - time.monotonic()))
        if self.alive:
            self.kill()

    def _failed(self, what: str) -> StartupError:
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        return StartupError(
            f"{what}; its log ends with\n" + "\n".join(f"    {line}" for line in lines),
            field=self.name,
            expected=f"see {self.log}",
        )


class Fleet:
    """The demo's master and workers. Use it as a context manager: leaving it ends all of them.

    Args:
        directory: Everything is kept below it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.workers: list[Process] = []
        self._master: Process | None = None
        self._started_workers = 0

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def master(self) -> Process:
        """The master; start it first."""
        assert self._master is not None, "no master was started"
        return self._master

    def start_master(self) -> Process:
        """Start the master, again on the same address and data directory if it ran before. Call wait_ready next."""
        before = self._master.facts if self._master is not None else {}
        listen = before.get("grpc", "127.0.0.1:0")
        # Whoever watches goes on watching.
        console = before.get("console", "").removeprefix("http://").rstrip("/") or "127.0.0.1:0"
        data = self.directory / "master"
        addresses = ["--listen", listen, "--http", "127.0.0.1:0", "--console", console]
        arguments = ["master", *addresses, "--data-dir", str(data)]
        self._master = Process("master", arguments, self.logs, {})
        return self._master

    def start_worker(self, *more: str) -> Process:
        """Start one more worker, under a new id, with ``more`` options."""
        self._started_workers += 1
        name = f"worker-{self._started_workers}"
        options = {
            "--master": self.master.facts["grpc"],
            "--worker-id": name,
            "--slots": "1",
            "--listen": "127.0.0.1:0",
            "--http": "127.0.0.1:0",
            "--work-dir": str(self.directory / "workers" / name),
            "--checkpoints": (self.directory / "checkpoints").absolute().as_uri(),
        }
        arguments = ["worker", *(part for option in options.items() for part in option), *more]
        # One thread each: the workers share the machine's cores.
        worker = Process(name, arguments, self.logs, {"TENURE_TORCH_THREADS": "1"})
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        """End all, workers first."""
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        for worker in self.workers:
            if worker.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGTERM)
        for worker in self.workers:
            worker.stop(deadline)
        if self._master is not None:
            self._master.stop(deadline)
