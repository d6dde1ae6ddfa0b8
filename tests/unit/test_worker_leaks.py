"""When an executor has gathered too much, and what is cleared away of the GPU's memory."""

from __future__ import annotations

import gc
import mmap
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tenure.worker.executor import cleanup
from tenure.worker.slots.leaks import THREADS_LEFT_MAX, LeakWatch, Leftovers


def test_growth_counts_from_the_first_runs_on() -> None:
    watch = LeakWatch(1000)
    sizes = (100, 5000, 5900, 6000, 4000)
    assert [watch.judge(Leftovers(resident_bytes=size)) for size in sizes] == [""] * 5
    assert watch.judge(Leftovers(resident_bytes=6001)) == "host_memory_leak"
    assert watch.grown_bytes == 1001


@pytest.mark.skipif(sys.platform != "linux", reason="watched on Linux")
def test_shared_memory_that_is_kept_counts() -> None:
    before = cleanup._resident_bytes_of(os.getpid())
    with mmap.mmap(-1, 32 << 20) as shared:
        shared.write(b"x" * len(shared))
        grown = cleanup._resident_bytes_of(os.getpid()) - before
    assert 32 << 20 <= grown < 80 << 20
    assert cleanup._resident_bytes_of(2**31 - 1) == 0, "who is gone has none"


def test_without_a_limit_memory_may_grow() -> None:
    watch = LeakWatch(0)
    assert [watch.judge(Leftovers(resident_bytes=10**size)) for size in range(15)] == [""] * 15


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (Leftovers(gpu_bytes=1), "gpu_memory_leak"),
        (Leftovers(processes=("1 python",)), "processes_left"),
        (Leftovers(threads_left=THREADS_LEFT_MAX), ""),
        (Leftovers(threads_left=THREADS_LEFT_MAX + 1), "threads_left"),
    ],
)
def test_an_executor_that_has_gathered_too_much_goes(left: Leftovers, reason: str) -> None:
    assert LeakWatch(0).judge(left) == reason


@pytest.mark.parametrize("nonsense", [None, "x", -1, 1.5, {"a": 1}, [{"a": 1}] * 100])
def test_nonsense_from_an_executor_does_no_harm(nonsense: Any) -> None:
    fields = ("leaked_bytes", "resident_bytes", "processes", "threads", "threads_left")
    left = Leftovers.of(dict.fromkeys(fields, nonsense))
    assert (left.gpu_bytes, left.resident_bytes, left.threads_left) == (0, 0, 0)
    assert len(left.processes) <= 20
    assert all(isinstance(one, str) for one in left.processes + left.threads)


@pytest.fixture
def thawed() -> Iterator[None]:
    """What a cleanup has frozen is this test's process."""
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("thawed")
def test_memory_of_every_gpu_of_the_slot_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {0: 100, 1: cleanup.GPU_LEAK_BYTES}
    emptied: list[bool] = []
    cuda = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        empty_cache=lambda: emptied.append(True),
        device_count=lambda: 2,
        memory_allocated=held.__getitem__,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert cleanup.Cleanup().after_run()["leaked_bytes"] == cleanup.GPU_LEAK_BYTES + 100
    held[1] = cleanup.GPU_LEAK_BYTES - 100
    assert cleanup.Cleanup().after_run()["leaked_bytes"] == 0, "not more than a library keeps"
    assert emptied
