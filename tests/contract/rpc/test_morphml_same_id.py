"""A MorphML process whose worker id somebody else has registered since: what it is told, what becomes of its task."""

from __future__ import annotations

import pytest
from morphml_worker import MorphmlWorker
from processes import MasterProcess, eventually
from raw_peers import Broker

from tenure.proto import tenure_pb2, worker_pb2


@pytest.fixture
def master(short_master: MasterProcess) -> MasterProcess:
    """Leases are looked at twice a second."""
    return short_master


async def test_of_two_morphml_processes_the_newer_waits_for_the_older_ones_evaluation(
    master: MasterProcess, broker: Broker, search: str
) -> None:
    """They can't be told apart. The older isn't asked to end, only to stop what it runs, which it doesn't."""
    with MorphmlWorker(master.address, search) as older, MorphmlWorker(master.address, search) as newer:
        older.start()
        (first,) = await broker.submit(search)
        older.wait_for_request(1)
        newer.start()
        await broker.until(first, tenure_pb2.QUEUED)
        await eventually(lambda: older.cancels)
        for process in (older, newer):
            answer = process.heartbeat()
            assert (answer.acknowledged, answer.should_continue) == (True, True)
        (second,) = await broker.submit(search)
        assert newer.requests == []

        older.end(first)
        found = await broker.until(first, tenure_pb2.SUCCEEDED)
        assert (found.attempts, found.losses, found.epoch) == (0, 1, 1)
        newer.wait_for_request(1)
        newer.end(second)
        found = await broker.until(second, tenure_pb2.SUCCEEDED)
        assert (found.attempts, found.losses) == (0, 0)
        assert len(older.requests) == 1
        assert len(older.cancels) == 1


async def test_a_morphml_process_replaced_by_a_tenure_worker_is_told_by_its_next_heartbeat(
    master: MasterProcess, broker: Broker, search: str
) -> None:
    with MorphmlWorker(master.address, search) as older:
        older.start()
        (task_id,) = await broker.submit(search)
        older.wait_for_request(1)
        newer = worker_pb2.RegisterRequest(worker_id=search, instance_id="newer", dispatch=worker_pb2.DISPATCH_PULL)
        await broker.workers.RegisterWorker(newer)
        answer = older.heartbeat()
        assert (answer.acknowledged, answer.should_continue) == (False, False)
        await eventually(lambda: older.cancels)
        found = await broker.until(task_id, tenure_pb2.QUEUED)
        assert (found.attempts, found.losses) == (0, 1)
        older.end(task_id)
        await broker.until(task_id, tenure_pb2.SUCCEEDED)
