"""A cluster for each test, or a small fleet for the tests of one file."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from cluster import Cluster
from command_line import CommandLine
from processes import wait_for

from tenure.client import Client
from tenure.client.demo.processes import Fleet

TESTS = Path(__file__).resolve().parents[1]


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A master with an embedded store; workers are added by the test."""
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        await made.destroy()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A master, and a worker whose evaluations do what their config says."""
    with Fleet(tmp_path_factory.mktemp("broker")) as fleet:
        fleet.start_master().wait_ready()
        fleet.start_worker("--evaluator", "evaluators:evaluate", "--python-path", str(TESTS)).wait_ready()
        # Ready says that it serves, not that the master has heard it.
        with Client(fleet.master.facts["grpc"]) as client:
            wait_for(lambda: list(client.workers()), what="the worker at its master")
        yield fleet


@pytest.fixture
def tenure(fleet: Fleet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(fleet.master.facts["grpc"], capsys, monkeypatch)
