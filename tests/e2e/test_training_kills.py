"""A real training on real workers, killed with SIGKILL wherever it happens to be: not a bit of its end differs.

Two workers share the checkpoints. Each kill hits the executor, or the whole worker that has the task, after a random
number of batches of that run: within a batch, in validation, while a checkpoint is being written. ``TENURE_TEST_SEED``
gives other places, ``TENURE_TEST_KILLS`` more of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("torch")

from cluster import Cluster
from interruptions import end_of
from processes import eventually
from trainings import STATEFUL, task_of
from worker_process import WorkerProcess

from tenure.worker.evaluator import MemoryContext, Result
from tenure.worker.torch_eval import evaluate

pytestmark = [pytest.mark.torch, pytest.mark.chaos]

SEED = int(os.environ.get("TENURE_TEST_SEED", "1"))
KILLS = int(os.environ.get("TENURE_TEST_KILLS", "24"))
WORKER = {"evaluator": "watched_training:evaluate"}
# Twelve batches and two of validation.
LOOKS_IN_AN_EPOCH = 14
# Everything that has a state or an order, and checkpoints within epochs, so that a kill may come while one is written.
EXTRA = {
    "optimizer": "adamw",
    "schedule": "cosine",
    "warmup_epochs": "2",
    "augment": "shift",
    "precision": "bfloat16",
    "micro_batches": "2",
    "checkpoint_every_seconds": "0.2",
}


def training(epochs: int) -> Any:
    return task_of(STATEFUL, EXTRA, num_epochs=epochs, batch_size=128, dataset="trainings:blobs")


class Killer:
    """Kills what holds the task, again and again; brings killed workers back."""

    def __init__(self, cluster: Cluster, draw: random.Random) -> None:
        self.places: list[tuple[str, int]] = []
        self._cluster = cluster
        self._draw = draw
        self._seen = 0
        self._returning: list[asyncio.Task[Any]] = []

    async def kill_once(self) -> None:
        """Wait for a run that has done so many looks since the last kill, and end it."""
        epoch = max((line["epoch"] for line in self._looks()), default=0) + (self._seen > 0)
        count = self._draw.randint(1, 2 * LOOKS_IN_AN_EPOCH)
        lines = await eventually(
            lambda: len(fresh := [one for one in self._looks() if one["epoch"] >= epoch]) >= count and fresh,
            deadline=90,
            what=f"{count} looks of a run after epoch {epoch}: {self._cluster.explain()}",
        )
        self._seen += 1
        pid = lines[-1]["pid"]
        holder = self._holder(pid)
        if self._draw.random() < 0.5:
            self.places.append((f"executor of {holder.name}", len(lines)))
            os.kill(pid, signal.SIGKILL)
        else:
            self.places.append((holder.name, len(lines)))
            os.killpg(holder.pid, signal.SIGKILL)
            await holder.wait()
            self._returning.append(asyncio.create_task(holder.start(self._cluster.master.address, **WORKER)))

    async def settle(self) -> None:
        """Every worker is back."""
        await asyncio.gather(*self._returning)

    def _looks(self) -> list[dict[str, Any]]:
        return self._cluster.journal("look")

    def _holder(self, pid: int) -> WorkerProcess:
        parent = psutil.Process(pid).ppid()
        return next(worker for worker in self._cluster.workers.values() if worker.pid == parent)


async def killed_and_ended(cluster: Cluster, epochs: int, kills: int) -> Result:
    """The result of a training that was killed so often."""
    draw = random.Random(SEED)
    for name in ("one", "two"):
        await cluster.add_worker(name, **WORKER)
    task = training(epochs)
    search = cluster.client.search("search")
    budgets = {"max_losses": 1000, "max_attempts": 1}
    handle = await asyncio.to_thread(search.submit, task.architecture, task.config, **budgets)
    killer = Killer(cluster, draw)
    try:
        for _ in range(kills):
            await killer.kill_once()
        await cluster.all_ended("search")
    finally:
        sys.stdout.write(f"TENURE_TEST_SEED={SEED}: {json.dumps(killer.places)}\n")
        await killer.settle()
    record = (await cluster.records([handle.task_id]))[handle.task_id]
    assert record.state == "SUCCEEDED", cluster.explain()
    assert (record.attempts, record.losses, record.out_of_memory) == (0, kills, 0)
    assert len({(one.worker_id) for one in record.attempt_records}) == 2
    assert await cluster.fsck() == []
    return Result(record.metrics, record.detail)


async def assert_as_undisturbed(cluster: Cluster, epochs: int, kills: int, tmp_path: Path) -> None:
    ended = await killed_and_ended(cluster, epochs, kills)
    assert ended.metrics["resumed_from"] > 0, "nothing was resumed"
    expected = await asyncio.to_thread(evaluate, training(epochs), MemoryContext(tmp_path))
    assert end_of(ended) == end_of(expected)


async def test_killed_a_few_times_across_two_workers(cluster: Cluster, tmp_path: Path) -> None:
    await assert_as_undisturbed(cluster, epochs=9, kills=3, tmp_path=tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_killed_many_times_across_two_workers(cluster: Cluster, tmp_path: Path) -> None:
    await assert_as_undisturbed(cluster, epochs=3 * KILLS, kills=KILLS, tmp_path=tmp_path)
