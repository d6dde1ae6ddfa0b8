"""What keeps two runs apart, and what a run that was broken off leaves for the next one."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from restarting.processes import AnotherRun, CannotRestart
from restarting.stopped import Stopped
from tenure.common.directory_lock import DirectoryLock


class RunRecord:
    """Held by one run at a time (``with``); the operating system gives it back however the run ends.

    Of a run that did not get to its end files stay: which targets it restarted, and who they were afterwards. The
    next run leaves out those that still are the same. And which it had stopped or was about to, with all that starting
    them takes, environment included: that file is for its user alone.

    Args:
        directory: Made if need be.
        command: Whose runs these are; each command has a record of its own of what is done. All share one lock, and
            one record of what is down: whoever comes next starts that.
    """

    def __init__(self, directory: Path, command: str) -> None:
        self._directory = directory
        self._path = directory / f"{command}.json"
        self._stopped_path = directory / "stopped.json"
        self._lock: DirectoryLock | None = None
        self._begun_unix = time.time()
        self._done: dict[str, str] = {}
        self._stopped: dict[str, Stopped] = {}

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
        with _reading(self._path) as content:
            self._begun_unix = float(content["begun_unix"])
            self._done = {str(name): str(identity) for name, identity in content["done"].items()}
        with _reading(self._stopped_path) as content:
            self._stopped = {each.name: each for each in map(Stopped.read, content["stopped"])}

    def forget(self) -> None:
        """Begin from the start. What is down stays noted."""
        self._begun_unix = time.time()
        self._done = {}

    def has_done(self, target: str, identity: str) -> bool:
        """Whether the unfinished run restarted this target, and it has been the same since."""
        return bool(identity) and self._done.get(target) == identity

    def note(self, target: str, identity: str) -> None:
        """The target is back, as this one."""
        self._done[target] = identity
        _write(self._path, {"begun_unix": self._begun_unix, "done": self._done})
        self.is_back([target])

    @property
    def stopped(self) -> list[Stopped]:
        """What was stopped, or was about to be, and was not seen back."""
        return list(self._stopped.values())

    def will_stop(self, processes: Sequence[Stopped]) -> None:
        """These are about to be stopped: from here on, how they are started stands in the file."""
        if processes:
            self._stopped |= {each.name: each for each in processes}
            self._write_stopped()

    def is_back(self, names: Sequence[str]) -> None:
        """These run again; whether they are to be restarted is another matter."""
        if self._stopped.keys() & set(names):
            for name in names:
                self._stopped.pop(name, None)
            self._write_stopped()

    def finish(self) -> None:
        """All is done: the next run begins from the start."""
        self._path.unlink(missing_ok=True)

    def _write_stopped(self) -> None:
        if self._stopped:
            _write(self._stopped_path, {"stopped": [each.written() for each in self._stopped.values()]})
        else:
            self._stopped_path.unlink(missing_ok=True)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """What the file says, to be taken apart; an empty record if there is none."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        content = {"begun_unix": time.time(), "done": {}, "stopped": []}
    except OSError as error:
        raise CannotRestart(
            f"{path} can't be read ({error.strerror}): it says what an earlier run left; run this as that run's user, "
            "and don't delete it"
        ) from None
    except ValueError as error:
        raise CannotRestart(f"{path} is no record of a run ({error!r}): delete it") from None
    try:
        yield content
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CannotRestart(f"{path} is no record of a run ({error!r}): delete it") from None


def _write(path: Path, content: Mapping[str, Any]) -> None:
    scratch = path.with_name(path.name + ".part")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(json.dumps(content) + "\n")
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
