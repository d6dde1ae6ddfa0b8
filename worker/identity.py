"""Who this worker is, and the directory that is its alone.

A work directory belongs to one running worker: it holds results that no master has acknowledged, and two workers
delivering them would be confusion. A file lock says so; it falls with the process, however that ends.

A worker without an id of its own takes the first unused identity that this user's workers have had on this host
before (and with it the results left there), else makes a new one: ``<host>-<4 random letters>``.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tenure.common import ids, paths
from tenure.common.directory_lock import DirectoryLock
from tenure.common.errors import InvalidInput, InvalidSetting, WorkDirectoryInUse
from tenure.worker.settings import WorkerSettings

_LETTERS = "abcdefghjkmnpqrstvwxyz23456789"
# The predecessor on this directory may be just ending.
_PATIENCE_SECONDS = 5.0


@dataclass
class Identity:
    """A worker's id and its locked work directory.

    Attributes:
        worker_id: What masters know the worker by.
        work_dir: Exists, writable, locked until :meth:`release`.
        instance_id: Random for each start: tells this process from another with the same worker id.
    """

    worker_id: str
    work_dir: Path
    instance_id: str
    _lock: DirectoryLock

    def release(self) -> None:
        """Let another worker have the directory."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


def claim_identity(settings: WorkerSettings, patience_seconds: float = _PATIENCE_SECONDS) -> Identity:
    """The identity that ``settings`` ask for.

    Raises:
        InvalidSetting: The work directory can't be made or written.
        WorkDirectoryInUse: Another worker runs in it.
    """
    if settings.work_dir is None and not settings.worker_id:
        return _claim_any(paths.worker_dir("x").parent)
    work_dir = settings.work_dir or paths.worker_dir(settings.worker_id)
    lock = _lock(work_dir, patience_seconds)
    if lock is None:
        raise WorkDirectoryInUse(
            "another worker runs in this directory",
            field="work_dir",
            given=str(work_dir),
            expected="end that worker, or give this one a --worker-id or --work-dir of its own",
        )
    return Identity(settings.worker_id or _remembered_id(work_dir), work_dir, ids.new_instance_id(), lock)


def _claim_any(home: Path) -> Identity:
    """The first free directory of this host's nameless workers below ``home``, or a new one."""
    host = host_name()
    candidates = sorted(path for path in home.glob(f"{host}-????") if (path / "worker-id").is_file())
    for path in candidates:
        if (lock := _lock(path, 0.0)) is not None:
            return Identity(_remembered_id(path), path, ids.new_instance_id(), lock)
    while True:
        path = home / _new_id(host)
        if not path.exists() and (lock := _lock(path, 0.0)) is not None:
            (path / "worker-id").write_text(path.name)
            return Identity(path.name, path, ids.new_instance_id(), lock)


def host_name() -> str:
    """This host's name, without what an id must not contain; never empty."""
    name = "".join(letter for letter in socket.gethostname() if letter.isprintable() and letter not in " /")
    return name[:64] or "localhost"


def unusable_work_dir(path: Path, error: OSError) -> InvalidSetting:
    """What is said of a work directory that is ours, and fails."""
    return InvalidSetting(
        f"can't be used: {error}",
        field="work_dir",
        given=str(path),
        expected="give a --work-dir on a local disk with room, that this user may write to",
    )


def _new_id(host: str) -> str:
    return f"{host}-{''.join(secrets.choice(_LETTERS) for _ in range(4))}"


def _remembered_id(work_dir: Path) -> str:
    """The id that a worker in this directory had before, or a new one that will be remembered."""
    file = work_dir / "worker-id"
    with contextlib.suppress(FileNotFoundError, InvalidInput):
        return ids.check_id(file.read_text(), "worker_id")
    worker_id = _new_id(host_name())
    file.write_text(worker_id)
    return worker_id


def _lock(work_dir: Path, patience_seconds: float) -> DirectoryLock | None:
    """The directory's lock, held, or None if somebody else holds it."""
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        lock = DirectoryLock(work_dir, "lock")
    except OSError as error:
        raise InvalidSetting(
            f"can't be written: {error.strerror}",
            field="work_dir",
            given=str(work_dir),
            expected="give a --work-dir on a local disk that this user may write to",
        ) from error
    if lock.acquire(patience_seconds):
        return lock
    lock.release()
    return None
