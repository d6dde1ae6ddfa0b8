"""One real master for all tests that don't harm it, own ones for those that do; a search and raw peers a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from morphml_worker import MakeWorker, MorphmlWorker
from processes import MasterProcess, start_master, wait_for
from raw_peers import MASTER_SETTINGS, Broker, OpenBroker, OpenSession, RawSession, StartMaster

from tenure.proto import tenure_pb2


@pytest.fixture(scope="session")
def shared_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterProcess]:
    """Nobody kills this one."""
    process = start_master(tmp_path_factory.mktemp("shared-master"), **MASTER_SETTINGS)
    yield process
    # A stream that ended has left nothing behind.
    wait_for(lambda: "tenure_sessions 0.0" in process.get("/metrics")[1])
    wait_for(lambda: len(process.logged("session.down")) == len(process.logged("session.up")))
    assert process.terminate() == 0, process.log_text()[-3000:]
    assert process.logged("master.loop_died") == []
    process.remove()


@pytest.fixture
def master(shared_master: MasterProcess) -> MasterProcess:
    """The master of the test: the shared one. Modules whose tests harm theirs override this."""
    return shared_master


@pytest.fixture
def own_master(tmp_path: Path) -> Iterator[StartMaster]:
    """Starts masters that the test may do anything to."""
    started: list[MasterProcess] = []

    def start(name: str = "master", **settings: Any) -> MasterProcess:
        process = start_master(tmp_path / name, **MASTER_SETTINGS | settings)
        started.append(process)
        return process

    yield start
    for process in started:
        process.remove()


@pytest.fixture(scope="module")
def short_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterProcess]:
    """A module's own master on which leases that nobody renews run out within a test."""
    settings = MASTER_SETTINGS | {"lease_ttl_seconds": 3, "heartbeat_seconds": 0.5}
    process = start_master(tmp_path_factory.mktemp("short-master"), **settings)
    yield process
    assert process.logged("master.loop_died") == []
    process.remove()


@pytest.fixture
async def open_broker() -> AsyncIterator[OpenBroker]:
    """Opens brokers at any address; closed behind the test."""
    opened: list[Broker] = []

    def open_one(address: str, *options: tuple[str, Any]) -> Broker:
        opened.append(Broker(address, *options))
        return opened[-1]

    yield open_one
    for broker in opened:
        await broker.close()


@pytest.fixture
async def broker(master: MasterProcess, open_broker: OpenBroker) -> Broker:
    """Bare stubs of the test's master."""
    return open_broker(master.address)


@pytest.fixture
async def search(request: pytest.FixtureRequest, broker: Broker) -> AsyncIterator[str]:
    """A search's name of the test's own; also the first part of its worker ids.

    Behind the test it is cancelled, so that none of its tasks reaches another test's workers, and the store must be
    sound.
    """
    name = f"{request.node.path.stem.removeprefix('test_')}.{request.node.name}"[:110]
    yield name
    try:
        await broker.api.CancelSearch(tenure_pb2.SearchName(name=name), wait_for_ready=True, timeout=60)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
            return
        raise
    assert await broker.fsck() == []


@pytest.fixture
async def open_session(master: MasterProcess, search: str) -> AsyncIterator[OpenSession]:
    """Opens sessions, by default at the test's master and of worker ``<search>-w<n>``; broken off behind the test."""
    opened: list[RawSession] = []

    async def open_one(
        worker_id: str = "", *, at: MasterProcess | None = None, address: str = "", **arguments: Any
    ) -> RawSession:
        worker_id = worker_id or f"{search}-w{len(opened) + 1}"
        session = await RawSession.open(address or (at or master).address, worker_id, **arguments)
        opened.append(session)
        return session

    yield open_one
    for session in opened:
        await session.hang_up()


@pytest.fixture
def make_worker(master: MasterProcess, search: str) -> Iterator[MakeWorker]:
    """Makes MorphML workers: ``<search>-w<n>`` of the test's master, or ``w`` of another; stopped behind the test."""
    made: list[MorphmlWorker] = []

    def make(at: MasterProcess | None = None, **arguments: Any) -> MorphmlWorker:
        worker_id = f"{search}-w{len(made) + 1}" if at is None else "w"
        worker = MorphmlWorker((at or master).address, worker_id, **arguments)
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.stop()
