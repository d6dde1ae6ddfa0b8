"""Real masters and workers under a test that plays systemd: what they say, when they fall silent, what they inherit."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from notify_listener import Listener, Message
from processes import MasterProcess, eventually, make_master, start_master
from worker_process import WorkerProcess

from tenure.client import Client
from tenure.common.exits import ExitCode

ARCHITECTURE = {"nodes": [{"id": "out", "operation": "flatten"}], "edges": []}
# Short, so that a silence is soon one; a beat comes twice in it.
WATCHDOG_SECONDS = 2.0


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Whoever is started from here on tells it."""
    with Listener(tmp_path) as made:
        for name, value in made.environment(WATCHDOG_SECONDS).items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def master(tmp_path: Path, listener: Listener) -> Iterator[MasterProcess]:
    made = make_master(tmp_path / "master")
    made.spawn()
    yield made
    made.remove()


@pytest_asyncio.fixture
async def worker(tmp_path: Path) -> AsyncIterator[WorkerProcess]:
    made = WorkerProcess(tmp_path)
    yield made
    await made.destroy()


def is_ready(message: Message) -> bool:
    return message.get("READY") == "1"


def is_fed(message: Message) -> bool:
    return message.get("WATCHDOG") == "1"


def environment_of(pid: int) -> dict[str, str]:
    return psutil.Process(pid).environ()


def test_a_master_is_ready_when_it_serves_and_says_that_it_stops(master: MasterProcess, listener: Listener) -> None:
    ready = listener.until(is_ready)
    assert ready["MAINPID"] == str(master.pid)
    assert (master.folder / "ready.json").exists()
    assert is_fed(listener.until(lambda message: message["STATUS"] == "serving: 0 sessions with 0 leased tasks"))
    assert master.terminate() == ExitCode.OK
    assert listener.until(lambda message: message.get("STOPPING") == "1")
    assert [message.get("READY") for message in listener.heard].count("1") == 1


def test_a_master_that_does_not_turn_falls_silent_and_the_watchdog_shows_where(
    master: MasterProcess, listener: Listener
) -> None:
    listener.until(is_ready)
    master.signal(signal.SIGSTOP)
    assert listener.is_silent_for(WATCHDOG_SECONDS)
    master.signal(signal.SIGCONT)
    listener.until(is_fed, "it turns again")
    # What systemd does to one that stays silent.
    master.signal(signal.SIGABRT)
    assert master.wait() == -signal.SIGABRT
    assert "asyncio/base_events.py" in master.log_text(), "the stacks of its threads"


def test_a_store_that_is_away_costs_no_restart(master: MasterProcess, listener: Listener) -> None:
    listener.until(lambda message: message["STATUS"].startswith("serving"))
    store = psutil.Process(master.store_pid)
    store.suspend()
    try:
        listener.until(lambda message: "the store does not answer" in message["STATUS"])
        for _ in range(3):
            listener.until(is_fed)
    finally:
        store.resume()
    listener.until(lambda message: message["STATUS"].startswith("serving"))


def test_the_embedded_store_does_not_inherit_the_socket(master: MasterProcess, listener: Listener) -> None:
    listener.until(is_ready)
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & environment_of(master.store_pid).keys()


async def test_a_worker_says_what_it_does_and_drains_beyond_the_units_timeout(
    tmp_path: Path, worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its master lives elsewhere; its executors don't speak for it; a drain asks for more time with each beat."""
    master = start_master(tmp_path / "master")
    with Listener(tmp_path) as listener, Client(master.address) as client:
        for name, value in listener.environment(WATCHDOG_SECONDS).items():
            monkeypatch.setenv(name, value)
        await worker.start(master.address)
        starting = await asyncio.to_thread(listener.until, lambda message: "EXTEND_TIMEOUT_USEC" in message)
        assert starting["STATUS"].startswith("starting")
        ready = await asyncio.to_thread(listener.until, is_ready)
        assert ready["MAINPID"] == str(worker.pid)
        (executor,) = worker.executors()
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & executor.environ().keys()

        gate = tmp_path / "gate"
        task = {"architecture": ARCHITECTURE, "config": {"extra": {"gate": str(gate), "ignore_stop": "1"}}, "key": "1"}
        await asyncio.to_thread(client.search("drained").submit_many, [task])
        await worker.journaled("gate")
        await asyncio.to_thread(listener.until, lambda message: message["STATUS"] == "runs 1 in 1 slots")
        worker.signal(signal.SIGTERM)
        await asyncio.to_thread(listener.until, lambda message: message.get("STOPPING") == "1")
        for _ in range(2):
            draining = await asyncio.to_thread(listener.until, lambda message: "EXTEND_TIMEOUT_USEC" in message)
            assert draining["STATUS"] == "draining, runs 1 in 1 slots"
            assert int(draining["EXTEND_TIMEOUT_USEC"]) > WATCHDOG_SECONDS * 1e6
        gate.touch()
        assert await worker.wait() == ExitCode.OK
    master.remove()


async def test_a_worker_without_a_master_feeds_its_watchdog(listener: Listener, worker: WorkerProcess) -> None:
    await worker.start("127.0.0.1:1")
    await asyncio.to_thread(listener.until, is_ready)
    for _ in range(3):
        message = await asyncio.to_thread(listener.until, is_fed)
    assert message["STATUS"] == "looks for a master, runs 0 in 1 slots"
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == ExitCode.OK


async def test_a_worker_that_is_refused_ends_without_having_been_ready(
    listener: Listener, worker: WorkerProcess
) -> None:
    await worker.spawn("127.0.0.1:1", evaluator="no_such_module:evaluate")
    code = await eventually(lambda: worker.returncode)
    assert code == ExitCode.USAGE
    assert await asyncio.to_thread(listener.is_silent_for, 0.1)
    assert listener.heard
    assert not any(map(is_ready, listener.heard))
