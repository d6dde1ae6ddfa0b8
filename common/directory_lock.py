"""One process at a time in a directory: a master in its data directory, a worker in its work directory."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

_PAUSE_SECONDS = 0.05


class DirectoryLock:
    """Held on the directory itself, which nobody deletes under its owner without taking the data along.

    A file in it holds the owner's pid, and is locked too: earlier versions know nothing else. Deleting that file frees
    nothing. The operating system gives everything back when the process ends, however it ends.

    Args:
        directory: Exists.
        file_name: Of the file with the pid.

    Raises:
        OSError: The directory can't be opened, or the file can't be written.
    """

    def __init__(self, directory: Path, file_name: str) -> None:
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._file = os.open(directory / file_name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            os.close(self._directory)
            raise

    def acquire(self, patience_seconds: float = 0.0) -> bool:
        """Whether it is held now; False if somebody else held it all the time. A refused one is to be released."""
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                for descriptor in (self._directory, self._file):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(self._directory, fcntl.LOCK_UN)
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_PAUSE_SECONDS)
            else:
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
                return True

    def holder(self) -> str:
        """The pid that the file names, or '' (somebody deleted it)."""
        return os.pread(self._file, 32, 0).decode("ascii", "replace").strip()

    def release(self) -> None:
        """Let another process have it."""
        os.close(self._file)
        os.close(self._directory)
