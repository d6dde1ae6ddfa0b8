"""A running search whose store fails over: everything ends once, and no lease is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cluster import Cluster
from processes import eventually
from sentinel import SentinelStore


@pytest_asyncio.fixture
async def sentinels(tmp_path: Path) -> AsyncIterator[SentinelStore]:
    made = SentinelStore(tmp_path / "s")
    try:
        yield await asyncio.to_thread(made.start)
    finally:
        made.remove()


@pytest.mark.slow
async def test_a_search_goes_on_when_the_primary_is_killed(sentinels: SentinelStore, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "c", store=sentinels.url, store_replicas=1)
    try:
        for name in ("w1", "w2"):
            await cluster.add_worker(name, slots=2)
        task_ids = await cluster.submit("s", [str(n) for n in range(16)], {"steps": "6", "seconds": "2"})
        await eventually(lambda: len(cluster.journal("start")) >= 4)
        await asyncio.to_thread(sentinels.fail_over)
        await cluster.all_ended("s")
        records = await cluster.records(task_ids)
        assert {record.state for record in records.values()} == {"SUCCEEDED"}
        assert [record.losses + record.attempts for record in records.values()] == [0] * 16
        assert set(cluster.starts().values()) == {1}, "no evaluation was started twice"
        assert await cluster.fsck() == []
    finally:
        await cluster.destroy()
