"""Streams that break and masters that go: what becomes of the leases."""

from __future__ import annotations

import asyncio
import signal

import grpc
from processes import MasterProcess, eventually
from raw_peers import Broker, OpenBroker, OpenSession, RawSession, StartMaster, outcome_of, renewal_of

from tenure.proto import tenure_pb2, worker_pb2


async def test_a_broken_streams_task_goes_to_another_after_the_grace(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """At default settings: after a grace of 2 s, not after the 30 s of a lease."""
    master = await asyncio.to_thread(own_master, grace_seconds=None, tick_seconds=None)
    broker = open_broker(master.address)
    (task_id,) = await broker.submit("s")
    victim = await open_session("victim", at=master, want=1)
    await victim.hear_task()
    heir = await open_session("heir", at=master, want=1)
    await victim.hang_up()
    task = await heir.hear_task()
    assert (task.task_id, task.epoch, task.attempt) == (task_id, 2, 1)
    found = await broker.task(task_id)
    assert (found.attempts, found.losses, found.worker_id) == (0, 1, "heir")
    (record,) = found.attempt_records
    assert (record.outcome, record.worker_id) == ("expired", "victim")
    # On the lease clock: the expiry is no later than the grace and a few ticks.
    taken, cut = master.logged("task.expire")[0], master.logged("session.down", worker="victim")[0]
    assert taken["timestamp"] >= cut["timestamp"]


async def test_a_worker_that_comes_back_within_the_grace_keeps_its_lease(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    master = await asyncio.to_thread(own_master, grace_seconds=10)
    broker = open_broker(master.address)
    (task_id,) = await broker.submit("s")
    session = await open_session("w", at=master, want=1)
    task = await session.hear_task()
    await session.hang_up()
    await eventually(lambda: master.logged("session.down", worker="w"))
    left = (await broker.task(task_id)).lease_left_ms
    assert 0 < left <= 10_000
    session = await open_session("w", at=master, held=[renewal_of(task)])
    assert session.renewed.renewed == 1
    assert 10_000 < (await broker.task(task_id)).lease_left_ms <= 30_000
    assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK
    assert (await broker.task(task_id)).epoch == 1


async def test_a_lease_that_ran_out_comes_back_to_its_holder_while_nobody_has_claimed_it(
    short_master: MasterProcess, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    broker = open_broker(short_master.address)
    (task_id,) = await broker.submit("ran-out")
    session = await open_session("w", at=short_master, want=1)
    task = await session.hear_task()
    await session.hang_up()
    assert (await broker.until(task_id, tenure_pb2.QUEUED)).losses == 1
    session = await open_session("w", at=short_master, held=[renewal_of(task)])
    assert (session.greeting, session.renewed.renewed) == ([], 1)
    found = await broker.task(task_id)
    assert (found.state, found.losses, found.epoch) == (tenure_pb2.LEASED, 0, 1)
    assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK


async def test_a_silent_worker_keeps_its_lease_for_the_ttl_only(
    short_master: MasterProcess, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    broker = open_broker(short_master.address)
    (task_id,) = await broker.submit("silent")
    silent = await open_session("silent", at=short_master, want=1)
    await silent.hear_task()
    heir = await open_session("heir", at=short_master, want=1)
    assert (await heir.hear_task()).task_id == task_id
    assert (await silent.hear_revocation()).reason == "lost"


async def test_a_worker_that_heartbeats_keeps_its_lease_beyond_the_ttl(
    short_master: MasterProcess, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    broker = open_broker(short_master.address)
    (task_id,) = await broker.submit("renewed")
    session = await open_session("w", at=short_master, want=1)
    task = await session.hear_task()
    started = (await broker.api.GetStats(tenure_pb2.StatsRequest())).lease_clock_ms

    async def two_lifetimes_passed() -> bool:
        assert (await session.heartbeat(renewal_of(task))).renewed == 1
        return (await broker.api.GetStats(tenure_pb2.StatsRequest())).lease_clock_ms > started + 6_000

    await eventually(two_lifetimes_passed)
    assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK
    assert (await broker.task(task_id)).epoch == 1


async def test_streams_that_break_at_any_moment_leave_nothing_behind(
    own_master: StartMaster, open_broker: OpenBroker
) -> None:
    """A peer's death may be seen as the end of its messages, in a write, or as a cancelled call, or in all of them."""
    master = await asyncio.to_thread(own_master, grace_seconds=0, lease_ttl_seconds=2, heartbeat_seconds=0.5)
    broker = open_broker(master.address)
    task_ids = await broker.submit("s", 60)
    for number in range(30):
        session = await RawSession.open(master.address, f"w{number}", want=2)
        first, second = await session.hear_tasks(2)
        await session.say(outcomes=worker_pb2.Outcomes(outcomes=[outcome_of(first, worker_pb2.OUTCOME_SUCCESS)]))
        if number % 3 == 0:
            await session.hear("outcome_verdicts")
        elif number % 3 == 1:
            await session.register_checkpoint(second, "file:///x")
        await session.hang_up()
    await eventually(lambda: len(master.logged("session.down")) == 30)
    await eventually(lambda: "tenure_sessions 0.0" in master.get("/metrics")[1])
    # None of them takes a task any more, and what they held is free.
    for task_id in await broker.submit("s", 1) + task_ids:
        found = await broker.task(task_id)
        if found.state == tenure_pb2.LEASED:
            await broker.until(task_id, tenure_pb2.QUEUED)
        else:
            assert found.state in (tenure_pb2.QUEUED, tenure_pb2.SUCCEEDED)
    assert await broker.fsck() == []


async def test_a_master_that_stops_ends_its_streams_with_unavailable_and_cuts_nothing(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    master = await asyncio.to_thread(own_master)
    broker = open_broker(master.address)
    (task_id,) = await broker.submit("s")
    session = await open_session("w", at=master, want=1)
    task = await session.hear_task()
    assert await asyncio.to_thread(master.terminate) == 0
    assert await session.ended() == grpc.StatusCode.UNAVAILABLE
    assert master.logged("master.stopped")
    await asyncio.to_thread(master.restart)
    # Longer than the grace left: the lease was not cut.
    assert (await open_broker(master.address).task(task_id)).lease_left_ms > 20_000
    session = await open_session("w", at=master, held=[renewal_of(task)])
    assert session.renewed.renewed == 1
    assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK


async def test_a_master_that_is_killed_costs_nothing(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    master = await asyncio.to_thread(own_master, lease_ttl_seconds=2, heartbeat_seconds=0.5)
    broker = open_broker(master.address)
    task_ids = await broker.submit("s", 4)
    sessions = [await open_session(f"w{number}", at=master, want=1) for number in range(4)]
    tasks = [await session.hear_task() for session in sessions]
    await asyncio.to_thread(master.kill)
    for session in sessions:
        assert await session.ended() == grpc.StatusCode.UNAVAILABLE
    # Down for longer than a lease lives: the lease clock stands still.
    await asyncio.sleep(2.5)
    await asyncio.to_thread(master.restart)
    broker = open_broker(master.address)
    for task, task_id in zip(tasks, task_ids, strict=True):
        found = await broker.task(task_id)
        assert (found.state, found.epoch, found.losses) == (tenure_pb2.LEASED, 1, 0)
        session = await open_session(found.worker_id, at=master, held=[renewal_of(task)])
        assert session.renewed.renewed == 1
        assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK
    assert (await broker.counters()).get("leases_expired", 0) == 0
    assert await broker.fsck() == []


async def test_leases_that_never_reached_their_worker_go_back_at_its_hello(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """A master that is killed between a claim and its delivery leaves leases that no worker knows of."""
    master = await asyncio.to_thread(own_master)
    broker = open_broker(master.address)
    await broker.submit("s", 2)
    session = await open_session("w", at=master, want=2)
    known, unknown = await session.hear_tasks(2)
    await asyncio.to_thread(master.kill)
    await asyncio.to_thread(master.restart)
    broker = open_broker(master.address)
    session = await open_session("w", at=master, held=[renewal_of(known)], want=2)
    again = await session.hear_task()
    assert (again.task_id, again.epoch) == (unknown.task_id, 2)
    found = await broker.task(unknown.task_id)
    assert (found.attempts, found.losses, len(found.attempt_records)) == (0, 0, 0)
    assert (await session.end(known)).verdict == worker_pb2.VERDICT_OK


async def test_leases_of_an_earlier_process_end_at_the_hello_of_its_successor(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    master = await asyncio.to_thread(own_master)
    broker = open_broker(master.address)
    (task_id,) = await broker.submit("s")
    session = await open_session("w", at=master, instance_id="before", want=1)
    await session.hear_task()
    await asyncio.to_thread(master.kill)
    await session.hang_up()
    await asyncio.to_thread(master.restart)
    session = await open_session("w", at=master, instance_id="after", want=1)
    assert (await session.hear_task()).epoch == 2
    found = await open_broker(master.address).task(task_id)
    assert (found.attempts, found.losses) == (0, 1)
    (record,) = found.attempt_records
    assert (record.outcome, record.error_class) == ("loss", "WorkerRestarted")


async def test_many_leases_that_run_out_at_once_are_held_back(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """Most of several workers' leases at one time: rather a cut network than so many deaths. Then they are reaped."""
    master = await asyncio.to_thread(own_master, lease_ttl_seconds=2, heartbeat_seconds=0.5, grace_seconds=0)
    broker = open_broker(master.address)
    task_ids = await broker.submit("s", 3)
    sessions = [await open_session(f"w{number}", at=master, want=1) for number in range(3)]
    for session in sessions:
        await session.hear_task()
    for session in sessions:
        await session.hang_up()
    await eventually(lambda: master.logged("reaper.paused"))
    assert "tenure_reaper_paused 1.0" in master.get("/metrics")[1]
    for task_id in task_ids:
        assert (await broker.until(task_id, tenure_pb2.QUEUED)).losses == 1
    await eventually(lambda: "tenure_reaper_paused 0.0" in master.get("/metrics")[1])


async def test_a_stopped_master_that_goes_on_does_no_harm(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """SIGSTOP for longer than a lease: no time counts in which nobody could renew."""
    master = await asyncio.to_thread(own_master, lease_ttl_seconds=2, heartbeat_seconds=0.5)
    broker = open_broker(master.address)
    (task_id,) = await broker.submit("s")
    session = await open_session("w", at=master, want=1)
    task = await session.hear_task()
    master.signal(signal.SIGSTOP)
    await asyncio.sleep(2.5)
    master.signal(signal.SIGCONT)
    assert (await session.heartbeat(renewal_of(task))).renewed == 1
    assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK
    assert (await broker.task(task_id)).epoch == 1


async def test_what_is_claimed_while_its_worker_leaves_goes_back_at_once(
    master: MasterProcess, broker: Broker, open_session: OpenSession, search: str
) -> None:
    """Found by chaos, seed 1: a grant that came while the stream was being closed was given back by something that
    the closing cancelled, and its task waited for the lease's end."""
    ids: list[str] = []
    for _ in range(80):
        session = await open_session(want=1)
        submitted, _ = await asyncio.gather(broker.submit(search), session.goodbye())
        ids += submitted

    async def none_is_held_by_nobody() -> bool:
        """What was sent to a worker is in the log; its lease was cut when that left."""
        response = await broker.api.GetTasks(tenure_pb2.GetTasksRequest(task_ids=ids))
        leased = {(task.task_id, task.epoch) for task in response.tasks if task.state == tenure_pb2.LEASED}
        return leased <= {(line["task"], line["epoch"]) for line in master.logged("task.claim")}

    await eventually(none_is_held_by_nobody, 10)
