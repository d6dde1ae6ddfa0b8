"""The clock of the store's host is stepped, or is not the master's: no lease is lost to it, nor a dead letter."""

from __future__ import annotations

import asyncio
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from console_page import ConsolePage
from processes import MasterProcess, eventually, wait_for
from raw_peers import OpenBroker, OpenSession, StartMaster, renewal_of
from store_server import StoreServer

from tenure.proto import worker_pb2

SHIM = Path(__file__).parents[2] / "stepped_clock.c"
HOUR = 3600.0
Step = Callable[[float], None]


@pytest.fixture
def stepped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StoreServer, Step]]:
    """A server, and how to put its wall clock off by so many seconds from the machine's while it runs."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("NOT TESTED: stepping a server's clock needs Linux and a C compiler")
    library, offset = tmp_path / "stepped_clock.so", tmp_path / "offset"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, SHIM, "-ldl"], check=True)
    offset.write_bytes(struct.pack("q", 0))

    def step(seconds: float) -> None:
        with offset.open("r+b") as file:
            file.write(struct.pack("q", round(seconds * 1e6)))

    with monkeypatch.context() as environment:
        environment.setenv("LD_PRELOAD", str(library))
        environment.setenv("STEPPED_CLOCK", str(offset))
        server = StoreServer(tmp_path / "store").start()
    yield server, step
    server.remove()


def assert_off_by(server: StoreServer, seconds: float) -> None:
    """So much does the server's clock differ from the machine's, which goes on while the server is asked."""
    with server.client() as client:
        before = time.time()
        whole, micros = client.time()
        after = time.time()
    assert before - 1 < whole + micros / 1e6 - seconds < after + 1


def lease_clock(master: MasterProcess) -> float:
    """As the master last heard it; one that has just started hasn't yet."""

    def told() -> re.Match[str] | None:
        metrics = master.get("/metrics")[1]
        return re.search(r'^tenure_lease_clock_seconds\{shard="0"\} (\S+)$', metrics, re.MULTILINE)

    return float(wait_for(told, what="the first tick")[1])


async def test_steps_of_hours_cost_no_lease(
    own_master: StartMaster,
    open_broker: OpenBroker,
    open_session: OpenSession,
    stepped: tuple[StoreServer, Step],
) -> None:
    server, step = stepped
    master = await asyncio.to_thread(own_master, store=server.url, data_dir=None, lease_ttl_seconds=300)
    broker = open_broker(master.address)
    task_ids = await broker.submit("s", 3)
    session = await open_session("w", at=master, want=3)
    tasks = await session.hear_tasks(3)
    started, began = lease_clock(master), time.monotonic()

    async def runs_on() -> None:
        """The lease clock has gone on, by no more than the time that passed and a cap for each step."""
        now = lease_clock(master)
        await eventually(lambda: lease_clock(master) > now + 0.3, what="the lease clock goes on")

    steps = (3 * HOUR, -5 * HOUR, 24 * 365 * HOUR, 0.0, 0.2, -0.2)
    for seconds in steps:
        step(seconds)
        assert_off_by(server, seconds)
        await runs_on()
    # An outage of the store for hours, as far as its clock can tell; and one over which the clock is set back.
    for seconds in (10 * HOUR, -10 * HOUR):
        server.pause()
        step(seconds)
        await asyncio.sleep(0.3)
        server.resume()
        await runs_on()
    # And of all masters.
    master.kill()
    step(100 * HOUR)
    await asyncio.to_thread(master.restart)
    await runs_on()

    cap = 2 * 0.1
    assert lease_clock(master) - started <= time.monotonic() - began + cap * (len(steps) + 3)
    counters = await broker.counters()
    assert counters.get("leases_expired", 0) == 0
    session = await open_session("w", at=master, held=[renewal_of(task) for task in tasks])
    assert session.renewed.renewed == 3
    for task in tasks:
        assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK
    found = [await broker.task(task_id) for task_id in task_ids]
    assert [(task.epoch, task.losses) for task in found] == [(1, 0)] * 3
    assert master.logged("store.rolled_back") == []
    assert await broker.fsck() == []


@pytest.mark.parametrize("seconds", [300, -300], ids=["behind", "ahead"])
async def test_a_master_whose_clock_is_off_requeues_every_dead_letter(
    own_master: StartMaster,
    open_broker: OpenBroker,
    open_session: OpenSession,
    stepped: tuple[StoreServer, Step],
    seconds: float,
) -> None:
    """Behind or ahead of the store's, by which the ends are noted."""
    server, step = stepped
    step(seconds)
    master = await asyncio.to_thread(own_master, store=server.url, data_dir=None, console="127.0.0.1:0")
    broker = open_broker(master.address)
    await broker.submit("s", 3)
    session = await open_session("w", at=master, want=3)
    for task in await session.hear_tasks(3):
        await session.end(task, worker_pb2.OUTCOME_FAILURE, retryable=False, error_class="ValueError")
    console = ConsolePage(master.facts["console"])
    answer = await asyncio.to_thread(console.act, action="requeue_dead", search="s")
    assert answer.json["said"] == "3 tasks of s are in the queue again, with fresh budgets"
    # Nor does the pace of a search that began by another clock get out of hand.
    shown = await asyncio.to_thread(console.read, "/api/search", name="s")
    assert 0 < shown["forecast"]["window_ms"] < 60_000
