"""Saving beside the training: what the caller may do meanwhile, what waits, what is given up, what stays unsaid."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_os import GatedOs, files, slow
from processes import wait_for

from tenure.common.errors import InvalidInput
from tenure.worker.checkpoint import ExecutorCheckpoints, WrittenCheckpoint, local, read_checkpoint
from tenure.worker.checkpoint.interval import CheckpointPolicy
from tenure.worker.checkpoint.snapshot import SpareMemory

__all__ = ["slow"]


class Run:
    """One run's handle and what came out of it."""

    def __init__(self, base: Path, **arguments: Any) -> None:
        self.announced: list[WrittenCheckpoint] = []
        self.events: list[str] = []
        self.handle = ExecutorCheckpoints(
            base_url=str(base),
            search="search",
            task_id="0-task",
            epoch=1,
            registered=[],
            **{"announce": self.announced.append, "log": self.log} | arguments,
        )

    def log(self, event: str, **fields: Any) -> None:
        self.events.append(event)

    def steps(self) -> list[int]:
        return [one.step for one in self.announced]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(**arguments: Any) -> Run:
        runs.append(Run(tmp_path / "checkpoints", **arguments))
        return runs[-1]

    yield begin
    for run in runs:
        run.handle.close()


def test_a_save_returns_before_it_is_written_and_the_caller_may_change_its_state(
    start: Callable[..., Run], slow: GatedOs
) -> None:
    run = start()
    state = {"n": 1, "list": [1, {"deep": 1}]}
    run.handle.save(state, step=1)
    state["n"] = 2
    state["list"][1]["deep"] = 2  # type: ignore[index]
    assert slow.reached.wait(60)
    assert run.announced == []
    slow.gate.set()
    run.handle.wait()
    (written,) = run.announced
    assert read_checkpoint(written.url, written.digest) == {"n": 1, "list": [1, {"deep": 1}]}


def test_tensors_are_copied_with_what_they_share(start: Callable[..., Run], slow: GatedOs) -> None:
    torch = pytest.importorskip("torch")
    run = start()
    model = torch.nn.Linear(4, 3)
    tied = model.weight
    state = {"model": model.state_dict(), "row": model.weight.detach()[1], "tied": tied, "conj": torch.ones(2) * 1j}
    state["conj"] = state["conj"].conj()
    before = {name: tensor.clone() for name, tensor in state["model"].items()}
    run.handle.save(state, step=1)
    with torch.no_grad():
        model.weight.fill_(7)
        model.bias.fill_(7)
    slow.gate.set()
    run.handle.wait()
    loaded = read_checkpoint(run.announced[0].url, run.announced[0].digest)
    assert loaded["model"]._metadata == state["model"]._metadata
    for name, tensor in before.items():
        assert torch.equal(loaded["model"][name], tensor)
    assert torch.equal(loaded["row"], before["weight"][1])
    assert torch.equal(loaded["conj"], torch.ones(2) * -1j)
    assert isinstance(loaded["tied"], torch.nn.Parameter)
    assert loaded["tied"].data_ptr() == loaded["model"]["weight"].data_ptr(), "one storage, as torch.save keeps it"


def test_memory_is_used_again_but_not_while_it_is_being_written(start: Callable[..., Run], slow: GatedOs) -> None:
    torch = pytest.importorskip("torch")
    run = start()
    weights = torch.zeros(1000)
    for step in range(1, 5):
        weights.fill_(step)
        run.handle.save({"weights": weights}, step=step)
        if step == 2:
            assert slow.reached.wait(60)
            slow.gate.set()
            run.handle.wait()
    run.handle.wait()
    for one in run.announced:
        assert torch.equal(read_checkpoint(one.url, one.digest)["weights"], torch.full((1000,), float(one.step)))
    assert run.steps()[-1] == 4


