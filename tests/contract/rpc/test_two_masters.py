"""Two masters on one store: what is done at one is heard at the other, and either may go."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import grpc
import morphml
import pytest
from morphml import messages as m
from morphml_worker import MorphmlWorker
from processes import MasterProcess, eventually, start_master
from raw_peers import MASTER_SETTINGS, Broker, OpenBroker, OpenSession, StartMaster, renewal_of
from store_server import StoreServer
from tcp_relay import TcpRelay

from tenure.master.store.records import DEFAULT_CLASS, ClaimRequest
from tenure.master.store.store import StoreOptions, open_store
from tenure.proto import tenure_pb2, worker_pb2


class Pair(NamedTuple):
    a: MasterProcess
    b: MasterProcess


def start_pair(start: StartMaster, server: StoreServer) -> Pair:
    """Two masters on a store, started together."""
    with ThreadPoolExecutor() as pool:
        a, b = pool.map(lambda name: start(name, store=server.url, data_dir=None), ("a", "b"))
    return Pair(a, b)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """The pair's store."""
    server = StoreServer(tmp_path_factory.mktemp("store")).start()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, server: StoreServer) -> Iterator[Pair]:
    """Both live through the module."""
    folder = tmp_path_factory.mktemp("pair")
    pair = start_pair(lambda name, **settings: start_master(folder / name, **MASTER_SETTINGS, **settings), server)
    yield pair
    for master in pair:
        assert master.logged("master.loop_died") == []
        master.remove()


@pytest.fixture
def master(pair: Pair) -> MasterProcess:
    """Where ``broker`` and ``search`` are."""
    return pair.a


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[StoreServer]:
    """A store of the test's own."""
    server = StoreServer(tmp_path / "store").start()
    yield server
    server.remove()


@pytest.fixture
async def own_pair(own_master: StartMaster, own_server: StoreServer) -> Pair:
    """A pair of the test's own."""
    return await asyncio.to_thread(start_pair, own_master, own_server)


