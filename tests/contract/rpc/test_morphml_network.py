"""MorphML 1.0's workers and the network between: ports that refuse, connections that break, processes that die."""

from __future__ import annotations

import asyncio
import sys

import morphml_worker
from morphml_worker import MakeWorker
from processes import MasterProcess, eventually
from raw_peers import Broker, OpenSession
from tcp_relay import TcpRelay

from tenure.proto import tenure_pb2


async def test_it_may_register_before_it_listens(
    make_worker: MakeWorker, broker: Broker, search: str, master: MasterProcess
) -> None:
    (task_id,) = await broker.submit(search)
    worker = make_worker()
    worker.register()
    await eventually(lambda: master.logged("push.unreachable", worker=worker.worker_id))
    # Nothing was claimed for it meanwhile.
    assert (await broker.task(task_id)).state == tenure_pb2.QUEUED
    worker.listen()
    worker.wait_for_request(1)
    worker.end(task_id)
    found = await broker.until(task_id, tenure_pb2.SUCCEEDED)
    assert (found.attempts, found.losses, found.epoch) == (0, 0, 1)


async def test_a_worker_that_stopped_listening_costs_nothing(
    make_worker: MakeWorker, broker: Broker, search: str
) -> None:
    """Its port refuses: nothing is claimed for it, and when it is back it is served again."""
    worker = make_worker().start()
    (task_id,) = await broker.submit(search)
    worker.wait_for_request(1)
    worker.end(task_id)
    worker.stop_listening()
    (second,) = await broker.submit(search)
    worker.heartbeat()
    worker.listen()
    worker.wait_for_request(2)
    worker.end(second)
    found = await broker.until(second, tenure_pb2.SUCCEEDED)
    assert (found.attempts, found.losses) == (0, 0)


async def test_a_worker_killed_under_its_evaluation_is_a_loss_and_the_task_runs_elsewhere(
    broker: Broker, search: str, master: MasterProcess, open_session: OpenSession
) -> None:
    (task_id,) = await broker.submit(search)
    victim = await asyncio.create_subprocess_exec(
        sys.executable, morphml_worker.__file__, master.address, f"{search}-victim", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert victim.stdout is not None
        assert await victim.stdout.readline() == f"evaluate {task_id}\n".encode()
    finally:
        victim.kill()
        await victim.communicate()
    heir = await open_session(want=1)
    task = await heir.hear_task()
    assert (task.task_id, task.epoch) == (task_id, 2)
    found = await broker.task(task_id)
    assert (found.attempts, found.losses) == (0, 1)
    (record,) = found.attempt_records
    assert (record.outcome, record.error_class, record.worker_id) == ("loss", "WorkerLost", f"{search}-victim")
    await heir.end(task)


async def test_a_call_that_broke_is_no_loss_while_the_worker_says_that_it_runs_the_task(
    make_worker: MakeWorker, broker: Broker, search: str, master: MasterProcess
) -> None:
    (task_id,) = await broker.submit(search)
    worker = make_worker()
    worker.listen()
    async with TcpRelay(worker.port) as relay:
        worker.port = relay.port
        worker.register()
        await asyncio.to_thread(worker.wait_for_request, 1)
        await relay.cut()
        await eventually(lambda: master.logged("push.broke", worker=worker.worker_id))
        await asyncio.to_thread(worker.heartbeat)
        await asyncio.to_thread(worker.end, task_id)
        found = await broker.until(task_id, tenure_pb2.SUCCEEDED)
        assert (found.attempts, found.losses, found.epoch) == (0, 0, 1)
        # It is pushed to again.
        (second,) = await broker.submit(search)
        assert (await asyncio.to_thread(worker.wait_for_request, 2)).task_id == second
        await asyncio.to_thread(worker.end, second)
        await broker.until(second, tenure_pb2.SUCCEEDED)


async def test_a_call_that_broke_and_whose_result_nobody_heard_is_a_loss(
    make_worker: MakeWorker, broker: Broker, search: str, master: MasterProcess
) -> None:
    (task_id,) = await broker.submit(search)
    worker = make_worker()
    worker.listen()
    async with TcpRelay(worker.port) as relay:
        worker.port = relay.port
        worker.register()
        await asyncio.to_thread(worker.wait_for_request, 1)
        await relay.cut()
        await eventually(lambda: master.logged("push.broke", worker=worker.worker_id))
        await asyncio.to_thread(worker.end, task_id, submit=False)
        await asyncio.to_thread(worker.wait_for_request, 2)
        found = await broker.task(task_id)
        assert (found.attempts, found.losses, found.epoch) == (0, 1, 2)
        assert found.attempt_records[0].error_class == "ResultLost"
        await asyncio.to_thread(worker.end, task_id)
        await broker.until(task_id, tenure_pb2.SUCCEEDED)
