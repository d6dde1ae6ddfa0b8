"""The N-th file-system operation of a write or a deletion fails, for every N."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from faulty_os import Inject, at, from_there, injected, steps

from tenure.common.errors import CheckpointError
from tenure.worker.checkpoint import (
    WrittenCheckpoint,
    delete_checkpoint,
    local,
    read_checkpoint,
    write_checkpoint,
)
from tenure.worker.checkpoint.manifest import digest_of
from tenure.worker.checkpoint.naming import parse_name

__all__ = ["injected"]
STATE = {"epoch": 3, "weights": list(range(200))}


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def write(base_url: Path | str) -> WrittenCheckpoint:
    return write_checkpoint(str(base_url), "search", "0-task", 1, 5, STATE)


def failure_of(base: Path | str) -> CheckpointError | None:
    try:
        write(base)
    except CheckpointError as error:
        return error
    return None


def task_directory(base: Path) -> Path:
    return base / "search" / "0-task"


def finished(base: Path) -> list[Path]:
    """Directories under a final name."""
    directory = task_directory(base)
    return [path for path in directory.iterdir() if parse_name(path.name)] if directory.exists() else []


def files(base: Path) -> list[Path]:
    return [path for path in base.rglob("*") if path.is_file()]


def assert_whole(path: Path) -> None:
    digest = digest_of((path / "manifest.json").read_bytes())
    assert read_checkpoint(path.as_uri(), digest) == STATE


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.ESTALE])
def test_whichever_operation_fails_there_is_a_whole_checkpoint_or_none(
    error: int, tmp_path: Path, injected: Inject
) -> None:
    for n in steps():
        base = tmp_path / str(n)
        faulty = injected(at(n, error))
        if (failure := failure_of(base)) is None:
            assert len(finished(base)) == 1
            assert_whole(finished(base)[0])
            assert len(faulty.calls) < n, f"the failure of operation {n} was swallowed"
            break
        assert ("the storage is full" in str(failure)) is (error == errno.ENOSPC)
        assert finished(base) == [], f"operation {n}"
        assert files(base) == [], f"operation {n}: the temporary directory stayed"


def test_when_the_storage_fails_for_good_nothing_half_written_has_a_final_name(
    tmp_path: Path, injected: Inject
) -> None:
    for n in steps():
        base = tmp_path / str(n)
        injected(from_there(n, errno.EIO))
        failure = failure_of(base)
        for path in finished(base):
            assert_whole(path)
        if failure is None:
            break


def test_full_in_the_middle_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device takes a part of what it is given, then nothing."""
    room = 300

    def short_write(descriptor: int, data: memoryview) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = os.write(descriptor, data[: min(room, 100)])
        room -= written
        return written

    proxy = SimpleNamespace(**{name: getattr(os, name) for name in dir(os) if name != "write"}, write=short_write)
    monkeypatch.setattr(local, "os", proxy)
    with pytest.raises(CheckpointError, match="the storage is full"):
        write(tmp_path)
    assert files(tmp_path) == []
    room = 1_000_000
    assert_whole(Path(write(tmp_path).url.removeprefix("file://")))


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, injected: Inject) -> None:
    def interrupt(count: int, operation: str) -> None:
        if operation == "fsync" and count > 10:
            raise KeyboardInterrupt

    injected(interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    assert files(tmp_path) == []


def test_each_step_is_durable_before_the_next(tmp_path: Path, injected: Inject) -> None:
    faulty = injected(lambda count, operation: None)
    write(tmp_path / "new")
    names = [name for name, _ in faulty.calls]
    rename = names.index("rename")
    # Each directory made is made durable in its parent: new, search, 0-task; then the temporary one.
    assert names[:14] == ["mkdir", "open", "fsync", "close"] * 3 + ["mkdir", "open"]
    for index in (index for index, name in enumerate(names) if name == "write" and names[index + 1] != "write"):
        assert names[index + 1 : index + 3] == ["fsync", "close"], "a file is durable before it is closed"
    assert names[rename - 3 : rename] == ["open", "fsync", "close"], "the temporary directory, before the rename"
    assert names[rename + 1 :] == ["open", "fsync", "close"], "the parent, after the rename"
    assert str(faulty.calls[rename - 3][1][0]) == str(faulty.calls[rename][1][0])
    assert faulty.calls[rename + 1][1][0] == task_directory(tmp_path / "new")


def test_a_directory_removed_by_another_process_is_made_again(tmp_path: Path, injected: Inject) -> None:
    """A deletion of the task's last checkpoint removes the empty directory between two of our steps."""

    def remove(count: int, operation: str) -> None:
        if operation == "mkdir" and count == 9:
            os.rmdir(task_directory(tmp_path))

    task_directory(tmp_path).parent.mkdir()
    injected(lambda count, operation: remove(count + 4, operation))
    assert_whole(Path(write(tmp_path).url.removeprefix("file://")))


def test_a_deletion_that_fails_anywhere_leaves_it_whole_or_gone_and_can_be_repeated(
    tmp_path: Path, injected: Inject
) -> None:
    for n in steps():
        base = tmp_path / str(n)
        injected(lambda count, operation: None)
        written = write(base)
        injected(at(n, errno.EIO))
        try:
            delete_checkpoint(written.url)
            failed = False
        except CheckpointError:
            failed = True
        for path in finished(base):
            assert_whole(path)
        injected(lambda count, operation: None)
        delete_checkpoint(written.url)
        assert files(base) == []
        assert not finished(base)
        if not failed and n > 8:
            break
