"""The handle that an evaluator gets: what it loads, what it announces, what it survives."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tenure.common.errors import CheckpointError, InvalidInput
from tenure.worker.checkpoint import (
    ExecutorCheckpoints,
    RegisteredCheckpoint,
    WrittenCheckpoint,
    local,
    read_checkpoint,
    write_checkpoint,
)
from tenure.worker.checkpoint.naming import local_path
from tenure.worker.evaluator import CheckpointHandle


class Run:
    """One run of task ``0-task``: its handle, and what came out of it."""

    def __init__(self, base: Path, epoch: int = 1, registered: list[WrittenCheckpoint] | None = None) -> None:
        self.announced: list[WrittenCheckpoint] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.handle = ExecutorCheckpoints(
            base_url=str(base),
            search="search",
            task_id="0-task",
            epoch=epoch,
            registered=[RegisteredCheckpoint(one.url, one.digest, one.step) for one in registered or []],
            announce=self.announced.append,
            log=self.log,
        )
        contract: CheckpointHandle = self.handle
        assert contract is self.handle

    def log(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]


def path_of(written: WrittenCheckpoint) -> Path:
    path = local_path(written.url)
    assert path is not None
    return path


def test_a_fresh_start_loads_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.handle.load() is None
    assert run.handle.resumed_step is None
    assert run.events == []


def test_saved_is_whole_when_it_is_announced_and_the_next_run_resumes_from_it(tmp_path: Path) -> None:
    first = Run(tmp_path)
    first.handle.save({"n": 1}, step=1, score=0.1, wait=True)
    first.handle.save({"n": 2}, step=2, wait=True)
    assert [(one.step, one.epoch, one.score) for one in first.announced] == [(1, 1, 0.1), (2, 1, None)]
    for one in first.announced:
        assert read_checkpoint(one.url, one.digest) == {"n": one.step}
    counters = first.handle.counters
    assert (counters.saved, counters.failures) == (2, 0)
    assert counters.bytes_written == sum(one.size_bytes for one in first.announced)
    assert counters.write_seconds > 0

    second = Run(tmp_path, epoch=2, registered=first.announced[::-1])
    assert second.handle.load() == {"n": 2}
    assert second.handle.resumed_step == 2
    assert second.handle.counters.read_seconds > 0
    assert [fields["step"] for fields in second.logged("checkpoint.loaded")] == [2]


def test_a_corrupt_newest_is_skipped_with_a_warning(tmp_path: Path) -> None:
    first = Run(tmp_path)
    for n in (1, 2, 3):
        first.handle.save({"n": n}, step=n, wait=True)
    newest, middle = path_of(first.announced[2]), path_of(first.announced[1])
    next(path for path in newest.iterdir() if path.name.startswith("state")).write_bytes(b"\0\0")
    (middle / "manifest.json").unlink()
    second = Run(tmp_path, epoch=2, registered=first.announced[::-1])
    assert second.handle.load() == {"n": 1}
    assert second.handle.resumed_step == 1
    assert second.handle.counters.skipped == 2
    skipped = second.logged("checkpoint.skipped")
    assert "size differs" in skipped[0]["error"]
    assert "manifest.json: is missing" in skipped[1]["error"]


def test_when_none_is_usable_it_starts_afresh_and_says_so(tmp_path: Path) -> None:
    first = Run(tmp_path / "another host's disk")
    first.handle.save({"n": 1}, step=1, wait=True)
    (tmp_path / "another host's disk").rename(tmp_path / "unreachable")
    second = Run(tmp_path / "here", epoch=2, registered=first.announced)
    assert second.handle.load() is None
    assert second.handle.resumed_step is None
    assert second.logged("checkpoint.none_usable") == [{"tried": 1}]


def test_a_storage_that_can_not_be_read_fails_the_attempt(tmp_path: Path) -> None:
    first = Run(tmp_path)
    first.handle.save({"n": 1}, step=1, wait=True)
    (path_of(first.announced[0]) / "manifest.json").unlink()
    (path_of(first.announced[0]) / "manifest.json").mkdir()
    with pytest.raises(CheckpointError, match="can't be read"):
        Run(tmp_path, epoch=2, registered=first.announced).handle.load()


def test_a_full_disk_stops_nothing_and_the_previous_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.handle.save({"n": 1}, step=1, wait=True)

    class FullOs:
        def __getattr__(self, name: str) -> Any:
            return self.full if name == "write" else getattr(os, name)

        def full(self, *args: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(local, "os", FullOs())
    run.handle.save({"n": 2}, step=2, wait=True)
    assert len(run.announced) == 1
    assert run.handle.counters.failures == 1
    assert "the storage is full" in run.logged("checkpoint.failed")[0]["error"]
    monkeypatch.undo()
    assert Run(tmp_path, epoch=2, registered=run.announced).handle.load() == {"n": 1}
    run.handle.save({"n": 3}, step=3, wait=True)
    assert [one.step for one in run.announced] == [1, 3]
    assert run.handle.load() == {"n": 3}


def test_a_state_that_can_not_be_kept_is_the_evaluators_error(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(InvalidInput, match=r"state\.model"):
        run.handle.save({"model": object()}, step=1, wait=True)
    assert run.announced == []


def test_what_announce_raises_goes_through(tmp_path: Path) -> None:
    def broken(written: WrittenCheckpoint) -> None:
        raise BrokenPipeError("the supervisor is gone")

    handle = ExecutorCheckpoints(
        base_url=str(tmp_path), search="s", task_id="t", epoch=1, registered=[], announce=broken, log=print
    )
    with pytest.raises(BrokenPipeError):
        handle.save({"n": 1}, step=1, wait=True)


def test_the_first_save_sweeps_what_dead_runs_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(epoch: int, task_id: str = "0-task") -> WrittenCheckpoint:
        return write_checkpoint(str(tmp_path), "search", task_id, epoch, epoch, {"n": epoch})

    registered, unregistered, other_task, same_epoch = write(1), write(2), write(1, "0-other"), write(3)
    unfinished = path_of(write(2))
    unfinished.rename(unfinished.with_name(f".writing-{unfinished.name}"))
    half_deleted = path_of(write(1))
    half_deleted.rename(half_deleted.with_name(f".deleting-{half_deleted.name}"))
    foreign = path_of(registered).parent / "notes.txt"
    foreign.write_text("mine")

    run = Run(tmp_path, epoch=3, registered=[registered])
    assert run.handle.load() == {"n": 1}
    assert path_of(unregistered).exists(), "nothing is swept before this run has a checkpoint of its own"
    run.handle.save({"n": 3}, step=3, wait=True)
    left = {path.name for path in path_of(registered).parent.iterdir()}
    kept = [registered, same_epoch, run.announced[0]]
    assert left == {foreign.name, *(path_of(one).name for one in kept)}
    assert path_of(other_task).exists()
    assert len(run.logged("checkpoint.swept")[0]["urls"]) == 3

    later = write(2)
    run.handle.save({"n": 4}, step=4, wait=True)
    assert path_of(later).exists(), "it sweeps once"


def test_a_sweep_that_fails_is_only_logged(tmp_path: Path) -> None:
    stale = path_of(write_checkpoint(str(tmp_path), "search", "0-task", 1, 1, {"n": 1}))
    (stale / "thesis.tex").write_text("mine")
    run = Run(tmp_path, epoch=2)
    run.handle.save({"n": 2}, step=2, wait=True)
    assert len(run.announced) == 1
    assert "never wrote" in run.logged("checkpoint.sweep_failed")[0]["error"]
    assert (stale / "thesis.tex").exists()


def test_counters_count_failed_writes_in_seconds_too(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    run = Run(blocked)
    run.handle.save({"n": 1}, step=1, wait=True)
    assert run.handle.counters.failures == 1
    assert run.handle.counters.write_seconds > 0