def test_a_superseded_copys_memory_is_the_next_ones_so_there_are_never_more_than_two(
    start: Callable[..., Run], slow: GatedOs, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    made: list[int] = []
    monkeypatch.setattr(SpareMemory, "allocate", lambda self, size: made.append(size) or torch.UntypedStorage(size))
    run = start()
    for step in range(1, 6):
        run.handle.save({"weights": torch.full((1000,), float(step))}, step=step)
        assert slow.reached.wait(60)
    assert made == [4000, 4000]
    slow.gate.set()
    run.handle.wait()
    assert run.steps() == [1, 5]
    for one in run.announced:
        assert torch.equal(read_checkpoint(one.url, one.digest)["weights"], torch.full((1000,), float(one.step)))


def test_what_waits_is_superseded_by_what_is_newer(start: Callable[..., Run], slow: GatedOs) -> None:
    run = start()
    run.handle.save({"n": 1}, step=1, score=0.5)
    assert slow.reached.wait(60)
    for step in (2, 3, 4):
        run.handle.save({"n": step}, step=step, score=0.4)
    assert not run.handle.due
    slow.gate.set()
    run.handle.wait()
    assert run.steps() == [1, 4]
    assert (run.handle.counters.saved, run.handle.counters.superseded) == (2, 2)
    assert run.events.count("checkpoint.superseded") == 2


def test_the_best_is_never_superseded(start: Callable[..., Run], slow: GatedOs) -> None:
    run = start()
    run.handle.save({"n": 1}, step=1, score=0.5)
    assert slow.reached.wait(60)
    run.handle.save({"n": 2}, step=2, score=0.9)
    third = threading.Thread(target=lambda: run.handle.save({"n": 3}, step=3, score=0.7))
    third.start()
    third.join(0.2)
    assert third.is_alive(), "the caller waits for the best to begin"
    slow.gate.set()
    third.join(60)
    run.handle.wait()
    assert run.steps() == [1, 2, 3]
    assert run.handle.counters.superseded == 0


def test_a_save_that_can_not_be_made_leaves_what_waits(start: Callable[..., Run], slow: GatedOs) -> None:
    run = start()
    run.handle.save({"n": 1}, step=1)
    assert slow.reached.wait(60)
    run.handle.save({"n": 2}, step=2)
    for wrong in ({"state": {"n": object()}, "step": 3}, {"state": {"n": 3}, "step": -1}):
        with pytest.raises(InvalidInput):
            run.handle.save(**wrong)  # type: ignore[arg-type]
    slow.gate.set()
    run.handle.wait()
    assert run.steps() == [1, 2]


def test_a_storage_that_fails_is_noted_and_the_next_save_tries_again(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullOs:
        def __getattr__(self, name: str) -> Any:
            return self.full if name == "write" else getattr(os, name)

        def full(self, *args: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = start()
    with monkeypatch.context() as patch:
        patch.setattr(local, "os", FullOs())
        run.handle.save({"n": 1}, step=1)
        run.handle.wait()
    assert (run.handle.counters.failures, run.events) == (1, ["checkpoint.failed"])
    run.handle.save({"n": 2}, step=2)
    run.handle.wait()
    assert run.steps() == [2]


def test_what_the_writing_thread_can_not_do_reaches_the_evaluator(start: Callable[..., Run]) -> None:
    def broken(written: WrittenCheckpoint) -> None:
        raise BrokenPipeError("the supervisor is gone")

    run = start(announce=broken)
    run.handle.save({"n": 1}, step=1)
    with pytest.raises(BrokenPipeError):
        run.handle.wait()
    with pytest.raises(BrokenPipeError):
        run.handle.save({"n": 2}, step=2)


def test_what_is_given_up_while_it_is_written_leaves_nothing(
    start: Callable[..., Run], slow: GatedOs, tmp_path: Path
) -> None:
    run = start()
    run.handle.save({"n": 1}, step=1)
    assert slow.reached.wait(60)
    run.handle.save({"n": 2}, step=2)
    run.handle.abandon()
    slow.gate.set()
    run.handle.close()
    assert run.announced == []
    assert files(tmp_path) == []
    assert not slow.writing_threads()
    run.handle.save({"n": 3}, step=3)
    assert run.announced == [], "nothing begins any more"


def test_given_up_just_before_it_would_be_announced_it_is_deleted(
    start: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()

    class LateOs:
        def __getattr__(self, name: str) -> Any:
            return self.rename if name == "rename" else getattr(os, name)

        def rename(self, source: Path, target: Path) -> None:
            os.rename(source, target)
            run.handle.abandon()

    monkeypatch.setattr(local, "os", LateOs())
    run.handle.save({"n": 1}, step=1)
    run.handle.wait()
    run.handle.close()
    assert run.announced == []
    assert files(tmp_path) == []


def test_due_once_it_is_worth_it_and_not_while_one_is_written(start: Callable[..., Run], slow: GatedOs) -> None:
    now = 1000.0
    run = start(policy=CheckpointPolicy(0.01, 24 * 3600.0), clock=lambda: now)
    assert not run.handle.due
    now += 1.9
    assert not run.handle.affordable
    now += 50
    assert run.handle.affordable, "a fiftieth of a second in two"
    assert not run.handle.due, "the first costs a fiftieth of a second, they say: due after 59 s"
    now += 10
    assert run.handle.due
    run.handle.save({"n": 1}, step=1)
    now += 10_000
    assert not run.handle.affordable
    assert not run.handle.due, "not before the last one is written"
    slow.gate.set()
    run.handle.wait()
    wait_for(lambda: run.handle.due)
    run.handle.save({"n": 2}, step=2)
    run.handle.wait()
    assert not run.handle.due, "it was just saved"


def test_without_an_allowance_none_is_ever_due(start: Callable[..., Run]) -> None:
    now = 0.0
    run = start(policy=CheckpointPolicy(overhead=0.0), clock=lambda: now)
    now = 1e9
    assert not run.handle.due
    assert not run.handle.affordable
