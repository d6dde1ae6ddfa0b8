"""A running search on a Redis Cluster that loses a primary: it comes back, or its replica takes over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cluster import Cluster
from processes import eventually
from store_cluster import ClusterStore


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("replicas", [0, 1], ids=["restarted", "replaced"])
async def test_searches_go_on_when_a_primary_is_killed(tmp_path: Path, replicas: int) -> None:
    nodes = ClusterStore(tmp_path / "n", replicas)
    try:
        await asyncio.to_thread(nodes.start)
        cluster = Cluster(tmp_path / "c", store=nodes.url, store_replicas=0)
        try:
            for name in ("w1", "w2"):
                await cluster.add_worker(name, slots=2)
            searches = [f"search-{number}" for number in range(6)]
            extra = {"steps": "6", "seconds": "1.5"}
            ids = {search: await cluster.submit(search, ["a", "b", "c"], extra) for search in searches}
            await eventually(lambda: len(cluster.journal("start")) >= 4)
            victim = nodes.primaries[1]
            victim.kill()
            if replicas == 0:
                await asyncio.sleep(5)  # longer than a lease
                await asyncio.to_thread(victim.start)
            for search in searches:
                await cluster.all_ended(search)
            if replicas == 1:
                await asyncio.to_thread(victim.start)
                await asyncio.to_thread(nodes.until_whole)
            for search in searches:
                records = await cluster.records(ids[search])
                assert {record.state for record in records.values()} == {"SUCCEEDED"}
                assert [record.losses + record.attempts for record in records.values()] == [0, 0, 0]
            assert await cluster.fsck() == []
        finally:
            await cluster.destroy()
    finally:
        nodes.remove()
