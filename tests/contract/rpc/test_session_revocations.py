"""What a worker is told over its stream without having asked: lost leases, drains, cordons."""

from __future__ import annotations

import grpc
import pytest
from processes import MasterProcess
from raw_peers import Broker, OpenSession, outcome_of, refused, renewal_of

from tenure.proto import tenure_pb2, worker_pb2

WAYS = {"drain": "DrainWorker", "cordon": "CordonWorker", "uncordon": "UncordonWorker"}


async def say_mode(broker: Broker, way: str, worker_id: str) -> tenure_pb2.Worker:
    """Drain, cordon or uncordon a worker by the client API."""
    worker: tenure_pb2.Worker = await getattr(broker.api, WAYS[way])(tenure_pb2.WorkerName(worker_id=worker_id))
    return worker


async def test_a_cancel_is_told_and_the_release_ends_the_task(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=1)
    task = await session.hear_task()
    response = await broker.api.CancelTasks(tenure_pb2.TaskIds(task_ids=[task_id]))
    assert [(each.verdict, each.state) for each in response.verdicts] == [("cancel_requested", tenure_pb2.LEASED)]
    revocation = await session.hear_revocation()
    assert (revocation.task_id, revocation.lease_token, revocation.reason) == (task_id, task.lease_token, "cancelled")
    assert (await broker.task(task_id)).cancel_requested
    # It is the holder's until it lets go: with a last checkpoint, if it likes.
    assert (await session.register_checkpoint(task, "file:///last")).verdict == worker_pb2.VERDICT_OK
    verdict = await session.end(task, worker_pb2.OUTCOME_RELEASE)
    assert (verdict.verdict, list(verdict.delete_urls)) == (worker_pb2.VERDICT_OK, ["file:///last"])
    found = await broker.task(task_id)
    assert (found.state, found.attempts, found.losses) == (tenure_pb2.CANCELLED, 0, 0)


async def test_a_success_that_crosses_a_cancel_is_taken(open_session: OpenSession, broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=1)
    task = await session.hear_task()
    await broker.api.CancelTasks(tenure_pb2.TaskIds(task_ids=[task_id]))
    assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK
    assert (await broker.task(task_id)).state == tenure_pb2.SUCCEEDED


