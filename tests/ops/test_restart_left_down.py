"""What a run that was broken off left down: none of it keeps another down, whoever started it since is heard, and
whoever is stopped meanwhile says what is not back.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cluster import Cluster
from ops_scripts import Scripts, pid_of
from processes import eventually
from restarting.console import Console
from restarting.interruptions import finishing, undisturbed
from restarting.processes import CannotRestart, Recipe, RestartFailed
from restarting.run_record import RunRecord
from restarting.stopped import Stopped, start_again

INTERRUPTED = 130
SERVE = """
import json, os, pathlib, sys, time
pathlib.Path(sys.argv[1]).write_text(json.dumps({"pid": os.getpid(), "grpc": "h:1", "worker_id": "w"}))
time.sleep(600)
"""
HANG = "import time; time.sleep(600)"

# What the scripts start outlives whoever started it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:subprocess:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Nothing whose command line has a file of this folder outlives the test."""
    yield tmp_path
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(word.startswith(f"{tmp_path}/w") for word in process.cmdline()):
                process.kill()


def left_down(folder: Path, name: str, code: str) -> Stopped:
    """A worker that has ended, and is started by this code again."""
    ready = folder / f"{name}.ready"
    recipe = Recipe((sys.executable, "-c", code, str(ready), "tenure"), dict(os.environ), folder)
    nowhere = ("/dev/null", "/dev/null")
    return Stopped(f"worker {name}", ready, "", 2**22 + 1, 1.0, time.time(), recipe, recipe, nowhere)


def test_one_that_can_not_start_keeps_no_other_down(folder: Path) -> None:
    broken, gone, hung, good = (
        left_down(folder, "w1", "raise SystemExit(3)"),
        left_down(folder / "w-gone", "w2", SERVE),
        left_down(folder, "w3", HANG),
        left_down(folder, "w4", SERVE),
    )
    back: list[str] = []
    with pytest.raises(RestartFailed) as raised:
        start_again([broken, gone, hung, good], 2, folder / "log", Console(as_json=False), back.append)
    assert back == ["worker w4"]
    assert good.serving_pid == pid_of(folder / "w4.ready")
    for said in ("worker w1, pid", "ended after its start", "worker w2: can't start", "does not serve after 2 s"):
        assert said in str(raised.value)
    assert "w4" not in str(raised.value)


@pytest.mark.parametrize("knows_its_pid", [True, False])
def test_what_somebody_else_started_in_a_container_is_not_down(
    folder: Path, request: pytest.FixtureRequest, *, knows_its_pid: bool
) -> None:
    """A real namespace of process ids, where it is process 1."""
    serve = (
        "import socket, sys, time; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); time.sleep(600)"
    )
    words = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", serve, str(folder / "w1"), "tenure"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        assert engine.stderr is not None
        port = engine.stdout.readline().strip()
        if not port and "not permitted" in engine.stderr.read():
            pytest.skip("this user may make no namespaces")
        (inside,) = psutil.Process(engine.pid).children()
        request.addfinalizer(engine.kill)
        stopped = left_down(folder, "w1", SERVE)
        assert stopped.is_down
        facts = {"pid": inside.pid if knows_its_pid else 1, "grpc": f"127.0.0.1:{port}", "worker_id": "w1"}
        assert stopped.ready is not None
        stopped.ready.write_text(json.dumps(facts))
        back: list[str] = []
        assert start_again([stopped], 2, folder / "log", Console(as_json=False), back.append) == []
        assert back == ["worker w1"]
        assert stopped.coming_pid is None, "a second one was started beside it"
        inside.kill()
        engine.wait()
        assert stopped.is_down


async def test_a_second_ctrl_c_while_what_was_left_down_starts_says_what_is_not_back(
    folder: Path, scripts: Scripts
) -> None:
    hung = left_down(folder, "w1", HANG)
    assert hung.ready is not None
    with RunRecord(folder / "state", "rolling-restart") as record:
        record.will_stop([hung])
    options = ("workers", "--ready-file", hung.ready, "--state-dir", folder / "state")
    process = await scripts.start("rolling-restart", *options)
    assert process.stdout is not None
    assert process.stderr is not None
    assert b"it is started first" in await process.stdout.readline()
    await eventually(lambda: hung.coming_pid, what="the worker's start")
    process.send_signal(signal.SIGINT)
    assert b"Ctrl-C again leaves it" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == INTERRUPTED, (out, err)
    assert f"not back yet: worker w1: pid {hung.coming_pid} was started".encode() in out
    assert b"stopped: worker w1 is not back yet; to go on" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_waiting_restart_master_that_is_told_to_end_says_what_is_not_back(
    cluster: Cluster, scripts: Scripts, tmp_path: Path, number: signal.Signals
) -> None:
    ready = cluster.root / "master" / "ready.json"
    hang = [sys.executable, "-c", HANG, tmp_path / "w-hang", "tenure"]
    process = await scripts.start("restart-master", "--ready-file", ready, "--", *hang)
    assert process.stdout is not None
    while b"started pid" not in (line := await process.stdout.readline()):
        assert line, "it ended before it started a master"
    pid = int(line.split()[-1])
    try:
        process.send_signal(number)
        out, err = await process.communicate()
        assert process.returncode == INTERRUPTED, (out, err)
        assert f"not back yet: master {cluster.master.address}: pid {pid} was started".encode() in out
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("holding", [undisturbed, lambda: finishing("it")])
def test_a_hang_up_that_nohup_had_ignored_stays_ignored(holding: type) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with holding():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_record_of_another_users_is_not_to_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunRecord(tmp_path, "rolling-restart") as record:
        record.will_stop([left_down(tmp_path, "w1", SERVE)])

    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(CannotRestart, match="as that run's user, and don't delete it"):
        RunRecord(tmp_path, "restart-master").read()
