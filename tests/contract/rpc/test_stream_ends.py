"""How streams end, and what each is counted as: OK if it was ended in order, CANCELLED if it broke."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from cluster import Cluster
from processes import DEADLINE_SECONDS, MasterProcess, eventually, start_master
from raw_peers import MASTER_SETTINGS, Broker, OpenBroker, OpenSession, RawSession, StartMaster, refused
from scrapes import Scrape, growth, scrape
from store_server import OpenStore, StoreServer
from tcp_relay import TcpRelay

from tenure.master.master import Master
from tenure.master.metrics import MasterMetrics
from tenure.master.settings import load_settings
from tenure.proto import tenure_pb2, worker_pb2

# Without a rule of its own about one in twenty of them was taken for an end in order.
BREAKS = 60


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterProcess]:
    """This module's own: nobody else's stream ends meanwhile."""
    process = start_master(tmp_path_factory.mktemp("own"), **MASTER_SETTINGS)
    yield process
    assert process.logged("master.loop_died") == []
    process.remove()


@pytest.fixture
def master(own: MasterProcess) -> MasterProcess:
    """Where ``broker``, ``search`` and ``open_session`` are."""
    return own


@pytest.fixture
async def before(master: MasterProcess) -> Scrape:
    """The master's counts before the test, when no stream is open."""
    await eventually(lambda: no_stream(master))
    return await scrape(master)


@pytest.fixture
async def relay(master: MasterProcess) -> AsyncIterator[TcpRelay]:
    """A network before the master that can be cut."""
    async with TcpRelay(port_of(master)) as relay:
        yield relay


def port_of(master: MasterProcess) -> int:
    return int(master.address.rpartition(":")[2])


async def no_stream(master: MasterProcess) -> bool:
    return (await scrape(master)).value("tenure_rpc_streams_open") == 0


async def ends(master: MasterProcess, before: Scrape) -> dict[tuple[str, str], float]:
    """How the streams since ``before`` ended, once all have."""
    await eventually(lambda: no_stream(master), what="the streams' ends")
    return await growth(master, before, "tenure_rpc_streams_total", "method", "code")


# ---- ended in order -----------------------------------------------------------------------------------------------


async def test_a_goodbye(before: Scrape, open_session: OpenSession, master: MasterProcess) -> None:
    session = await open_session()
    assert (await scrape(master)).by("tenure_rpc_streams_open", "method") == {("Session",): 1}
    await session.goodbye()
    assert await ends(master, before) == {("Session", "OK"): 1}


async def test_a_side_that_is_closed_without_a_goodbye(
    before: Scrape, open_session: OpenSession, master: MasterProcess
) -> None:
    """Its messages end as those of a broken stream do, but nothing is broken: the peer hears the status."""
    session = await open_session()
    await session.close_its_side()
    assert await session.ended() == grpc.StatusCode.OK
    assert await ends(master, before) == {("Session", "OK"): 1}


async def test_a_stream_that_says_nothing(before: Scrape, broker: Broker, master: MasterProcess) -> None:
    call = broker.workers.Session()
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.OK
    assert await ends(master, before) == {("Session", "OK"): 1}


async def test_a_worker_that_drains(own_cluster: Cluster) -> None:
    before = await scrape(own_cluster.master)
    worker = await own_cluster.add_worker("w")
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == 0
    assert await ends(own_cluster.master, before) == {("Session", "OK"): 1}


# ---- broken -------------------------------------------------------------------------------------------------------


async def test_sessions_whose_process_hangs_up(before: Scrape, search: str, master: MasterProcess) -> None:
    for number in range(BREAKS):
        session = await RawSession.open(master.address, f"{search}-w{number}", want=1)
        await session.hang_up()
    assert await ends(master, before) == {("Session", "CANCELLED"): BREAKS}


async def test_sessions_whose_network_is_cut(
    before: Scrape, search: str, master: MasterProcess, relay: TcpRelay
) -> None:
    sessions = [await RawSession.open(relay.address, f"{search}-w{number}", want=1) for number in range(BREAKS)]
    await relay.cut()
    assert await ends(master, before) == {("Session", "CANCELLED"): BREAKS}
    for session in sessions:
        await session.hang_up()


async def test_streams_that_break_while_the_master_writes(
    before: Scrape, search: str, broker: Broker, open_broker: OpenBroker, master: MasterProcess, relay: TcpRelay
) -> None:
    """What gRPC then says is no cancellation, and no error of the master's either."""
    for number in range(5):
        cut = open_broker(relay.address)
        watches = [cut.api.Watch(tenure_pb2.WatchRequest()) for _ in range(5)]
        for watch in watches:
            await watch.read()
        sessions = [await RawSession.open(relay.address, f"{search}-w{number}-{each}") for each in range(5)]
        submits = asyncio.gather(*(broker.submit(search, 50) for _ in range(5)))
        await asyncio.sleep(0.01 * number)
        master.signal(signal.SIGSTOP)
        for session in sessions * 10:
            heartbeat = worker_pb2.HeartbeatRequest(worker_id=session.worker_id, instance_id=session.instance_id)
            await session.say(heartbeat=heartbeat)
        await relay.cut()
        master.signal(signal.SIGCONT)
        await submits
        for session in sessions:
            await session.hang_up()
    assert await ends(master, before) == {("Watch", "CANCELLED"): 25, ("Session", "CANCELLED"): 25}


