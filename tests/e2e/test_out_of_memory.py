"""Memory runs out, under real limits: tried again in smaller parts, or on a larger slot; ended by the kernel."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ballast
import pytest
from cluster import ARCHITECTURE, Cluster
from graphs import chain, node, text
from processes import wait_for
from worker_process import WorkerProcess

from tenure.client import RetryPolicy
from tenure.client.cli.task_page import print_task
from tenure.common.estimate import estimate
from tenure.worker import host_memory

ROWS = 1024
# Wide, cheap, and each relu keeps its result for the gradient.
GRAPH = chain(
    node("wide", "conv2d", filters=128, kernel_size=1, padding=0),
    *(node(f"r{number}", "relu") for number in range(12)),
    node("pool", "avgpool", pool_size=8),
    node("out", "dense", units=10),
)


CONFIG = {"num_epochs": 1, "batch_size": ROWS, "dataset": "digits", "extra": {"threads": "1"}}


@pytest.mark.torch
async def test_a_training_that_ran_out_of_memory_succeeds_in_smaller_parts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = estimate(text(GRAPH), (1, 8, 8), 10)
    whole, halved = cost.training_bytes(ROWS), cost.training_bytes(ROWS, 2)
    # Enough for two parts and what the kernels and the allocator take for themselves, but not for one.
    leaves = halved * 3 // 2 + 64 * 2**20
    monkeypatch.setenv(ballast.LEAVES_ENV, str(leaves))
    assert whole + 32 * 2**20 > leaves
    await cluster.add_worker("w", evaluator="ballast:evaluate", executor_memory_max=str(whole + 2**30))
    search = cluster.client.search("memory", retry=RetryPolicy(base_ms=0, max_ms=0))
    (handle,) = await asyncio.to_thread(search.submit_many, [{"architecture": GRAPH, "config": CONFIG}])
    await cluster.all_ended("memory", 180)
    divided = (await cluster.records([handle.task_id]))[handle.task_id]

    assert divided.state == "SUCCEEDED", cluster.explain()
    # One more where the machine's libraries need more for themselves.
    assert divided.out_of_memory in (1, 2)
    assert (divided.attempts, divided.losses) == (0, 0)
    *failed, last = divided.attempt_records
    assert [one.outcome for one in failed] == ["out_of_memory"] * divided.out_of_memory
    assert last.outcome == "success"
    for tried, record in enumerate((*failed, last)):
        assert (record.memory.batch_size, record.memory.micro_batches) == (ROWS, 2**tried)
        assert 0 < record.memory.estimated_bytes < record.memory.limit_bytes
        assert 0 < record.memory.peak_bytes < whole + 2**30
    for record in failed:
        assert record.error_class == "RuntimeError"
        assert "can't allocate memory" in record.error_message

    print_task(divided)
    shown = capsys.readouterr().out
    assert f"batches of {ROWS}\n" in shown
    assert f"batches of {ROWS} in {last.memory.micro_batches} parts\n" in shown
    (replaced, *_) = [line for line in json_lines(cluster) if line["event"] == "executor.replaced"]
    assert replaced["reason"] == "out_of_memory"
    assert await cluster.fsck() == []


async def test_a_task_goes_to_a_slot_with_more_memory(cluster: Cluster) -> None:
    """It waits for one: the small slot, which is free, is not given it again."""
    wanted = 300 * 2**20
    await cluster.add_worker("small", evaluator="ballast:hungry", executor_memory_max="200MiB")
    search = cluster.client.search("hungry", retry=RetryPolicy(base_ms=0, max_ms=0))
    config = {"extra": {"bytes": str(wanted)}}
    one, other = await asyncio.to_thread(
        search.submit_many,
        [
            {"architecture": ARCHITECTURE, "config": config},
            # Behind it in the queue: once it has ended, the small slot has looked for tasks again.
            {"architecture": ARCHITECTURE, "config": {"extra": {"bytes": "1000"}}},
        ],
    )
    await asyncio.to_thread(other.result, 60)
    task = (await cluster.records([one.task_id]))[one.task_id]
    assert task.state == "QUEUED"
    assert task.requirements.memory_bytes >= wanted
    await cluster.add_worker("large", evaluator="ballast:hungry", executor_memory_max="1GiB")
    await cluster.all_ended("hungry")
    task = (await cluster.records([one.task_id]))[one.task_id]
    assert [(each.worker_id, each.outcome) for each in task.attempt_records] == [
        ("small", "out_of_memory"),
        ("large", "success"),
    ]
    assert task.attempt_records[0].memory.estimated_bytes == wanted
    workers = await asyncio.to_thread(lambda: list(cluster.client.workers()))
    assert {each.worker_id: each.slot_memory_bytes for each in workers} == {"small": 200 * 2**20, "large": 2**30}
    assert await cluster.fsck() == []


JOIN = """
import os, runpy, sys
open(sys.argv[1], "w").write(str(os.getpid()))
runpy.run_module("tenure.worker", None, "__main__")
"""


@pytest.fixture
def memory_cgroup() -> Iterator[Path]:
    """A cgroup of 200 MiB without swap, where this process may make one."""
    parents = [directory for directory, _ in host_memory._memory_cgroups(Path("/proc"), Path("/sys/fs/cgroup"))]
    if not parents:
        pytest.skip("no memory cgroup")
    made = parents[0] / f"tenure-test-{os.getpid()}"
    limit = "memory.max" if (parents[0] / "memory.events").exists() else "memory.limit_in_bytes"
    try:
        made.mkdir()
        # Of the second version only where the parent hands the controller down.
        if not (made / limit).exists():
            made.rmdir()
            pytest.skip("no memory controller for cgroups of our own")
        (made / limit).write_text(str(200 * 2**20))
        for swap, none in (("memory.swap.max", "0"), ("memory.memsw.limit_in_bytes", str(200 * 2**20))):
            if (made / swap).exists():
                (made / swap).write_text(none)
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    yield made
    wait_for(lambda: not (made / "cgroup.procs").read_text().split(), what="an empty cgroup")
    made.rmdir()


async def test_an_executor_that_the_kernel_killed_was_out_of_memory(tmp_path: Path, memory_cgroup: Path) -> None:
    """By a real kernel: the worker lives in a cgroup with less memory than its evaluation takes."""
    cluster = Cluster(tmp_path)
    try:
        worker = cluster.workers["boxed"] = WorkerProcess(tmp_path, "boxed")
        worker.program = ("-c", JOIN, str(memory_cgroup / "cgroup.procs"))
        await worker.start(cluster.master.address, evaluator="ballast:hungry")
        config = {"extra": {"bytes": str(400 * 2**20)}}
        task = {"architecture": ARCHITECTURE, "config": config, "max_out_of_memory": 1}
        (handle,) = await asyncio.to_thread(cluster.client.search("boxed").submit_many, [task])
        await cluster.all_ended("boxed")
        ended = (await cluster.records([handle.task_id]))[handle.task_id]
        assert (ended.state, ended.out_of_memory, ended.losses) == ("FAILED", 1, 0), cluster.explain()
        (record,) = ended.attempt_records
        assert (record.outcome, record.error_class) == ("out_of_memory", "ExecutorOutOfMemory")
        assert record.exit_signal == signal.SIGKILL
        assert "the kernel killed it for want of memory" in record.error_message
        assert record.memory.estimated_bytes == 400 * 2**20
    finally:
        await cluster.destroy()


def json_lines(cluster: Cluster) -> list[dict[str, Any]]:
    return [json.loads(line) for line in cluster.workers["w"].log_text().splitlines() if line.startswith("{")]