async def test_cancelling_the_search_reaches_every_holder(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    await broker.submit(search, 4)
    sessions = [await open_session(want=1) for _ in range(3)]
    tasks = [await session.hear_task() for session in sessions]
    await broker.api.CancelSearch(tenure_pb2.SearchName(name=search))
    for session, task in zip(sessions, tasks, strict=True):
        revocation = await session.hear_revocation()
        assert (revocation.task_id, revocation.reason) == (task.task_id, "cancelled")
        await session.end(task, worker_pb2.OUTCOME_RELEASE)
    found = await broker.api.GetSearch(tenure_pb2.SearchName(name=search))
    assert (found.status, found.tasks["CANCELLED"]) == ("cancelled", 4)


async def test_the_holder_is_told_when_a_legacy_peer_finishes_its_task(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    """A legacy result names no epoch: the worker's id tells it from the holder's own."""
    (task_id,) = await broker.submit(search)
    legacy = f"{search}-legacy"
    await broker.workers.RegisterWorker(worker_pb2.RegisterRequest(worker_id=legacy))
    session = await open_session(want=1)
    task = await session.hear_task()
    response = await broker.workers.SubmitResult(
        worker_pb2.ResultRequest(task_id=task_id, worker_id=legacy, success=True, metrics={"fitness": 1})
    )
    assert response.acknowledged
    revocation = await session.hear_revocation()
    assert (revocation.lease_token, revocation.reason) == (task.lease_token, "finished_elsewhere")


async def test_a_lease_that_another_has_claimed_is_lost(open_session: OpenSession, broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=1)
    task = await session.hear_task()
    # The release comes by another way than the stream: a unary SubmitResult that names the lease.
    await broker.workers.SubmitResult(
        worker_pb2.ResultRequest(
            task_id=task_id, worker_id=session.worker_id, outcome=outcome_of(task, worker_pb2.OUTCOME_RELEASE)
        )
    )
    other = await open_session(want=1)
    assert (await other.hear_task()).epoch == 2
    revocation = await session.hear_revocation()
    assert (revocation.lease_token, revocation.reason) == (task.lease_token, "lost")
    # Told once: its next heartbeat is told again, and nothing is renewed.
    assert (await session.heartbeat(renewal_of(task))).renewed == 0
    assert (await session.hear_revocation()).reason == "lost"


async def test_a_drained_worker_hands_back_and_gets_nothing_more(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=2)
    task = await session.hear_task()
    worker = await say_mode(broker, "drain", session.worker_id)
    assert worker.mode == "draining"
    drain = (await session.hear("drain")).drain
    assert (drain.active, drain.cordon) == (True, False)
    await session.end(task, worker_pb2.OUTCOME_RELEASE)
    await session.want(2)
    await session.expect_silence("tasks")
    other = await open_session(want=1)
    again = await other.hear_task()
    assert (again.task_id, again.attempt) == (task_id, 1)
    assert (await broker.task(task_id)).attempts == 0


async def test_a_cordoned_worker_runs_on_but_gets_nothing_more(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    await broker.submit(search, 2)
    session = await open_session(want=1)
    task = await session.hear_task()
    await say_mode(broker, "cordon", session.worker_id)
    drain = (await session.hear("drain")).drain
    assert (drain.active, drain.cordon) == (True, True)
    await session.want(1)
    assert (await session.heartbeat(renewal_of(task))).renewed == 1
    assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK
    await session.expect_silence("tasks")
    # What it wanted meanwhile still counts.
    await say_mode(broker, "uncordon", session.worker_id)
    assert not (await session.hear("drain")).drain.active
    await session.hear_task()


async def test_saying_it_twice_changes_nothing(open_session: OpenSession, broker: Broker) -> None:
    session = await open_session()
    for _ in range(2):
        assert (await say_mode(broker, "drain", session.worker_id)).mode == "draining"
    await session.hear("drain")
    await session.expect_silence("drain")


@pytest.mark.parametrize(("way", "mode"), [("cordon", "cordoned"), ("drain", "draining")])
async def test_the_mode_is_said_to_the_same_process_when_it_comes_back(
    open_session: OpenSession, broker: Broker, search: str, way: str, mode: str
) -> None:
    await broker.submit(search)
    session = await open_session("coming-back")
    await say_mode(broker, way, "coming-back")
    await session.hang_up()
    session = await open_session("coming-back", want=1)
    drain = (await session.hear("drain")).drain
    assert (drain.active, drain.cordon) == (True, way == "cordon")
    await session.expect_silence("tasks")


async def test_a_cordon_outlives_the_process_and_a_drain_does_not(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    for way, mode in (("cordon", "cordoned"), ("drain", "active")):
        session = await open_session(f"{search}-{way}", instance_id="before")
        await say_mode(broker, way, session.worker_id)
        await session.hear("drain")
        await session.goodbye()
        await open_session(session.worker_id, instance_id="after")
        assert (await broker.worker(session.worker_id)).mode == mode


@pytest.mark.parametrize("way", list(WAYS))
async def test_modes_of_unknown_workers(broker: Broker, way: str) -> None:
    async with refused(grpc.StatusCode.NOT_FOUND, "UNKNOWN_WORKER", "worker_id", "nobody"):
        await say_mode(broker, way, "nobody")
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", "worker_id"):
        await say_mode(broker, way, "")


async def test_a_claim_under_way_at_the_drain_is_handed_back_by_the_worker(
    open_session: OpenSession, broker: Broker, search: str, master: MasterProcess
) -> None:
    """Whatever the order in which task and drain arrive, no task is lost between the two."""
    session = await open_session(want=1)
    (task_id,) = await broker.submit(search)
    await say_mode(broker, "drain", session.worker_id)
    await session.hear("drain")
    await session.heartbeat()
    if (await broker.task(task_id)).state == tenure_pb2.LEASED:
        await session.end(await session.hear_task(), worker_pb2.OUTCOME_RELEASE)
    assert (await broker.task(task_id)).state == tenure_pb2.QUEUED
