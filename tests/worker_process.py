"""A real worker process for tests: start it, signal it, read what it left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from evaluators import JOURNAL_ENV, read_journal

TESTS = Path(__file__).resolve().parent


async def eventually(condition: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
    """Poll until the condition holds; returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        await asyncio.sleep(0.02)
    return value


def found(folder: Path, pattern: str) -> list[Path]:
    """``rglob`` in a directory from which somebody deletes meanwhile, which ``rglob`` may stumble over."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return list(folder.rglob(pattern))


class WorkerProcess:
    """``python -m tenure.worker`` with ``evaluators:evaluate`` and everything below one directory.

    Attributes:
        environment: What it has beside this process's, and its settings, when it is started.
        journal: What its evaluations wrote; see evaluators.py.
        program: What Python runs.
        ready: The ready file's content, once started.
    """

    def __init__(self, root: Path, name: str = "worker") -> None:
        self.root = root
        self.name = name
        self.work_dir = root / name
        self.journal_path = root / "journal.jsonl"
        self.log_path = root / f"{name}.log"
        self.checkpoints = root / "checkpoints"
        self.program: tuple[str, ...] = ("-m", "tenure.worker")
        self.environment: dict[str, str] = {}
        self.ready: dict[str, Any] = {}
        self._ready_file = root / f"{name}.ready"
        self._process: asyncio.subprocess.Process | None = None
        self._groups: set[int] = set()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def spawn(self, master: str, **settings: Any) -> None:
        """Start it without waiting for anything. A setting that is None keeps its default."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
        given: dict[str, Any] = {
            "worker_id": self.name,
            "listen": "127.0.0.1:0",
            "http": "127.0.0.1:0",
            "evaluator": "evaluators:evaluate",
            "python_path": str(TESTS),
            "work_dir": self.work_dir,
            "checkpoints": self.checkpoints,
            "ready_file": self._ready_file,
            "log_format": "json",
            "log_level": "debug",
            "stop_grace_seconds": 2,
            "drain_grace_seconds": 10,
            **settings,
        }
        environment |= {
            f"TENURE_WORKER_{name.upper()}": str(value) for name, value in given.items() if value is not None
        }
        environment |= {"TENURE_MASTER": master, JOURNAL_ENV: str(self.journal_path), **self.environment}
        self._ready_file.unlink(missing_ok=True)
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                *self.program,
                stderr=log,
                stdout=log,
                env=environment,
                start_new_session=True,
            )

    async def start(self, master: str, **settings: Any) -> WorkerProcess:
        """Start it and wait until it serves."""
        await self.spawn(master, **settings)
        await eventually(lambda: self._ready_file.exists() or self.returncode is not None, what="ready file")
        assert self.returncode is None, self.log_text()
        self.ready = json.loads(self._ready_file.read_text())
        return self

    @property
    def returncode(self) -> int | None:
        return self._process.returncode if self._process is not None else None

    def signal(self, signum: signal.Signals) -> None:
        """Signal the supervisor alone."""
        os.kill(self.pid, signum)

    async def wait(self, seconds: float = 60.0) -> int:
        """Its exit code."""
        assert self._process is not None
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    def executors(self) -> list[psutil.Process]:
        """Its executors now; their groups are remembered for destroy()."""
        try:
            children = psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return []
        self._groups |= {child.pid for child in children}
        return children

    def journal(self, event: str | None = None, task_id: str | None = None) -> list[dict[str, Any]]:
        """The journal's lines."""
        return read_journal(self.journal_path, event=event, task_id=task_id)

    async def journaled(self, event: str, task_id: str | None = None, count: int = 1) -> dict[str, Any]:
        """Wait for the ``count``-th such line."""
        found = await eventually(
            lambda: len(lines := self.journal(event, task_id)) >= count and lines, what=f"{event} of {task_id}"
        )
        line: dict[str, Any] = found[count - 1]
        return line

    def log_text(self) -> str:
        """Everything it logged."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    def log_lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Its JSON log lines."""
        lines = []
        for text in self.log_text().splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict) and (event is None or line.get("event") == event):
                    lines.append(line)
        return lines

    async def destroy(self) -> None:
        """Kill what is left of it."""
        if self._process is None:
            return
        self.executors()
        if self.returncode is None:
            self._process.kill()
            await self._process.wait()
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie doesn't)."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
