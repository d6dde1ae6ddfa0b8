"""MorphML 1.0's workers while masters, stores and results get lost. It never registers again, it heartbeats; it tells a
result once, and forgets it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import morphml
import pytest
import redis.asyncio
from morphml import messages as m
from morphml_worker import MakeWorker
from processes import MasterProcess, eventually
from raw_peers import Broker, OpenBroker, OpenSession, StartMaster

from tenure.proto import tenure_pb2, worker_pb2


async def lease_clock(broker: Broker) -> int:
    """In ms."""
    return int((await broker.api.GetStats(tenure_pb2.StatsRequest())).lease_clock_ms)


async def heartbeat_for(broker: Broker, seconds: float, *beats: Callable[[], Any]) -> None:
    """Heartbeat while so much passes on the lease clock."""
    end = await lease_clock(broker) + seconds * 1000

    async def over() -> bool:
        for beat in beats:
            await asyncio.to_thread(beat)
        await asyncio.sleep(0.2)
        return await lease_clock(broker) > end

    await eventually(over)


@pytest.mark.parametrize("way", ["kill", "terminate"])
async def test_a_master_that_goes_under_an_evaluation_costs_nothing(
    own_master: StartMaster, open_broker: OpenBroker, make_worker: MakeWorker, way: str
) -> None:
    master = await asyncio.to_thread(own_master, lease_ttl_seconds=3, heartbeat_seconds=0.5)
    (task_id,) = await open_broker(master.address).submit("s")
    worker = make_worker(master).start()
    worker.wait_for_request(1)
    await asyncio.to_thread(getattr(master, way))
    await asyncio.to_thread(master.restart)
    broker = open_broker(master.address)
    worker.heartbeat()
    await eventually(lambda: master.logged("push.taken_back", worker="w", running=[task_id]))
    # Its heartbeats are all that renews the lease: beyond the TTL.
    await heartbeat_for(broker, 4, worker.heartbeat)
    # More work, but not for it: nothing is pushed twice, and nothing beside what it runs.
    (second,) = await broker.submit("s")
    worker.heartbeat(status="idle")
    assert len(worker.requests) == 1
    worker.end(task_id)
    found = await broker.until(task_id, tenure_pb2.SUCCEEDED)
    assert (found.epoch, found.attempts, found.losses) == (1, 0, 0)
    worker.heartbeat()
    assert worker.wait_for_request(2).task_id == second
    worker.end(second)
    await broker.until(second, tenure_pb2.SUCCEEDED)
    assert worker.at_once_max == 1


async def test_a_result_that_no_master_heard_is_lost_and_the_task_runs_again(
    own_master: StartMaster, open_broker: OpenBroker, make_worker: MakeWorker
) -> None:
    """It says that it is idle: its lease isn't kept alive by that, not even while it runs other tasks."""
    master = await asyncio.to_thread(own_master, lease_ttl_seconds=3, heartbeat_seconds=0.5)
    (lost,) = await open_broker(master.address).submit("s")
    worker = make_worker(master).start()
    worker.wait_for_request(1)
    await asyncio.to_thread(master.kill)
    worker.end(lost, submit=False)
    await asyncio.to_thread(master.restart)
    broker = open_broker(master.address)
    worker.heartbeat()
    (other,) = await broker.submit("s")
    assert worker.wait_for_request(2).task_id == other

    async def lost_is_free() -> bool:
        await asyncio.to_thread(worker.heartbeat)
        return (await broker.task(lost)).state == tenure_pb2.QUEUED

    await eventually(lost_is_free)
    worker.end(other)
    assert worker.wait_for_request(3).task_id == lost
    worker.end(lost)
    found = await broker.until(lost, tenure_pb2.SUCCEEDED)
    assert (found.epoch, found.attempts, found.losses) == (2, 0, 1)


async def test_what_a_tenure_worker_does_not_name_goes_back_without_a_loss(
    own_master: StartMaster, open_broker: OpenBroker, make_worker: MakeWorker
) -> None:
    """One that is pushed to names its leases in each heartbeat; the others never reached it."""
    master = await asyncio.to_thread(own_master)
    broker = open_broker(master.address)
    task_ids = await broker.submit("s", 2)
    worker = make_worker(master)
    worker.listen()
    registration = worker_pb2.RegisterRequest(
        worker_id="w",
        host="127.0.0.1",
        port=worker.port,
        instance_id="i",
        slots=2,
        dispatch=worker_pb2.DISPATCH_PUSH,
    )
    await broker.workers.RegisterWorker(registration)
    worker.wait_for_request(2)
    tasks = {task_id: await broker.task(task_id) for task_id in task_ids}
    assert {task.state for task in tasks.values()} == {tenure_pb2.LEASED}
    await asyncio.to_thread(master.kill)
    worker.end(task_ids[1], submit=False)
    await asyncio.to_thread(master.restart)
    broker = open_broker(master.address)
    kept = worker_pb2.Renewal(task_id=task_ids[0], lease_token=(await _token(master, task_ids[0])), epoch=1)
    await broker.workers.Heartbeat(worker_pb2.HeartbeatRequest(worker_id="w", instance_id="i", renewals=[kept]))
    # It holds the one, so one slot is free, and gets the other in it at once.
    assert worker.wait_for_request(3).task_id == task_ids[1]
    found = await broker.task(task_ids[1])
    assert (found.epoch, found.attempts, found.losses) == (2, 0, 0)
    assert (await broker.task(task_ids[0])).epoch == 1
    for task_id in task_ids:
        worker.end(task_id, submit=False)
    await broker.until(task_ids[1], tenure_pb2.SUCCEEDED)


