"""Seeded chaos: masters, stores, workers and executors of a working cluster are killed, paused and drained.

``make chaos`` runs more seeds; a failing one prints its history and how to replay it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from chaos_schedule import WORKERS, Chaos, check_invariants
from cluster import Cluster

pytestmark = pytest.mark.chaos


def seeds() -> list[int]:
    """``TENURE_CHAOS_SEEDS``: one seed, or a range ``1-50``."""
    first, _, last = os.environ.get("TENURE_CHAOS_SEEDS", "1-2").partition("-")
    return list(range(int(first), int(last or first) + 1))


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path, grace_seconds=1)
    try:
        yield made
    finally:
        await made.destroy()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", seeds())
async def test_nothing_is_lost_and_nothing_is_taken_twice(cluster: Cluster, seed: int) -> None:
    chaos = Chaos(cluster, seed)
    for _ in range(WORKERS):
        await chaos.add_worker()
    extra = {"steps": "10", "seconds": "1.5", "checkpoint": "3"}
    task_ids = await cluster.submit("chaos", [str(number) for number in range(40)], extra)
    await chaos.run(faults=8)
    await check_invariants(chaos, task_ids)
