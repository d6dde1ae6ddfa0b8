"""A master whose store takes its time to load: nobody kills it for that, and whoever wants it to end is heard.

The store's append-only file gets commands that sleep, so that a real server says for seconds that it is loading.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from notify_listener import Listener, Message
from processes import MasterProcess, make_master, start_master, wait_for

from tenure.common.exits import ExitCode

WATCHDOG_SECONDS = 2.0
# The server looks up from its file every 1,024 commands: so some six times a second, with what a sleep takes at least.
_LOOK_COMMANDS, _LOOKS = 1024, 30
_SLEEP = b"*3\r\n$5\r\nDEBUG\r\n$5\r\nSLEEP\r\n$6\r\n0.0001\r\n"


def slow_down(data_dir: Path) -> None:
    """Loading takes several seconds longer."""
    (log,) = (data_dir / "store" / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(_SLEEP * (_LOOK_COMMANDS * _LOOKS))


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Whoever is started from here on tells it."""
    with Listener(tmp_path) as made:
        for name, value in made.environment(WATCHDOG_SECONDS).items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a master that has run once."""
    master = start_master(tmp_path / "master")
    try:
        assert master.terminate() == ExitCode.OK
    finally:
        master.remove()
    return master.folder


@pytest.fixture
def master(folder: Path, listener: Listener) -> Iterator[MasterProcess]:
    made = make_master(folder)
    yield made
    made.remove()


def is_loading(message: Message) -> bool:
    return message["STATUS"].startswith("starting: loading the store, ")


def started(master: MasterProcess, starts: int = 2) -> None:
    """Where it answers by HTTP is in its log before it is in the ready file."""
    *_, line = wait_for(lambda: len(lines := master.logged("master.starting")) == starts and lines)
    master.facts = {"http": line["http"]}


def test_a_start_lasts_as_long_as_the_store_loads(master: MasterProcess, listener: Listener) -> None:
    slow_down(master.data_dir)
    master.spawn()
    started(master)
    loading = listener.until(lambda message: is_loading(message) and "EXTEND_TIMEOUT_USEC" in message)
    assert int(loading["EXTEND_TIMEOUT_USEC"]) > WATCHDOG_SECONDS * 1e6
    assert loading["WATCHDOG"] == "1"
    assert master.get("/healthz")[0] == 200
    status, body = master.get("/readyz")
    assert status == 503
    assert json.loads(body)["why"] == "the store is loading"
    assert master.get("/metrics")[0] == 503, "noughts that nobody has read would wake somebody"
    assert master.logged("store.loading")
    assert len(master.logged("master.ready")) == 1, "of its first start"

    listener.until(lambda message: message.get("READY") == "1")
    wait_for(lambda: master.get("/readyz")[0] == 200)
    assert master.get("/metrics")[0] == 200
    assert master.terminate() == ExitCode.OK


def test_who_ends_a_master_while_it_loads_ends_its_store_and_nothing_is_lost(
    master: MasterProcess, listener: Listener
) -> None:
    slow_down(master.data_dir)
    kept = sum(file.stat().st_size for file in (master.data_dir / "store" / "appendonlydir").iterdir())
    master.spawn()
    listener.until(is_loading)
    (store,) = psutil.Process(master.pid).children()
    master.signal(signal.SIGTERM)
    assert master.wait() == ExitCode.OK
    assert not store.is_running()
    assert listener.until(lambda message: message.get("STOPPING") == "1")
    assert not any(message.get("READY") for message in listener.heard)
    assert not (master.data_dir / "store.sock").exists()
    assert sum(file.stat().st_size for file in (master.data_dir / "store" / "appendonlydir").iterdir()) == kept
    # Nobody holds the directory, and the file is whole.
    master.start()
    assert master.terminate() == ExitCode.OK
