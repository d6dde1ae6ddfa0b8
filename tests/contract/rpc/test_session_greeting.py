"""How a session stream begins and ends: hello, welcome, held leases, goodbye, and the two processes of one id."""

from __future__ import annotations

import grpc
import pytest
from processes import MasterProcess, eventually
from raw_peers import Broker, OpenSession, RawSession, error_parts, renewal_of

from tenure import __version__
from tenure.proto import tenure_pb2, worker_pb2


async def test_hello_is_answered_by_welcome_then_renewals_done(
    open_session: OpenSession, master: MasterProcess
) -> None:
    session = await open_session()
    welcome = session.welcome
    assert welcome.master_id == master.master_id
    assert (welcome.lease_ttl_ms, welcome.heartbeat_interval_ms, welcome.grace_ms) == (30_000, 10_000, 500)
    assert welcome.version == __version__
    assert session.renewed.renewed == 0
    assert session.greeting == []


async def test_hello_registers_the_worker(open_session: OpenSession, broker: Broker, search: str) -> None:
    await open_session(
        "", host="node-7", slots=3, num_gpus=3, gpu_ids=[0, 1, 2], labels={"zone": "a"}, version="9.9", port=50052
    )
    worker = await broker.worker(f"{search}-w1")
    assert (worker.status, worker.mode, worker.dispatch) == ("live", "active", "session")
    assert (worker.host, worker.port, worker.slots, worker.version) == ("node-7", 50052, 3, "9.9")
    assert (worker.num_gpus, list(worker.gpu_ids), dict(worker.labels)) == (3, [0, 1, 2], {"zone": "a"})
    assert worker.instance_id == "instance-1"
    assert worker.registered_unix_ms > 0


async def test_a_held_lease_is_renewed_by_hello(open_session: OpenSession, broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search)
    first = await open_session("held", want=1)
    task = await first.hear_task()
    second = await open_session("held", held=[renewal_of(task)])
    assert second.renewed.renewed == 1
    assert second.greeting == []
    assert (await second.end(task)).verdict == worker_pb2.VERDICT_OK
    assert (await broker.task(task_id)).epoch == 1


@pytest.mark.parametrize(
    ("what", "reason"),
    [("another_token", "lost"), ("unknown_task", "unknown"), ("ended", "finished_elsewhere"), ("no_token", "lost")],
)
async def test_lost_leases_are_revoked_between_welcome_and_renewals_done(
    open_session: OpenSession, broker: Broker, search: str, what: str, reason: str
) -> None:
    await broker.submit(search)
    holder = await open_session(want=1)
    task = await holder.hear_task()
    held = renewal_of(task)
    if what == "another_token":
        held.lease_token = "0" * 32
    elif what == "no_token":
        held.lease_token = ""
    elif what == "unknown_task":
        held.task_id = "0-" + "z" * 26
    else:
        assert (await holder.end(task)).verdict == worker_pb2.VERDICT_OK
    # The holder's own id: without a token that must not be taken for a legacy peer's renewal.
    worker_id = holder.worker_id if what == "no_token" else ""
    session = await open_session(worker_id, held=[held])
    (down,) = session.greeting
    (revocation,) = down.revocations.revocations
    assert (revocation.task_id, revocation.lease_token, revocation.reason) == (held.task_id, held.lease_token, reason)
    assert session.renewed.renewed == 0


async def test_a_cancelled_lease_is_renewed_and_revoked(open_session: OpenSession, broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search)
    first = await open_session("cancelled", want=1)
    task = await first.hear_task()
    await broker.api.CancelTasks(tenure_pb2.TaskIds(task_ids=[task_id]))
    second = await open_session("cancelled", held=[renewal_of(task)])
    (down,) = second.greeting
    assert [each.reason for each in down.revocations.revocations] == ["cancelled"]
    assert second.renewed.renewed == 1


@pytest.mark.parametrize("first", ["want", "heartbeat", "outcomes"])
async def test_hello_comes_first(master: MasterProcess, first: str) -> None:
    session = RawSession(master.address, "w", "i")
    messages = {
        "want": worker_pb2.Want(slots=1),
        "heartbeat": worker_pb2.HeartbeatRequest(worker_id="w"),
        "outcomes": worker_pb2.Outcomes(),
    }
    await session.say(**{first: messages[first]})
    error = await session.error()
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error_parts(error)["field"] == "hello"
    assert error_parts(error)["given"] == first
    await session.hang_up()


async def test_hello_comes_once(open_session: OpenSession) -> None:
    session = await open_session()
    await session.say_hello()
    error = await session.error()
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error_parts(error)["given"] == "hello"


@pytest.mark.parametrize(
    ("registration", "field"),
    [
        ({"worker_id": ""}, "worker_id"),
        ({"worker_id": "w" * 10_240}, "worker_id"),
        ({"worker_id": "a\nb"}, "worker_id"),
        ({"instance_id": ""}, "hello.worker.instance_id"),
        ({"instance_id": "i" * 10_240}, "instance_id"),
        ({"slots": -1}, "slots"),
        ({"slots": 1_000_000}, "slots"),
        ({"num_gpus": -1}, "num_gpus"),
        ({"port": 70_000}, "port"),
        ({"host": "h" * 10_240}, "host"),
        ({"labels": {"a=b": "c"}}, "labels.a=b"),
        ({"labels": {"a": "line\nbreak"}}, "labels.a"),
        ({"labels": {f"l{n}": "" for n in range(1000)}}, "labels"),
    ],
)
async def test_a_bad_registration_is_refused_by_field(
    master: MasterProcess, search: str, registration: dict[str, object], field: str
) -> None:
    session = RawSession(master.address, f"{search}-w"[:100], "instance")
    await session.say_hello(**registration)
    error = await session.error()
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert (error_parts(error)["code"], error_parts(error)["field"]) == ("INVALID_INPUT", field)
    await session.hang_up()


