"""The units under a real systemd: started, watched, ended and started again as on a machine that boots with it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluators import JOURNAL_ENV, read_journal
from processes import wait_for
from systemd_stage import Stage, why_not
from tools import tool

from tenure.client import Client
from tenure.common.states import TaskState

pytestmark = pytest.mark.tools
TESTS = Path(__file__).resolve().parents[1]
ARCHITECTURE = {"nodes": [{"id": "out", "operation": "flatten"}], "edges": []}
MASTER, WORKER = "tenure-master", "tenure-worker@w1"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """With a master that serves."""
    tool("systemctl")
    if why := why_not():
        pytest.skip(why)
    made = Stage(tmp_path)
    made.settle(MASTER, {"TENURE_MASTER_LISTEN": "127.0.0.1:0", "TENURE_MASTER_HTTP": "127.0.0.1:0"}, "WatchdogSec=3")
    try:
        made.systemctl("start", MASTER)
        yield made
    finally:
        made.end()


def address_of(stage: Stage) -> str:
    facts = json.loads((stage.directory / "run" / "tenure-master" / "ready.json").read_text())
    return str(facts["grpc"])


def status(stage: Stage, unit: str) -> str:
    return stage.show(unit, "StatusText")


def submit(client: Client, **extra: str) -> str:
    handle = client.search("s").submit(ARCHITECTURE, config={"extra": extra})
    return str(handle.task_id)


def test_the_watchdog_ends_a_master_that_is_stuck_and_nothing_is_lost(stage: Stage) -> None:
    wait_for(lambda: status(stage, MASTER).startswith("serving"))
    with Client(address_of(stage)) as client:
        task = submit(client)
        stage.signal(MASTER, "SIGSTOP")
        wait_for(lambda: stage.show(MASTER, "NRestarts") == "1")
        assert "asyncio/base_events.py" in stage.log.read_text(), "where it was, in the journal"
        wait_for(lambda: status(stage, MASTER).startswith("serving"))
    with Client(address_of(stage)) as client:
        assert client.task(task).state is TaskState.QUEUED
    stage.settle("tenure-fsck", {"TENURE_MASTER": address_of(stage)})
    stage.systemctl("daemon-reload")
    stage.systemctl("start", "tenure-fsck")
    stage.systemctl("stop", MASTER)
    assert (stage.show(MASTER, "ActiveState"), stage.show(MASTER, "Result")) == ("inactive", "success")


def test_a_drain_may_last_longer_than_the_unit_allows_stops_to(stage: Stage, tmp_path: Path) -> None:
    gate, journal = tmp_path / "gate", tmp_path / "journal"
    settings = {
        "LISTEN": "127.0.0.1:0",
        "HTTP": "127.0.0.1:0",
        "EVALUATOR": "evaluators:evaluate",
        "PYTHON_PATH": str(TESTS),
        "CHECKPOINTS": str(tmp_path / "checkpoints"),
    }
    given = {f"TENURE_WORKER_{name}": value for name, value in settings.items()}
    given |= {"TENURE_MASTER": address_of(stage), JOURNAL_ENV: str(journal)}
    stage.settle("tenure-worker@", given, "TimeoutStopSec=1")
    stage.systemctl("daemon-reload")
    stage.systemctl("start", WORKER)
    with Client(address_of(stage)) as client:
        task = submit(client, gate=str(gate), ignore_stop="1")
        wait_for(lambda: read_journal(journal, event="gate"))
        began = time.monotonic()
        stage.systemctl("stop", "--no-block", WORKER)
        wait_for(lambda: status(stage, WORKER) == "draining, runs 1 in 1 slots")
        # Several times what the unit allows.
        wait_for(lambda: time.monotonic() - began > 4)
        assert stage.show(WORKER, "ActiveState") == "deactivating"
        gate.touch()
        wait_for(lambda: stage.show(WORKER, "ActiveState") == "inactive")
        assert stage.show(WORKER, "Result") == "success"
        assert client.task(task).state is TaskState.SUCCEEDED


def test_a_worker_sees_nothing_of_the_master_on_its_machine(stage: Stage, tmp_path: Path) -> None:
    """They share a user, and evaluators are somebody's code."""
    seen = tmp_path / "seen"
    look = f"/bin/sh -c 'ls {tmp_path}/state/master {tmp_path}/run/tenure-master >{seen} 2>&1; true'"
    stage.settle("tenure-worker@", {}, "Type=oneshot", "Restart=no", "ExecStart=", f"ExecStart={look}")
    stage.systemctl("daemon-reload")
    stage.systemctl("start", WORKER)
    assert "store.sock" in os.listdir(tmp_path / "state" / "master")
    assert "denied" in seen.read_text()
    assert "store.sock" not in seen.read_text()
    assert "ready.json" not in seen.read_text()