async def test_a_connection_that_breaks_before_the_hello(
    before: Scrape, open_broker: OpenBroker, master: MasterProcess, relay: TcpRelay
) -> None:
    broker = open_broker(relay.address)
    calls = [broker.workers.Session() for _ in range(BREAKS)]

    async def all_there() -> bool:
        return (await scrape(master)).value("tenure_rpc_streams_open", method="Session") == BREAKS

    await eventually(all_there)
    await relay.cut()
    assert await ends(master, before) == {("Session", "CANCELLED"): BREAKS}
    del calls


async def test_a_worker_that_is_killed(own_cluster: Cluster) -> None:
    before = await scrape(own_cluster.master)
    worker = await own_cluster.add_worker("w")
    await worker.destroy()
    assert worker.returncode == -signal.SIGKILL
    assert await ends(own_cluster.master, before) == {("Session", "CANCELLED"): 1}


async def test_a_break_that_nobody_was_told_of_shows_when_the_worker_is_back(
    before: Scrape, search: str, open_session: OpenSession, master: MasterProcess, relay: TcpRelay
) -> None:
    await open_session(search, address=relay.address)
    relay.hold_up()
    session = await open_session(search)
    await eventually(lambda: master.logged("session.down", worker=search))
    await session.goodbye()
    assert await ends(master, before) == {("Session", "CANCELLED"): 1, ("Session", "OK"): 1}


async def test_and_when_it_is_back_at_another_master(
    own_master: StartMaster, open_session: OpenSession, tmp_path: Path
) -> None:
    server = await asyncio.to_thread(StoreServer(tmp_path / "store").start)
    try:
        a, b = [await asyncio.to_thread(own_master, name, store=server.url, data_dir=None) for name in ("a", "b")]
        async with TcpRelay(port_of(a)) as relay:
            nothing = await scrape(a)
            await open_session("w", address=relay.address)
            relay.hold_up()
            session = await open_session("w", at=b)
            assert await ends(a, nothing) == {("Session", "CANCELLED"): 1}
            await session.goodbye()
            assert await ends(b, nothing) == {("Session", "OK"): 1}
    finally:
        server.remove()


async def test_a_watch_that_its_client_gives_up(before: Scrape, broker: Broker, master: MasterProcess) -> None:
    watch = broker.api.Watch(tenure_pb2.WatchRequest())
    await watch.read()
    watch.cancel()
    assert await ends(master, before) == {("Watch", "CANCELLED"): 1}


# ---- ended by the master ------------------------------------------------------------------------------------------


async def test_streams_that_are_refused(
    before: Scrape, search: str, broker: Broker, open_session: OpenSession, master: MasterProcess
) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT):
        await open_session(instance_id="")
    async with refused(grpc.StatusCode.NOT_FOUND):
        await broker.api.Watch(tenure_pb2.WatchRequest(search=f"not-{search}")).read()
    session = await open_session()
    await session.want(-1)
    assert await session.ended() == grpc.StatusCode.INVALID_ARGUMENT
    assert await ends(master, before) == {("Session", "INVALID_ARGUMENT"): 2, ("Watch", "NOT_FOUND"): 1}


async def test_a_session_that_another_process_supersedes(
    before: Scrape, search: str, open_session: OpenSession, master: MasterProcess
) -> None:
    older = await open_session(search, instance_id="one")
    newer = await open_session(search, instance_id="two")
    assert await older.ended() == grpc.StatusCode.ABORTED
    await newer.goodbye()
    assert await ends(master, before) == {("Session", "ABORTED"): 1, ("Session", "OK"): 1}


async def test_a_session_that_says_what_nobody_can_read(
    before: Scrape, search: str, broker: Broker, master: MasterProcess
) -> None:
    """It is ended, not left open with nobody who reads it."""
    call = broker.channel.stream_stream("/morphml.distributed.MasterService/Session")()
    worker = worker_pb2.RegisterRequest(worker_id=search, instance_id="i", slots=1, dispatch=worker_pb2.DISPATCH_PULL)
    await call.write(worker_pb2.SessionUp(hello=worker_pb2.Hello(worker=worker)).SerializeToString())
    await call.read()
    await call.write(b"\xff\xff\xff")
    async with refused(grpc.StatusCode.UNKNOWN):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await call.read() is not grpc.aio.EOF:
                pass
    assert await ends(master, before) == {("Session", "UNKNOWN"): 1}


async def test_streams_of_a_master_that_stops(open_test_store: OpenStore) -> None:
    """In this process, so that there is somebody left to be asked."""
    metrics = MasterMetrics()
    master = Master(load_settings(listen="127.0.0.1:0"), await open_test_store(), metrics)
    address = str(await master.start())
    session = await RawSession.open(address, "w")
    broker = Broker(address)
    watch = broker.api.Watch(tenure_pb2.WatchRequest())
    await watch.read()
    await master.stop()
    assert await session.ended() == await watch.code() == grpc.StatusCode.UNAVAILABLE
    await session.hang_up()
    await broker.close()
    samples = [sample for family in metrics.rpc_streams_ended.collect() for sample in family.samples]
    assert {tuple(s.labels.values()): s.value for s in samples if s.name.endswith("_total")} == {
        ("Session", "UNAVAILABLE"): 1,
        ("Watch", "UNAVAILABLE"): 1,
    }


@pytest.fixture
async def own_cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A master for real workers."""
    made = await asyncio.to_thread(Cluster, tmp_path)
    try:
        yield made
    finally:
        await made.destroy()
