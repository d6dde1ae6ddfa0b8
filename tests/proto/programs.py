"""Programs run beside a test: their output is awaited line by line, and they are ended whatever happens."""

from __future__ import annotations

import queue
import re
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

LINE_SECONDS_MAX = 60.0


class Program:
    """One child process; leaving the ``with`` kills it if it still runs."""

    def __init__(self, command: Sequence[str | Path], cwd: Path, env: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            list(map(str, command)),
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The match of the next line that has ``pattern``."""
        while True:
            try:
                line = self._queue.get(timeout=LINE_SECONDS_MAX)
            except queue.Empty:
                raise AssertionError(f"no line with {pattern!r} in {LINE_SECONDS_MAX:.0f} s; {self}") from None
            assert line is not None, f"ended without a line with {pattern!r}; {self}"
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match

    def finish(self) -> str:
        """Wait for it to end by itself with status 0; all that it printed."""
        status = self._process.wait(timeout=LINE_SECONDS_MAX)
        while (line := self._queue.get(timeout=LINE_SECONDS_MAX)) is not None:
            self.lines.append(line)
        assert status == 0, f"ended with {status}; {self}"
        return "\n".join(self.lines)

    def __str__(self) -> str:
        return "it printed:\n" + "\n".join(self.lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(timeout=60)
        assert self._process.stdout is not None
        self._process.stdout.close()
