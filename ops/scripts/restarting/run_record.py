"""What keeps two runs apart, and what a run that was broken off leaves for the next one."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from restarting.processes import AnotherRun, CannotRestart
from tenure.common.directory_lock import DirectoryLock
from tenure.common.paths import data_home


def default_directory() -> Path:
    """Where runs of this user on this machine meet."""
    return data_home() / "ops"


class RunRecord:
    """Held by one run at a time (``with``); the operating system gives it back however the run ends.

    Of a run that did not get to its end a file stays: which targets it restarted, and who they were afterwards. The
    next run leaves out those that still are the same.

    Args:
        directory: Made if need be.
        command: Whose runs these are; each command has a record of its own, and all share one lock.
    """

    def __init__(self, directory: Path, command: str) -> None:
        self._directory = directory
        self._path = directory / f"{command}.json"
        self._lock: DirectoryLock | None = None
        self._begun_unix = time.time()
        self._done: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Raises AnotherRun; CannotRestart if the directory can't be used."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = DirectoryLock(self._directory, "running.lock")
        except OSError as error:
            raise CannotRestart(f"{self._directory} can't be used: {error.strerror}; give --state-dir") from None
        if not lock.acquire():
            holder = lock.holder()
            lock.release()
            raise AnotherRun(f"another run is going on (pid {holder or '?'}); wait for its end")
        self._lock = lock
        try:
            self.read()
        except CannotRestart:
            self.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let others run."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def begun(self) -> str:
        """When the unfinished run began, for people; or this one."""
        return datetime.fromtimestamp(self._begun_unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def read(self) -> None:
        """Look at what an unfinished run has left; needs no lock."""
        try:
            content = json.loads(self._path.read_text())
            self._begun_unix = float(content["begun_unix"])
            self._done = {str(name): str(identity) for name, identity in content["done"].items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CannotRestart(f"{self._path} is no record of a run ({error!r}): delete it") from None

    def forget(self) -> None:
        """Begin from the start."""
        self._begun_unix = time.time()
        self._done = {}

    def has_done(self, target: str, identity: str) -> bool:
        """Whether the unfinished run restarted this target, and it has been the same since."""
        return bool(identity) and self._done.get(target) == identity

    def note(self, target: str, identity: str) -> None:
        """The target is back, as this one."""
        self._done[target] = identity
        scratch = self._path.with_name(self._path.name + ".part")
        scratch.write_text(json.dumps({"begun_unix": self._begun_unix, "done": self._done}) + "\n")
        scratch.replace(self._path)

    def finish(self) -> None:
        """All is done: the next run begins from the start."""
        self._path.unlink(missing_ok=True)