async def test_a_submit_at_one_wakes_those_who_wait_at_the_other(
    pair: Pair, search: str, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    at_a, at_b = open_broker(pair.a.address), open_broker(pair.b.address)
    assert (await at_a.api.GetStats(tenure_pb2.StatsRequest())).master_id == pair.a.master_id
    # A stream, with requirements that the other master has never heard of.
    session = await open_session(search, at=pair.b, want=1, num_gpus=4, slots=4)
    await session.heartbeat()
    (task_id,) = await at_a.submit(search, requirements=tenure_pb2.Requirements(gpus=1))
    assert (await session.hear_task()).task_id == task_id
    # A poll that would wait for 80 s.
    legacy = morphml.stub(at_b.channel, "MasterService")
    await legacy.RegisterWorker(m.RegisterRequest(worker_id="legacy"))
    waiting = asyncio.ensure_future(legacy.RequestTask(m.TaskRequest(worker_id="legacy", max_tasks=1), timeout=100))
    await eventually(lambda: "tenure_waiting_slots 1.0" in pair.b.get("/metrics")[1])
    (task_id,) = await at_a.submit(search)
    async with asyncio.timeout(30):
        assert [task.task_id for task in (await waiting).tasks] == [task_id]
    # And a watch.
    watch = at_b.api.Watch(tenure_pb2.WatchRequest(search=search))
    await watch.read()
    (task_id,) = await at_a.submit(search)
    assert [event.task_id for event in (await watch.read()).events] == [task_id]
    watch.cancel()


async def test_cancels_and_modes_reach_the_other_masters_workers(
    pair: Pair, search: str, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    at_a = open_broker(pair.a.address)
    task_ids = await at_a.submit(search, 2)
    session = await open_session(search, at=pair.b, want=2)
    await session.hear_tasks(2)
    await at_a.api.CancelTasks(tenure_pb2.TaskIds(task_ids=task_ids[:1]))
    revocation = await session.hear_revocation()
    assert (revocation.task_id, revocation.reason) == (task_ids[0], "cancelled")
    for way, active, cordon in (
        ("DrainWorker", True, False),
        ("UncordonWorker", False, False),
        ("CordonWorker", True, True),
    ):
        await getattr(at_a.api, way)(tenure_pb2.WorkerName(worker_id=search))
        drain = (await session.hear("drain")).drain
        assert (drain.active, drain.cordon) == (active, cordon)


async def test_a_cordon_reaches_a_worker_that_the_other_master_pushes_to(
    pair: Pair, search: str, open_broker: OpenBroker
) -> None:
    at_a = open_broker(pair.a.address)
    with MorphmlWorker(pair.b.address, search) as worker:
        worker.start()
        (first,) = await at_a.submit(search)
        worker.wait_for_request(1)
        await at_a.api.CordonWorker(tenure_pb2.WorkerName(worker_id=search))
        worker.end(first)
        await at_a.until(first, tenure_pb2.SUCCEEDED)
        (second,) = await at_a.submit(search)
        worker.heartbeat()
        assert (await at_a.task(second)).state == tenure_pb2.QUEUED
        await at_a.api.UncordonWorker(tenure_pb2.WorkerName(worker_id=search))
        worker.wait_for_request(2)
        # A cancel reaches it, too.
        await at_a.api.CancelTasks(tenure_pb2.TaskIds(task_ids=[second]))
        await eventually(lambda: worker.cancels)
        worker.end(second, success=False, error="stopped")
        await at_a.until(second, tenure_pb2.CANCELLED)


async def test_both_masters_push_to_a_worker_whose_heartbeats_alternate(
    pair: Pair, search: str, open_broker: OpenBroker
) -> None:
    """As behind a balancer: each master knows what it pushes itself and what the heartbeats that it hears name."""
    at_a = open_broker(pair.a.address)
    with MorphmlWorker(pair.a.address, search) as worker:
        worker.start()
        (first,) = await at_a.submit(search)
        worker.wait_for_request(1)
        worker.reconnect(pair.b.address)
        worker.heartbeat()
        later = await at_a.submit(search, 2)
        worker.end(first)
        # The one has seen the call end, the other hears of it here.
        worker.heartbeat("idle", "")
        worker.wait_for_request(3)
        assert sorted(worker.running) == sorted(later)
        worker.heartbeat()
        for task_id in later:
            worker.end(task_id)
        for task_id in (first, *later):
            found = await at_a.until(task_id, tenure_pb2.SUCCEEDED)
            assert (found.attempts, found.losses, found.epoch) == (0, 0, 1)
        assert worker.at_once_max == 2


async def test_a_claim_or_a_success_at_the_other_master_revokes_here(
    pair: Pair, search: str, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    at_a = open_broker(pair.a.address)
    await at_a.submit(search)
    session = await open_session("here", at=pair.a, want=1)
    task = await session.hear_task()
    await at_a.workers.SubmitResult(
        worker_pb2.ResultRequest(
            task_id=task.task_id,
            worker_id="here",
            outcome=worker_pb2.Outcome(lease_token=task.lease_token, kind=worker_pb2.OUTCOME_RELEASE),
        )
    )
    other = await open_session("there", at=pair.b, want=1)
    again = await other.hear_task()
    assert (await session.hear_revocation()).reason == "lost"
    # The late success of the first is taken, and the second is told.
    assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK
    revocation = await other.hear_revocation()
    assert (revocation.lease_token, revocation.reason) == (again.lease_token, "finished_elsewhere")


async def test_when_one_master_dies_client_and_worker_go_on_at_the_other(
    own_pair: Pair, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    at_a, at_b = open_broker(own_pair.a.address), open_broker(own_pair.b.address)
    ids = await at_a.submit("s", 2)
    watch = at_a.api.Watch(tenure_pb2.WatchRequest(search="s"))
    cursor = (await watch.read()).cursor
    session = await open_session("w", at=own_pair.a, want=1)
    task = await session.hear_task()
    await asyncio.to_thread(own_pair.a.kill)
    assert await session.ended() == grpc.StatusCode.UNAVAILABLE
    session = await open_session("w", at=own_pair.b, held=[renewal_of(task)])
    assert session.renewed.renewed == 1
    assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK
    await session.want(1)
    assert (await session.hear_task()).task_id == ids[1]
    found = await at_b.task(ids[0])
    assert (found.state, found.epoch, found.losses) == (tenure_pb2.SUCCEEDED, 1, 0)
    # The watch of the one goes on at the other.
    watch = at_b.api.Watch(tenure_pb2.WatchRequest(search="s", cursor=cursor))
    steps: list[str] = []
    while len(steps) < 3:
        steps += [event.transition for event in (await watch.read()).events]
    assert steps == ["claim", "complete", "claim"]
    watch.cancel()
    assert await at_b.fsck() == []


async def test_a_master_that_hears_late_of_a_streams_end_does_not_cut_what_lives_at_the_other(
    pair: Pair, search: str, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    at_b = open_broker(pair.b.address)
    (task_id,) = await at_b.submit(search)
    session = await open_session(search, at=pair.a, want=1)
    task = await session.hear_task()
    pair.a.signal(signal.SIGSTOP)
    await session.hang_up()
    session = await open_session(search, at=pair.b, held=[renewal_of(task)])
    assert session.renewed.renewed == 1
    pair.a.signal(signal.SIGCONT)
    await eventually(lambda: pair.a.logged("session.down", worker=search))
    assert (await at_b.task(task_id)).lease_left_ms > 20_000
    # And the dead stream takes nothing more.
    (second,) = await at_b.submit(search)
    await session.want(1)
    assert (await session.hear_task()).task_id == second
    assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK


async def test_a_worker_that_moves_on_while_its_old_stream_still_looks_open(
    pair: Pair, search: str, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """A partition between worker and one master that neither is told of."""
    at_b = open_broker(pair.b.address)
    task_ids = await at_b.submit(search, 1)
    port = int(pair.a.address.rpartition(":")[2])
    async with TcpRelay(port) as relay:
        old = await open_session(search, address=relay.address, want=2)
        task = await old.hear_task()
        relay.hold_up()
        session = await open_session(search, at=pair.b, held=[renewal_of(task)])
        assert session.renewed.renewed == 1
        # The old stream's master hears of the new one: it gives nothing more to a stream that nobody reads.
        await eventually(lambda: pair.a.logged("session.down", worker=search))
        task_ids += await at_b.submit(search)
        await session.want(1)
        assert (await session.hear_task()).task_id == task_ids[1]
        assert (await at_b.task(task_ids[0])).lease_left_ms > 20_000


async def test_a_second_instance_at_the_other_master_ends_the_first(
    pair: Pair, search: str, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    at_a = open_broker(pair.a.address)
    (task_id,) = await at_a.submit(search)
    older = await open_session(search, at=pair.a, instance_id="one", want=1)
    await older.hear_task()
    newer = await open_session(search, at=pair.b, instance_id="two", want=1)
    assert await older.ended() == grpc.StatusCode.ABORTED
    assert ((await newer.hear_task()).task_id, (await at_a.task(task_id)).losses) == (task_id, 1)


async def test_a_store_that_loses_a_registration_has_the_worker_say_hello_again(
    pair: Pair, search: str, server: StoreServer, open_session: OpenSession
) -> None:
    session = await open_session(search, at=pair.a)
    await session.heartbeat()
    with server.client() as client:
        client.delete(f"tenure:{{workers}}:worker:{search}")
    await session.say(heartbeat=worker_pb2.HeartbeatRequest(worker_id=search, instance_id=session.instance_id))
    error = await session.error()
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "hello" in (error.details() or "")


async def test_a_store_that_was_rolled_back_takes_back_leases_and_results(
    own_pair: Pair, own_server: StoreServer, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """As after a failover that lost the newest writes: the claims never happened."""
    at_a: Broker = open_broker(own_pair.a.address)
    task_ids = await at_a.submit("s", 2)
    with own_server.client() as client:
        keys = [key for key in client.scan_iter("tenure:*") if client.type(key) != b"stream"]
        before = {key: client.dump(key) for key in keys}
        session = await open_session("w", at=own_pair.a, want=2)
        kept, done = await session.hear_tasks(2)
        for key in client.scan_iter("tenure:*"):
            if key not in before and client.type(key) != b"stream" and b"{workers}" not in key:
                client.delete(key)
        for key, value in before.items():
            client.restore(key, 0, value, replace=True)
    assert (await at_a.task(kept.task_id)).state == tenure_pb2.QUEUED
    assert (await session.heartbeat(renewal_of(kept))).renewed == 1
    assert (await session.end(done)).verdict == worker_pb2.VERDICT_OK
    found = await at_a.task(kept.task_id)
    assert (found.state, found.epoch, found.worker_id) == (tenure_pb2.LEASED, 1, "w")
    assert (await session.end(kept)).verdict == worker_pb2.VERDICT_OK
    assert {(await at_a.task(task_id)).state for task_id in task_ids} == {tenure_pb2.SUCCEEDED}


async def test_what_was_in_flight_on_a_dead_stream_runs_again_at_once_where_its_worker_went(
    pair: Pair, search: str, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """Claimed at one master, never heard by the worker, which then says hello to the other."""
    at_b = open_broker(pair.b.address)
    port = int(pair.a.address.rpartition(":")[2])
    async with TcpRelay(port) as relay:
        old = await open_session(search, address=relay.address, want=2)
        await old.heartbeat()
        relay.hold_up()
        (lost,) = await at_b.submit(search)
        await at_b.until(lost, tenure_pb2.LEASED)
        session = await open_session(search, at=pair.b, want=1)
        again = await session.hear_task()
        # The other master may have claimed it once more for the stream that it believes to live.
        assert (again.task_id, again.epoch >= 2) == (lost, True)
        found = await at_b.task(lost)
        assert (found.attempts, found.losses) == (0, 0)


async def test_what_the_old_master_claims_just_after_the_hello_at_the_other_runs_again_soon(
    own_master: StartMaster, own_server: StoreServer, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """It had not yet heard that its worker's stream is dead, and no hello will ever tell of that lease."""
    master = await asyncio.to_thread(own_master, store=own_server.url, data_dir=None, grace_seconds=3)
    broker = open_broker(master.address)
    session = await open_session("w", at=master)
    held, lost = await broker.submit("s", 2)
    store = await open_store(StoreOptions(own_server.url))
    request = ClaimRequest("w", ["1" * 32, "2" * 32], [DEFAULT_CLASS], instance_id="instance-1")
    grants = list(await store.tasks.claim(request))
    await store.close()
    assert [grant.task_id for grant in grants] == [held, lost]
    # One of them did arrive there, just before the stream broke.
    renewal = worker_pb2.Renewal(task_id=held, lease_token=grants[0].token, epoch=1)
    assert (await session.heartbeat(renewal)).renewed == 1
    await session.want(1)
    again = await session.hear_task()
    assert (again.task_id, again.epoch) == (lost, 2)
    found = await broker.task(lost)
    assert (found.attempts, found.losses) == (0, 0)
    assert (await broker.task(held)).epoch == 1
    assert master.logged("session.settled", given_back=1, orphans=0)