@pytest.mark.parametrize("slots", [-1, 5000])
async def test_a_want_out_of_range_ends_the_stream(open_session: OpenSession, slots: int) -> None:
    session = await open_session()
    await session.want(slots)
    error = await session.error()
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert (error_parts(error)["field"], error_parts(error)["given"]) == ("slots", str(slots))


async def test_more_outcomes_than_the_limit_end_the_stream(open_session: OpenSession) -> None:
    session = await open_session()
    outcome = worker_pb2.Outcome(task_id="0-" + "z" * 26, lease_token="t", kind=worker_pb2.OUTCOME_FAILURE)
    await session.say(outcomes=worker_pb2.Outcomes(outcomes=[outcome] * 101))
    error = await session.error()
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error_parts(error)["field"] == "outcomes"


async def test_goodbye_ends_the_stream_well_and_the_worker_is_gone(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    session = await open_session(want=2)
    await session.goodbye()
    assert (await broker.worker(session.worker_id)).status == "gone"
    # Nothing is claimed for it any more.
    (task_id,) = await broker.submit(search)
    other = await open_session(want=1)
    assert (await other.hear_task()).task_id == task_id


async def test_goodbye_waits_for_the_verdicts(open_session: OpenSession, broker: Broker, search: str) -> None:
    task_ids = await broker.submit(search, 3)
    session = await open_session(want=3)
    for task in await session.hear_tasks(3):
        await session.say(
            outcomes=worker_pb2.Outcomes(
                outcomes=[
                    worker_pb2.Outcome(
                        task_id=task.task_id,
                        lease_token=task.lease_token,
                        epoch=task.epoch,
                        kind=worker_pb2.OUTCOME_SUCCESS,
                    )
                ]
            )
        )
    await session.goodbye()
    for task_id in task_ids:
        assert (await broker.task(task_id)).state == tenure_pb2.SUCCEEDED


async def test_a_second_instance_ends_the_first(open_session: OpenSession, broker: Broker, search: str) -> None:
    await broker.submit(search)
    older = await open_session("twice", instance_id="one", want=1)
    task = await older.hear_task()
    newer = await open_session("twice", instance_id="two", want=1)
    error = await older.error()
    assert error.code() == grpc.StatusCode.ABORTED
    assert (error_parts(error)["code"], error_parts(error)["field"]) == ("STALE_LEASE", "worker_id")
    # It stops its runs and exits: its task goes on at once.
    again = await newer.hear_task()
    assert (again.task_id, again.epoch) == (task.task_id, 2)
    assert (await broker.worker("twice")).instance_id == "two"


async def test_an_older_instance_is_told_by_its_heartbeat(
    open_session: OpenSession, broker: Broker, master: MasterProcess
) -> None:
    session = await open_session("pushed", instance_id="one")
    await session.heartbeat()
    response = await broker.workers.Heartbeat(worker_pb2.HeartbeatRequest(worker_id="pushed", instance_id="zero"))
    assert (response.acknowledged, response.should_continue) == (False, False)


async def test_the_same_instance_may_come_back_before_its_old_stream_is_seen_to_break(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    task_ids = await broker.submit(search, 2)
    older = await open_session("back", want=2)
    kept, lost = await older.hear_tasks(2)
    newer = await open_session("back", held=[renewal_of(kept)])
    assert newer.renewed.renewed == 1
    assert await older.ended() == grpc.StatusCode.OK
    # What it no longer names was lost on the way down: another gets it after the grace, not after the whole lease.
    other = await open_session("other", want=1)
    assert (await other.hear_task()).task_id == lost.task_id
    assert (await newer.end(kept)).verdict == worker_pb2.VERDICT_OK
    assert {(await broker.task(task_id)).epoch for task_id in task_ids} == {1, 2}


async def test_heartbeats_carry_figures_into_the_list_of_workers(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    session = await open_session()
    metrics = worker_pb2.WorkerMetrics(
        cpu_usage=12.5, memory_usage=float("nan"), gpu_usage=float("inf"), tasks_completed=7, slots_busy=2
    )
    await session.heartbeat(metrics=metrics, status="busy", current_task_id="t")
    worker = await broker.worker(session.worker_id)
    assert (worker.cpu_percent, worker.memory_percent, worker.gpu_percent) == (12.5, 0, 0)
    assert (worker.tasks_completed, worker.slots_busy, worker.current_task_id) == (7, 2, "t")


async def test_a_worker_that_hangs_up_between_messages_is_silent_only_later(
    open_session: OpenSession, broker: Broker, master: MasterProcess
) -> None:
    session = await open_session()
    await session.hang_up()
    await eventually(lambda: master.logged("session.down", worker=session.worker_id))
    assert (await broker.worker(session.worker_id)).status == "live"
