"""What evaluations print: the last of it in memory, as evidence and for those who follow it (``tails.py``); all of it,
up to a bound, in a file per run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import structlog

from tenure.common import limits
from tenure.common.output_ring import OutputRing

LOG_FILE_BYTES_MAX = 16 * 1024 * 1024
LOG_FILES_MAX = 200
# What somebody who follows a run finds of it at first, and how far he may fall behind.
RECENT_BYTES_MAX = 256 * 1024
_UNSAFE = re.compile(r"[^\w.-]+")

log = structlog.get_logger()


class RunOutput:
    """The output of one run.

    Args:
        path: The run's log file; None keeps none.
        notify: Called when there is more, and once nothing more comes. Must not block.

    Attributes:
        recent: The last of it.
        finished: Whether nothing more comes.
    """

    def __init__(self, path: Path | None, notify: Callable[[], None] = lambda: None) -> None:
        self.recent = OutputRing(RECENT_BYTES_MAX)
        self.finished = False
        self._notify = notify
        self._file: BinaryIO | None = None
        self._file_left = LOG_FILE_BYTES_MAX
        if path is not None:
            try:
                self._file = path.open("ab", buffering=0)
            except OSError as error:
                log.warning("run_log.unwritable", path=str(path), error=str(error))

    def write(self, data: bytes) -> None:
        """Take what was printed."""
        self.recent.write(data)
        self._notify()
        if self._file is not None:
            try:
                self._file.write(data[: self._file_left])
                self._file_left -= len(data)
                if self._file_left <= 0:
                    self._file.write(b"\n... the rest is not kept\n")
                    self._close_file()
            except OSError as error:
                log.warning("run_log.unwritable", error=str(error))
                self._close_file()

    def write_line(self, text: str) -> None:
        """Take a line that did not come from the evaluation itself."""
        self.write(text.encode("utf-8", "replace") + b"\n")

    def tail(self) -> str:
        """The last of it, at most ``LOG_TAIL_BYTES_MAX`` bytes of UTF-8, beginning with a whole line if possible."""
        data = self.recent.last(limits.LOG_TAIL_BYTES_MAX)
        if len(data) < self.recent.end:
            newline = data.find(b"\n", 0, len(data) // 2)
            data = data[newline + 1 :]
        # Undecodable bytes become one "?" each, so that the text is never longer than the data.
        return data.decode("utf-8", "replace").replace("�", "?").replace("\0", "?")

    def finish(self) -> None:
        """Nothing more comes. Whoever follows hears it before the run's outcome is told."""
        if not self.finished:
            self.finished = True
            self._notify()

    def close(self) -> None:
        """Close the file; the tail stays."""
        self.finish()
        self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


class RunLogs:
    """The directory of the runs' log files; the oldest give way.

    Attributes:
        listener: Called whenever a run begins, prints or ends. Must not block.
    """

    def __init__(self, directory: Path) -> None:
        self.listener: Callable[[], None] = lambda: None
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._count = sum(1 for _ in directory.glob("*.log"))
        self._live: dict[tuple[str, int], RunOutput] = {}

    def open(self, task_id: str, epoch: int) -> RunOutput:
        """The output of a new run, in ``<task id>.<epoch>.log``."""
        if self._count >= LOG_FILES_MAX:
            self._make_room()
        self._count += 1
        # Those that were closed; there are never more than slots.
        self._live = {key: output for key, output in self._live.items() if not output.finished}
        output = self._live[task_id, epoch] = RunOutput(self._path(task_id, epoch), lambda: self.listener())
        self.listener()
        return output

    def find(self, task_id: str, epoch: int) -> RunOutput | None:
        """The output of a run that goes on, or has ended just now."""
        return self._live.get((task_id, epoch))

    def read_end(self, task_id: str, epoch: int, bytes_max: int) -> tuple[int, bytes] | None:
        """The last of an ended run's file: (place of its first byte, bytes). None if it isn't there, or is gone."""
        try:
            with self._path(task_id, epoch).open("rb") as file:
                place = max(0, file.seek(0, 2) - bytes_max)
                file.seek(place)
                return place, file.read(bytes_max)
        except OSError:
            return None

    def _path(self, task_id: str, epoch: int) -> Path:
        return self._directory / f"{_UNSAFE.sub('_', task_id)[:100]}.{epoch}.log"

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
