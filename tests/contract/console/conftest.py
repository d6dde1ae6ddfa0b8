"""One master with a console for all of these tests; a search and raw peers a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from console_page import ConsolePage
from processes import MasterProcess, start_master
from raw_peers import MASTER_SETTINGS, Broker, OpenSession, RawSession

from tenure.proto import tenure_pb2


@pytest.fixture(scope="session")
def console_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterProcess]:
    """Nobody kills this one."""
    settings = MASTER_SETTINGS | {"console": "127.0.0.1:0", "console_names": "tenure.example.org"}
    process = start_master(tmp_path_factory.mktemp("console-master"), **settings)
    yield process
    assert process.logged("master.loop_died") == []
    assert process.terminate() == 0, process.log_text()[-3000:]
    process.remove()


@pytest.fixture
def console(console_master: MasterProcess) -> ConsolePage:
    """Its console."""
    return ConsolePage(console_master.facts["console"])


@pytest.fixture
async def broker(console_master: MasterProcess) -> AsyncIterator[Broker]:
    """Bare stubs of its client API."""
    broker = Broker(console_master.address)
    yield broker
    await broker.close()


@pytest.fixture
async def search(request: pytest.FixtureRequest, broker: Broker) -> AsyncIterator[str]:
    """A search of the test's own, which exists; cancelled behind the test, so that no other test's worker runs it."""
    name = f"{request.node.path.stem}.{request.node.name}"[:110]
    await broker.api.PutSearch(tenure_pb2.PutSearchRequest(name=name))
    yield name
    await broker.api.CancelSearch(tenure_pb2.SearchName(name=name))


@pytest.fixture
async def open_session(console_master: MasterProcess, search: str) -> AsyncIterator[OpenSession]:
    """Opens sessions of workers ``<search>-w<n>``; they say goodbye behind the test."""
    opened: list[RawSession] = []

    async def open_one(worker_id: str = "", **arguments: object) -> RawSession:
        worker_id = worker_id or f"{search}-w{len(opened) + 1}"
        opened.append(await RawSession.open(console_master.address, worker_id, **arguments))
        return opened[-1]

    yield open_one
    for session in opened:
        await session.goodbye()
        await session.hang_up()