async def _token(master: MasterProcess, task_id: str) -> str:
    """A lease's token, from the store itself: MorphML's fields don't carry it to the worker."""
    async with redis.asyncio.Redis(unix_socket_path=str(master.data_dir / "store.sock")) as client:
        return str((await client.hget(f"tenure:{{0}}:task:{task_id}", "token")).decode())


async def test_a_worker_that_died_while_no_master_was_there_loses_its_lease(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession, make_worker: MakeWorker
) -> None:
    master = await asyncio.to_thread(own_master, lease_ttl_seconds=2, heartbeat_seconds=0.5)
    (task_id,) = await open_broker(master.address).submit("s")
    worker = make_worker(master).start()
    worker.wait_for_request(1)
    await asyncio.to_thread(master.kill)
    worker.stop()
    await asyncio.to_thread(master.restart)
    heir = await open_session("heir", at=master, want=1)
    task = await heir.hear_task()
    assert (task.task_id, task.epoch) == (task_id, 2)


async def test_a_result_told_while_the_store_is_away_is_taken(
    own_master: StartMaster, open_broker: OpenBroker, make_worker: MakeWorker
) -> None:
    """It tries once, with 10 s: the master waits for the store meanwhile."""
    master = await asyncio.to_thread(own_master)
    broker = open_broker(master.address)
    (task_id,) = await broker.submit("s")
    worker = make_worker(master).start()
    worker.wait_for_request(1)
    os.kill(master.store_pid, signal.SIGKILL)
    worker.end(task_id)
    found = await broker.until(task_id, tenure_pb2.SUCCEEDED)
    assert (found.epoch, found.attempts, found.losses) == (1, 0, 0)


async def test_a_registration_while_the_store_is_away_succeeds(
    own_master: StartMaster, open_broker: OpenBroker, make_worker: MakeWorker
) -> None:
    """A refusal would end it."""
    master = await asyncio.to_thread(own_master)
    worker = make_worker(master)
    os.kill(master.store_pid, signal.SIGKILL)
    worker.start()
    broker = open_broker(master.address)
    (task_id,) = await broker.submit("s")
    worker.wait_for_request(1)
    worker.end(task_id)
    await broker.until(task_id, tenure_pb2.SUCCEEDED)


async def test_what_a_legacy_worker_pulled_is_kept_by_its_heartbeats_alone(
    short_master: MasterProcess, open_broker: OpenBroker
) -> None:
    broker = open_broker(short_master.address)
    legacy = morphml.stub(broker.channel, "MasterService")
    task_ids = await broker.submit("pulled", 3)
    for name in ("alive", "silent"):
        await legacy.RegisterWorker(m.RegisterRequest(worker_id=name))
    tasks = (await legacy.RequestTask(m.TaskRequest(worker_id="alive", max_tasks=2), timeout=60)).tasks
    (lost,) = (await legacy.RequestTask(m.TaskRequest(worker_id="silent", max_tasks=1), timeout=60)).tasks

    async def reaped() -> bool:
        await legacy.Heartbeat(m.HeartbeatRequest(worker_id="alive", status="busy", current_task_id=tasks[0].task_id))
        return (await broker.task(lost.task_id)).state == tenure_pb2.QUEUED

    await eventually(reaped)
    for task in tasks:
        found = await broker.task(task.task_id)
        assert (found.state, found.losses) == (tenure_pb2.LEASED, 0)
        request = m.ResultRequest(task_id=task.task_id, worker_id="alive", success=True, metrics={"fitness": 1})
        assert (await legacy.SubmitResult(request)).acknowledged
    await broker.api.CancelTasks(tenure_pb2.TaskIds(task_ids=task_ids))


async def test_what_a_legacy_process_held_ends_with_it(
    short_master: MasterProcess, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """Its successor registers under the same id: its heartbeats must not keep alive what it knows nothing of."""
    broker = open_broker(short_master.address)
    legacy = morphml.stub(broker.channel, "MasterService")
    lost, _ = await broker.submit("restarted", 2)
    await legacy.RegisterWorker(m.RegisterRequest(worker_id="again"))
    await legacy.RequestTask(m.TaskRequest(worker_id="again", max_tasks=1), timeout=60)
    await legacy.RegisterWorker(m.RegisterRequest(worker_id="again"))
    found = await broker.task(lost)
    assert (found.state, found.attempts, found.losses) == (tenure_pb2.QUEUED, 0, 1)
    (record,) = found.attempt_records
    assert (record.outcome, record.error_class) == ("loss", "WorkerRestarted")
    # Should it have been the same process after all, its success is taken.
    request = m.ResultRequest(task_id=lost, worker_id="again", success=True, metrics={"fitness": 1})
    assert (await legacy.SubmitResult(request)).acknowledged
    assert (await broker.task(lost)).state == tenure_pb2.SUCCEEDED
    await broker.api.CancelSearch(tenure_pb2.SearchName(name="restarted"))


async def test_a_master_that_stops_answers_those_who_wait(own_master: StartMaster, open_broker: OpenBroker) -> None:
    master = await asyncio.to_thread(own_master)
    broker = open_broker(master.address)
    legacy = morphml.stub(broker.channel, "MasterService")
    await legacy.RegisterWorker(m.RegisterRequest(worker_id="w"))
    waiting = asyncio.ensure_future(legacy.RequestTask(m.TaskRequest(worker_id="w", max_tasks=1), timeout=100))
    await eventually(lambda: "tenure_waiting_slots 1.0" in master.get("/metrics")[1])
    assert await asyncio.to_thread(master.terminate) == 0
    assert not (await waiting).has_task
