"""Storages without rename: whatever they refuse, what has a manifest is whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tenure.common.errors import CheckpointError, CorruptCheckpoint
from tenure.worker.checkpoint import WrittenCheckpoint, delete_checkpoint, read_checkpoint, write_checkpoint

STATE = {"epoch": 3, "weights": list(range(200))}


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def write(base_url: str) -> WrittenCheckpoint:
    return write_checkpoint(base_url, "search", "0-task", 1, 5, STATE)


@pytest.mark.parametrize("operation", ["open", "write", "close"])
def test_a_remote_storage_that_fails_leaves_no_manifest(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the manner of an object store's library: with an exception of its own, before or after taking the bytes."""
    from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

    class Refused(Exception):
        pass

    target: Any = MemoryFileSystem if operation == "open" else MemoryFile
    real = getattr(target, operation)
    count = 0

    def refusing(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == last:
            raise Refused("503 slow down")
        return real(self, *args, **kwargs)

    failures = 0
    for last in range(1, 4):
        base, count = f"memory://{tmp_path}/{last}", 0
        monkeypatch.setattr(target, operation, refusing)
        written, failure = None, None
        try:
            written = write(base)
        except CheckpointError as error:
            failure = error
        monkeypatch.setattr(target, operation, real)
        if written is not None:
            assert read_checkpoint(written.url, written.digest) == STATE
        else:
            failures += 1
            assert "503 slow down" in str(failure)
            assert fsspec.filesystem("memory").glob(f"{tmp_path}/{last}/**/manifest.json") == []
    assert failures >= 1


def test_a_remote_storage_with_real_directories_is_given_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    real = MemoryFileSystem._open

    def strict(self: Any, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if "w" in mode and not self.isdir(path.rpartition("/")[0]):
            raise FileNotFoundError(path)
        return real(self, path, mode, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "_open", strict)
    written = write(f"memory://{tmp_path}")
    assert read_checkpoint(written.url, written.digest) == STATE


def test_a_remote_deletion_takes_the_manifest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write(f"memory://{tmp_path}")
    memory = fsspec.filesystem("memory")
    removed: list[str] = []
    real = type(memory).rm_file

    def note(self: Any, path: str) -> None:
        removed.append(path.rpartition("/")[2])
        if len(removed) == 2:
            raise RuntimeError("the connection broke")
        real(self, path)

    monkeypatch.setattr(type(memory), "rm_file", note)
    with pytest.raises(CheckpointError, match="the connection broke"):
        delete_checkpoint(written.url)
    assert removed == ["manifest.json", "state.json"]
    with pytest.raises(CorruptCheckpoint, match=r"manifest\.json: is missing"):
        read_checkpoint(written.url, written.digest)
    monkeypatch.setattr(type(memory), "rm_file", real)
    delete_checkpoint(written.url)
    assert memory.glob(f"{tmp_path}/**/*.json") == []
