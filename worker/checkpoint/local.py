"""Checkpoints on a file system (a disk, NFS): written aside, fsynced, then renamed.

The order of the steps is the promise; a crash or an error between any two leaves either no directory under
the final name or a whole one:

1. make the directories above, fsyncing each parent; 2. make ``.writing-<name>``; 3. write and fsync each
file; 4. fsync ``.writing-<name>``; 5. rename it to ``<name>``; 6. fsync the parent.

Deletion goes the other way: rename to ``.deleting-<name>``, fsync the parent, then delete file by file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tenure.common.errors import CheckpointError
from tenure.worker.checkpoint.manifest import FILES
from tenure.worker.checkpoint.naming import CheckpointName, parse_name

_WRITING = ".writing-"
_DELETING = ".deleting-"
# Another process may remove the task's directory, then empty, between our making it and our using it.
_MAKE_TRIES = 5
# File systems without fsync on directories say so with one of these; their renames are as durable as they
# get.
_NO_DIRECTORY_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}


class LocalTaskDirectory:
    """See :class:`tenure.worker.checkpoint.storage.TaskDirectory`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, name: CheckpointName) -> LocalWriting:
        """Make ``.writing-<name>``, and the directories above it where they are missing."""
        temporary = self._path / f"{_WRITING}{name}"
        for tries_left in reversed(range(_MAKE_TRIES)):
            try:
                _make_directories(self._path)
                os.mkdir(temporary)
                break
            except FileNotFoundError:
                if not tries_left:
                    raise
        return LocalWriting(temporary, self._path / str(name))

    def open(self, name: CheckpointName, file: str) -> BinaryIO:
        """The file itself."""
        return open(self._path / str(name) / file, "rb")

    def remove(self, name: CheckpointName) -> bool:
        """Rename it away, then delete it; the task's directory too when it was the last one."""
        doomed = self._path / f"{_DELETING}{name}"
        found = False
        for path in (self._path / str(name), self._path / f"{_WRITING}{name}"):
            if _is_ours(path):
                os.rename(path, doomed)
                _fsync_directory(self._path)
                _delete(doomed)
                found = True
        if _is_ours(doomed):
            _delete(doomed)
            found = True
        with suppress(OSError):
            os.rmdir(self._path)
        return found

    def names(self) -> list[CheckpointName]:
        """Finished ones, and what writers and deletions left behind."""
        try:
            entries = os.listdir(self._path)
        except FileNotFoundError:
            return []
        names = (parse_name(entry.removeprefix(_WRITING).removeprefix(_DELETING)) for entry in entries)
        return [name for name in names if name is not None]


class LocalWriting:
    """See :class:`tenure.worker.checkpoint.storage.Writing`."""

    def __init__(self, temporary: Path, final: Path) -> None:
        self._temporary = temporary
        self._final = final

    @contextmanager
    def file(self, name: str) -> Iterator[_File]:
        """Written, fsynced, closed."""
        descriptor = os.open(self._temporary / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            yield _File(descriptor)
            os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise
        # Not in a `finally`: close reports what NFS could not write, and that must fail the checkpoint.
        os.close(descriptor)

    def commit(self) -> None:
        """Steps 4 to 6 of the module's list."""
        _fsync_directory(self._temporary)
        os.rename(self._temporary, self._final)
        _fsync_directory(self._final.parent)

    def abort(self) -> None:
        """Also after a rename that reported an error and happened all the same (NFS does that)."""
        with suppress(OSError):
            os.rename(self._final, self._temporary)
        with suppress(OSError):
            _delete(self._temporary)
        with suppress(OSError):
            os.rmdir(self._final.parent)


class _File:
    """Unbuffered and complete: `os.write` alone may write less than it was given."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view):
            written += os.write(self._descriptor, view[written:])
        return written


def _make_directories(path: Path) -> None:
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(directory)
        _fsync_directory(directory.parent)


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_FSYNC:
            raise
    finally:
        os.close(descriptor)


def _is_ours(path: Path) -> bool:
    """Whether ``path`` is there; CheckpointError if it is anything but a directory of our files."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISDIR(mode):
        with os.scandir(path) as entries:
            foreign = next((entry.name for entry in entries if not _is_our_file(entry)), None)
    else:
        foreign = path.name
    if foreign is not None:
        raise CheckpointError(
            "holds what Tenure never wrote and is not deleted",
            field=str(path),
            given=foreign,
            expected="look at it and delete it by hand",
        )
    return True


def _is_our_file(entry: os.DirEntry[str]) -> bool:
    return entry.name in FILES and entry.is_file(follow_symlinks=False)


def _delete(directory: Path) -> None:
    for entry in os.listdir(directory):
        os.unlink(directory / entry)
    os.rmdir(directory)
