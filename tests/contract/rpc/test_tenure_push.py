"""A real Tenure worker that is pushed to (``--dispatch push``) by a real master: the same promises as on a stream."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster import HEARTBEAT_SECONDS, Cluster
from processes import eventually, start_master
from raw_peers import OpenBroker
from store_server import StoreServer
from tcp_relay import TcpRelay
from worker_process import WorkerProcess

from tenure.proto import tenure_pb2


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A master; workers are added by the test."""
    made = await asyncio.to_thread(Cluster, tmp_path)
    try:
        yield made
    finally:
        await made.destroy()


async def test_every_slot_is_used_and_a_killed_master_costs_nothing(cluster: Cluster) -> None:
    worker = await cluster.add_worker("pushed", dispatch="push", slots=2)
    task_ids = await cluster.submit("s", [str(n) for n in range(12)], {"steps": "4", "seconds": "0.5"})
    await eventually(lambda: len(cluster.journal("end")) >= 3)
    await asyncio.to_thread(cluster.master.kill)
    # What ran goes on, ends, and waits on the worker's disk. By the eighth attempt the worker's pauses are longest.
    await eventually(lambda: any(line["attempts"] == 8 for line in worker.log_lines("session.unreachable")))
    await asyncio.to_thread(cluster.master.restart)
    await cluster.all_ended("s")
    records = await cluster.records(task_ids)
    assert {record.state for record in records.values()} == {"SUCCEEDED"}
    assert cluster.starts() == dict.fromkeys(task_ids, 1), cluster.explain()
    # What was claimed and never reached the worker went back: another epoch, no budget.
    assert {(record.attempts, record.losses) for record in records.values()} == {(0, 0)}
    assert await cluster.fsck() == []
    running = most = 0
    for line in cluster.journal():
        running += {"start": 1, "end": -1}.get(line["event"], 0)
        most = max(most, running)
    assert most == 2


async def test_a_cancel_stops_the_evaluation(cluster: Cluster) -> None:
    await cluster.add_worker("pushed", dispatch="push")
    (task_id,) = await cluster.submit("s", ["long"], {"steps": "600", "seconds": "60"})
    await eventually(lambda: cluster.journal("step"))
    await asyncio.to_thread(cluster.client.cancel_tasks, [task_id])
    await cluster.all_ended("s")
    record = (await cluster.records([task_id]))[task_id]
    assert (record.state, record.attempts, record.losses) == ("CANCELLED", 0, 0)
    # Its slot is free again.
    (second,) = await cluster.submit("s", ["short"], {"steps": "1", "seconds": "0.1"})
    await cluster.all_ended("s")
    assert (await cluster.records([second]))[second].state == "SUCCEEDED"


async def test_a_killed_pushed_worker_is_a_loss_and_its_successor_goes_on(cluster: Cluster) -> None:
    victim = await cluster.add_worker("pushed", dispatch="push")
    gate = cluster.root / "gate"
    extra = {"steps": "10", "seconds": "0.5", "checkpoint": "2", "gate": str(gate), "gate_step": "6"}
    (task_id,) = await cluster.submit("s", ["long"], extra)
    await eventually(lambda: cluster.journal("gate"))
    await victim.destroy()
    gate.touch()
    await cluster.add_worker("heir")
    await cluster.all_ended("s")
    record = (await cluster.records([task_id]))[task_id]
    assert (record.state, record.attempts, record.losses, record.worker_id) == ("SUCCEEDED", 0, 1, "heir")
    assert cluster.starts()[task_id] == 2


async def test_masters_that_hang_cost_no_lease_while_another_serves(tmp_path: Path, open_broker: OpenBroker) -> None:
    """One is stopped, the next accepts and says nothing: both are left while the lease still has time."""
    server = await asyncio.to_thread(StoreServer(tmp_path / "store").start)
    settings = {"store": server.url, "data_dir": None, "lease_ttl_seconds": 8}
    cluster = await asyncio.to_thread(Cluster, tmp_path, **settings)
    spare = await asyncio.to_thread(start_master, tmp_path / "spare", heartbeat_seconds=HEARTBEAT_SECONDS, **settings)
    try:
        async with TcpRelay(int(spare.address.rpartition(":")[2])) as hole:
            hole.swallowing = True
            masters = ",".join((cluster.master.address, hole.address, spare.address))
            worker = cluster.workers["pushed"] = WorkerProcess(tmp_path, "pushed")
            await worker.start(masters, dispatch="push")
            (task_id,) = await cluster.submit("s", ["long"], {"steps": "12", "seconds": "12"})
            await eventually(lambda: cluster.journal("step"))
            cluster.master.signal(signal.SIGSTOP)
            await eventually(lambda: len(worker.log_lines("session.up")) == 2, what="the spare master")
            broker = open_broker(spare.address)
            found = await broker.until(task_id, tenure_pb2.SUCCEEDED)
        assert (found.epoch, found.losses, cluster.starts()[task_id]) == (1, 0, 1), cluster.explain()
        # It wasn't even lost for a while.
        assert spare.logged("task.expire") == []
        assert await broker.fsck() == []
    finally:
        cluster.master.signal(signal.SIGCONT)
        await cluster.destroy()
        spare.remove()
        server.remove()
