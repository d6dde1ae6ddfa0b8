"""What evaluations print: the last of it in memory as evidence, all of it (up to a bound) in a file per run."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from pathlib import Path
from typing import BinaryIO

import structlog

from tenure.common import limits

LOG_FILE_BYTES_MAX = 16 * 1024 * 1024
LOG_FILES_MAX = 200
_TAIL_BYTES_MAX = 2 * limits.LOG_TAIL_BYTES_MAX
_UNSAFE = re.compile(r"[^\w.-]+")

log = structlog.get_logger()


class RunOutput:
    """The output of one run.

    Args:
        path: The run's log file; None keeps none.
    """

    def __init__(self, path: Path | None) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._file: BinaryIO | None = None
        self._file_left = LOG_FILE_BYTES_MAX
        if path is not None:
            try:
                self._file = path.open("ab", buffering=0)
            except OSError as error:
                log.warning("run_log.unwritable", path=str(path), error=str(error))

    def write(self, data: bytes) -> None:
        """Take what was printed."""
        self._chunks.append(data)
        self._size += len(data)
        while len(self._chunks) > 1 and self._size - len(self._chunks[0]) >= _TAIL_BYTES_MAX:
            self._size -= len(self._chunks.popleft())
        if self._file is not None:
            try:
                self._file.write(data[: self._file_left])
                self._file_left -= len(data)
                if self._file_left <= 0:
                    self._file.write(b"\n... the rest is not kept\n")
                    self.close()
            except OSError as error:
                log.warning("run_log.unwritable", error=str(error))
                self.close()

    def write_line(self, text: str) -> None:
        """Take a line that did not come from the evaluation itself."""
        self.write(text.encode("utf-8", "replace") + b"\n")

    def tail(self) -> str:
        """The last of it, at most ``LOG_TAIL_BYTES_MAX`` bytes of UTF-8, beginning with a whole line if possible."""
        data = b"".join(self._chunks)
        if len(data) > limits.LOG_TAIL_BYTES_MAX:
            data = data[-limits.LOG_TAIL_BYTES_MAX :]
            newline = data.find(b"\n", 0, len(data) // 2)
            data = data[newline + 1 :]
        # Undecodable bytes become one "?" each, so that the text is never longer than the data.
        return data.decode("utf-8", "replace").replace("�", "?").replace("\0", "?")

    def close(self) -> None:
        """Close the file; the tail stays."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


class RunLogs:
    """The directory of the runs' log files; the oldest give way."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._count = sum(1 for _ in directory.glob("*.log"))

    def open(self, task_id: str, epoch: int) -> RunOutput:
        """The output of a new run, in ``<task id>.<epoch>.log``."""
        if self._count >= LOG_FILES_MAX:
            self._make_room()
        self._count += 1
        return RunOutput(self._directory / f"{_UNSAFE.sub('_', task_id)[:100]}.{epoch}.log")

    def _make_room(self) -> None:
        """A tenth at a time, so that a full directory isn't sorted for each run."""
        files = sorted(self._directory.glob("*.log"), key=_modified)
        kept = LOG_FILES_MAX - LOG_FILES_MAX // 10
        for path in files[: max(0, len(files) - kept)]:
            path.unlink(missing_ok=True)
        self._count = min(len(files), kept)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
