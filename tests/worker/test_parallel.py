"""A slot of several devices, in a real worker: no rank of a training outlives its executor, and a lost one is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from cluster import Cluster
from processes import eventually
from trainings import CNN

pytest.importorskip("torch")

pytestmark = [pytest.mark.torch, pytest.mark.slow]

CONFIG = {
    "num_epochs": 10_000,
    "batch_size": 256,
    "dataset": "trainings:blobs",
    "extra": {"threads": "1", "checkpoint_every_epochs": "1"},
}


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = await asyncio.to_thread(Cluster, tmp_path)
    try:
        yield made
    finally:
        await made.destroy()


def ranks_of(executor: psutil.Process) -> list[psutil.Process]:
    """Its other ranks."""
    return [child for child in executor.children() if "spawn_main" in " ".join(child.cmdline())]


async def test_ranks_end_with_their_executor_and_an_executor_goes_on_without_a_lost_rank(cluster: Cluster) -> None:
    worker = await cluster.add_worker("w", evaluator="tenure.worker.torch_eval:evaluate", cpu_ranks_per_slot=2)
    search = cluster.client.search("parallel")
    handle = await asyncio.to_thread(search.submit, CNN, CONFIG, requirements={"gpus": 2}, max_attempts=2)

    async def trains(epoch: int) -> psutil.Process:
        def look() -> psutil.Process | None:
            record = handle.record()
            if record.epoch != epoch or record.checkpoint is None or record.checkpoint.epoch != epoch:
                return None
            return worker.executors()[0]

        return await eventually(lambda: asyncio.to_thread(look), 120, f"a checkpoint in epoch {epoch}")

    executor = await trains(1)
    ranks = await asyncio.to_thread(ranks_of, executor)
    assert len(ranks) == 1
    executor.kill()
    await eventually(lambda: not any(rank.is_running() for rank in ranks), what="the ranks' end")

    executor = await trains(2)
    (rank,) = await asyncio.to_thread(ranks_of, executor)
    rank.kill()
    # Another attempt, in the same executor.
    assert (await trains(3)).pid == executor.pid
    await asyncio.to_thread(handle.cancel)
    await eventually(lambda: asyncio.to_thread(handle.done))
    records = (await asyncio.to_thread(lambda: handle.record(full=True))).attempt_records
    assert [record.outcome for record in records] == ["loss", "failure", "release"]
    assert records[1].error_class == "RankDied"
    assert "rank 1 of the training was killed by SIGKILL" in records[1].error_message
    assert records[1].steps_start > 0
    assert await asyncio.to_thread(ranks_of, executor) == []
