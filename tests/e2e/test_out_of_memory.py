"""A real training runs out of memory under a limit, is tried again in smaller parts, and succeeds."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import ballast
import pytest
from cluster import ARCHITECTURE, Cluster
from graphs import chain, node, text

from tenure.client import RetryPolicy
from tenure.client.cli.task_page import print_task
from tenure.common.estimate import estimate

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
    assert await cluster.fsck() == []


def json_lines(cluster: Cluster) -> list[dict[str, Any]]:
    return [json.loads(line) for line in cluster.workers["w"].log_text().splitlines() if line.startswith("{")]
