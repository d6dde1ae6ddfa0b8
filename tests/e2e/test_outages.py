"""Whole systems whose parts are killed in the middle of a search: what the README promises, on real processes."""

from __future__ import annotations

import asyncio
import os
import signal

from cluster import LEASE_SECONDS, Cluster
from processes import eventually

# Longer than a lease: only the lease clock keeps the running evaluations theirs. The acceptance run uses 60.
OUTAGE_SECONDS = float(os.environ.get("TENURE_TEST_OUTAGE_SECONDS", LEASE_SECONDS + 2))
TASKS = int(os.environ.get("TENURE_TEST_OUTAGE_TASKS", "40"))


async def ended(cluster: Cluster, count: int) -> None:
    await eventually(lambda: len(cluster.journal("end")) >= count, 60, f"{count} evaluations ended")


async def assert_undisturbed(cluster: Cluster, task_ids: list[str]) -> None:
    """Every task succeeded, each evaluation was started once, and no budget was touched.

    A lease that was given when the master died and never reached its worker is given back and given again: the task's
    epoch may be 2, but its evaluation was started once all the same.
    """
    records = await cluster.records(task_ids)
    assert {record.state for record in records.values()} == {"SUCCEEDED"}, cluster.explain()
    assert cluster.starts() == dict.fromkeys(task_ids, 1)
    assert {(record.attempts, record.losses) for record in records.values()} == {(0, 0)}
    assert (await cluster.counters()).get("leases_expired", 0) == 0
    assert await cluster.fsck() == []


async def test_master_killed_for_longer_than_a_lease(cluster: Cluster) -> None:
    await cluster.add_worker("one")
    await cluster.add_worker("two", slots=2)
    keys = [str(number) for number in range(TASKS)]
    task_ids = await cluster.submit("search", keys, {"steps": "4", "seconds": "0.4"})
    await ended(cluster, 5)

    cluster.master.kill()
    done_before = len(cluster.journal("end"))
    await asyncio.sleep(OUTAGE_SECONDS)
    # What was running has ended meanwhile and waits in the workers' spools; nothing else was given out.
    assert len(cluster.journal("end")) <= done_before + 3
    cluster.master.restart()

    await cluster.all_ended("search")
    await assert_undisturbed(cluster, task_ids)


async def test_evaluation_longer_than_the_outage_keeps_its_lease(cluster: Cluster) -> None:
    await cluster.add_worker("one")
    gate = cluster.root / "gate"
    (task_id,) = await cluster.submit("search", ["long"], {"steps": "2", "gate": str(gate), "gate_step": "1"})
    await eventually(lambda: cluster.journal("gate"))

    cluster.master.kill()
    await asyncio.sleep(OUTAGE_SECONDS)
    cluster.master.restart()
    gate.touch()

    await cluster.all_ended("search")
    await assert_undisturbed(cluster, [task_id])


async def test_store_killed_under_the_master(cluster: Cluster) -> None:
    await cluster.add_worker("one", slots=2)
    keys = [str(number) for number in range(TASKS)]
    task_ids = await cluster.submit("search", keys, {"steps": "2", "seconds": "0.2"})
    await ended(cluster, 5)

    for _ in range(3):
        pid = cluster.master.store_pid
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda killed=pid: cluster.master.store_pid != killed, what="a new store")
        await ended(cluster, min(TASKS, len(cluster.journal("end")) + 3))

    await cluster.all_ended("search")
    await assert_undisturbed(cluster, task_ids)


async def test_killed_workers_task_goes_on_elsewhere_from_its_checkpoint(cluster: Cluster) -> None:
    victim = await cluster.add_worker("victim")
    # Past a checkpoint by a few steps, so that there is something to lose and something to keep.
    gate = cluster.root / "gate"
    extra = {"steps": "50", "seconds": "1", "checkpoint": "5", "gate": str(gate), "gate_step": "12"}
    (task_id,) = await cluster.submit("search", ["long"], extra)
    await eventually(lambda: cluster.journal("gate"))
    await cluster.add_worker("heir")
    pids = [victim.pid, *(child.pid for child in victim.executors())]

    os.killpg(victim.pid, signal.SIGKILL)
    await victim.wait()
    gate.touch()
    second = await eventually(lambda: [*cluster.journal("start"), None, None][1], what="the second start")

    assert second["epoch"] == 2
    assert second["resumed_from"] == 10
    assert second["pid"] not in pids
    await cluster.all_ended("search")
    record = (await cluster.records([task_id]))[task_id]
    assert (record.state, record.attempts, record.losses, record.worker_id) == ("SUCCEEDED", 0, 1, "heir")
    assert [each.outcome for each in record.attempt_records] == ["expired", "success"]
    steps = [(line["epoch"], line["step"]) for line in cluster.journal("step")]
    assert sum(epoch == 2 for epoch, _ in steps) == 50 - second["resumed_from"]
    assert await cluster.fsck() == []


async def test_drained_worker_hands_its_task_on_and_burns_nothing(cluster: Cluster) -> None:
    first = await cluster.add_worker("first")
    gate = cluster.root / "gate"
    extra = {"steps": "40", "seconds": "1", "checkpoint": "1", "gate": str(gate), "gate_step": "5"}
    (task_id,) = await cluster.submit("search", ["long"], extra)
    await eventually(lambda: cluster.journal("gate"))
    await cluster.add_worker("second")

    first.signal(signal.SIGTERM)
    assert await first.wait() == 0
    gate.touch()

    await cluster.all_ended("search")
    record = (await cluster.records([task_id]))[task_id]
    assert (record.state, record.attempts, record.losses, record.worker_id) == ("SUCCEEDED", 0, 0, "second")
    assert [each.outcome for each in record.attempt_records] == ["release", "success"]
    assert len({(line["step"]) for line in cluster.journal("step")}) == len(cluster.journal("step")) == 40
    assert await cluster.fsck() == []


async def test_search_program_outlives_its_masters(cluster: Cluster) -> None:
    await cluster.add_worker("one")
    search = cluster.client.search("search")
    task_ids = await cluster.submit("search", [str(n) for n in range(12)], {"steps": "1", "seconds": "0.3"})

    def collect() -> list[str]:
        return [handle.task_id for handle in search.as_completed([search.handle(each) for each in task_ids])]

    collecting = asyncio.create_task(asyncio.to_thread(collect))
    await ended(cluster, 3)
    cluster.master.kill()
    await asyncio.sleep(1)
    cluster.master.restart()
    assert sorted(await collecting) == sorted(task_ids)


async def test_cancel_reaches_the_running_evaluation(cluster: Cluster) -> None:
    await cluster.add_worker("one")
    (task_id,) = await cluster.submit("search", ["long"], {"steps": "600", "seconds": "60"})
    await eventually(lambda: cluster.journal("step"))
    await asyncio.to_thread(cluster.client.cancel_tasks, [task_id])
    await eventually(lambda: cluster.journal("stopped"), what="the evaluation stopped")
    await cluster.all_ended("search")
    record = (await cluster.records([task_id]))[task_id]
    assert (record.state, record.attempts, record.losses) == ("CANCELLED", 0, 0)
