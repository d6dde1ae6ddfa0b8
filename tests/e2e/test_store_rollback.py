"""The store's machine is lost and an older copy of its files put in its place, while workers train on."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from cluster import Cluster
from processes import eventually
from store_server import StoreServer


async def test_an_older_copy_of_the_store_costs_no_running_evaluation(tmp_path: Path) -> None:
    server = StoreServer(tmp_path / "store").start()
    cluster = Cluster(tmp_path / "cluster", store=server.url, data_dir=None)
    try:
        await cluster.add_worker("one", slots=3)
        gate = tmp_path / "gate"
        long = {"steps": "10", "checkpoint": "4", "gate": str(gate), "gate_step": "5"}
        (held,) = await cluster.submit("search", ["held"], long)
        await eventually(lambda: cluster.journal("gate", held))
        shutil.copytree(server.folder, tmp_path / "copy")

        (submitted_since,) = await cluster.submit("search", ["submitted since"], long)
        (done_since,) = await cluster.submit("search", ["done since"], {"steps": "1", "seconds": "0.1"})
        await eventually(lambda: cluster.journal("gate", submitted_since))
        await eventually(lambda: cluster.journal("end", done_since))
        done = asyncio.to_thread(cluster.client.search("search").handle(done_since).result, 30)
        assert (await done).worker_id == "one"

        server.kill()
        shutil.rmtree(server.folder)
        shutil.copytree(tmp_path / "copy", server.folder)
        await asyncio.to_thread(server.start)
        await eventually(lambda: cluster.master.logged("task.orphan", task=submitted_since))

        # The search program submits again what it has submitted; the broker knows one of the three.
        assert await cluster.submit("search", ["held"], long) == [held]
        assert await cluster.submit("search", ["submitted since"], long) == [submitted_since], "under its old id"
        (again,) = await cluster.submit("search", ["done since"], {"steps": "1", "seconds": "0.1"})
        gate.touch()
        await cluster.all_ended("search")

        records = await cluster.records([held, submitted_since, again])
        assert {record.state for record in records.values()} == {"SUCCEEDED"}, cluster.explain()
        assert {(record.attempts, record.losses) for record in records.values()} == {(0, 0)}
        starts = cluster.starts()
        assert (starts[held], starts[submitted_since]) == (1, 1)
        assert starts[done_since] + (starts[again] if again != done_since else 0) == 2, "acknowledged, and lost"
        assert len(cluster.master.logged("store.rolled_back")) == 1
        counters = await cluster.counters()
        assert (counters.get("leases_expired", 0), counters["orphans_matched"]) == (0, 1)
        assert "tenure_store_rollbacks_total 1.0" in cluster.master.get("/metrics")[1]
        assert await cluster.fsck() == []
    finally:
        await cluster.destroy()
        server.remove()
