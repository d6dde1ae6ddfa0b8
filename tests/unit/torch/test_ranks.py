"""The processes of a training over several devices: what ends them, and what their ends are told as."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator

import psutil
import pytest
import rank_mains
from processes import wait_for

torch = pytest.importorskip("torch")

from tenure.worker.torch_eval.ranks import RankDied, Ranks  # noqa: E402

pytestmark = pytest.mark.torch

Start = Callable[..., Ranks]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Ranks] = []

    def make(count: int, main: Callable[..., None]) -> Ranks:
        started.append(Ranks(count, main, ()))
        return started[-1]

    yield make
    for ranks in started:
        ranks.close()
    assert multiprocessing.active_children() == []


def test_each_hears_and_answers_and_leaves_when_it_is_closed(start: Start) -> None:
    ranks = start(3, rank_mains.echo)
    processes = [psutil.Process(pid) for pid in ranks.pids]
    ranks.tell("this")
    assert ranks.hear() == [b"1 this", b"2 this"]
    ranks.tell("that")
    assert ranks.hear() == [b"1 that", b"2 that"]
    ranks.close()
    assert not any(process.is_running() for process in processes)


def test_what_a_rank_raises_is_raised_with_its_number(start: Start) -> None:
    ranks = start(3, rank_mains.fail)
    ranks.tell("something")
    with pytest.raises(RankDied, match="rank 2 of the training failed: ValueError: as asked"):
        ranks.hear()


def test_a_rank_without_memory_counts_as_out_of_memory(start: Start) -> None:
    with pytest.raises(torch.OutOfMemoryError, match="rank 1 of the training failed: MemoryError"):
        start(2, rank_mains.exhaust).hear()


def test_a_killed_rank_is_told_by_its_signal(start: Start) -> None:
    ranks = start(2, rank_mains.be_killed)
    ranks.tell("end")
    with pytest.raises(RankDied, match="rank 1 of the training was killed by SIGKILL"):
        ranks.hear()
    # So is a collective that fails because of it.
    with pytest.raises(RankDied, match="rank 1 of the training was killed by SIGKILL"), ranks.watched():
        raise RuntimeError("Connection closed by peer")


def test_a_deaf_rank_is_killed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.worker.torch_eval.ranks._LEAVE_SECONDS", 0.1)
    ranks = start(2, rank_mains.hang)
    assert ranks.hear() == [b"deaf"]
    (process,) = [psutil.Process(pid) for pid in ranks.pids]
    ranks.close()
    wait_for(lambda: not process.is_running(), what="the end of the rank")


def test_a_rank_0_that_waits_for_a_dead_one_for_ever_ends_and_says_why(
    start: Start, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As NCCL may. Here the end is only noted: it would be that of the tests."""
    ended = threading.Event()
    monkeypatch.setattr("tenure.worker.torch_eval.ranks._NOTICE_SECONDS", 0.1)
    monkeypatch.setattr("os._exit", lambda code: ended.set())
    ranks = start(2, rank_mains.be_killed)
    ranks.tell("end")
    (process,) = [psutil.Process(pid) for pid in ranks.pids]
    wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    # Elsewhere than in a collective it may take its time.
    assert not ended.wait(1)
    with ranks.watched():
        assert ended.wait(30)
    assert "rank 1 of the training has ended; rank 0 waits for it for ever" in capfd.readouterr().err
