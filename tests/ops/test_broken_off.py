"""A restart that is broken off leaves nothing down for good: it finishes it, or the next run does, of any script."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from cluster import Cluster
from ops_scripts import FAILED, KEPT, REFUSED, Scripts, pid_of
from processes import eventually, is_alive
from restarting.console import Console
from restarting.processes import Output, Recipe, start
from restarting.stopped import Stopped, start_again
from rolling_scene import Fleet
from worker_process import WorkerProcess

INTERRUPTED = 130


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """A master and two workers."""
    made = await Fleet(tmp_path).start(masters=1, workers=2)
    yield made
    await made.destroy()


def is_told_to_end(pid: int) -> bool:
    """Whether a SIGTERM waits for this process, which is stopped."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return bool(int(lines["ShdPnd"], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slow
async def test_ctrl_c_finishes_the_worker_that_is_on_its_way(fleet: Fleet, scripts: Scripts, tmp_path: Path) -> None:
    before = [pid_of(path) for path in fleet.workers_ready]
    options = ("workers", "--ready-file", *fleet.ready_files, "--state-dir", tmp_path / "state")
    process = await scripts.start("rolling-restart", *options)
    assert process.stdout is not None
    while b"and started again" not in (line := await process.stdout.readline()):
        assert line, "it ended before it started a worker again"
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == INTERRUPTED, (out, err)
    assert b"finishing workers w1, which is on its way, then will stop; Ctrl-C again leaves it" in err
    assert b"stopped; of what runs here nothing is down" in out
    assert b"w1: live again after" in out
    first, second = (pid_of(path) for path in fleet.workers_ready)
    assert is_alive(first)
    assert first != before[0]
    assert second == before[1]

    said = await scripts("rolling-restart", *options)
    assert said.code == KEPT, said
    assert "left out: worker w1 was restarted by the run that began at " in said.out
    assert pid_of(fleet.workers_ready[0]) == first
    assert pid_of(fleet.workers_ready[1]) != second


@pytest.mark.slow
async def test_a_second_ctrl_c_leaves_it_and_says_what_is_not_back(
    fleet: Fleet, scripts: Scripts, tmp_path: Path
) -> None:
    ready = fleet.workers_ready[0]
    options = ("workers", "--ready-file", *fleet.ready_files, "--state-dir", tmp_path / "state")
    process = await scripts.start("rolling-restart", *options)
    assert process.stdout is not None
    while b"and started again" not in (line := await process.stdout.readline()):
        assert line, "it ended before it started a worker again"
    (started,) = [each for each in psutil.Process(process.pid).children() if "tenure.worker" in each.cmdline()]
    started.suspend()
    try:
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert b"Ctrl-C again leaves it" in await process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    finally:
        started.resume()
    assert process.returncode == INTERRUPTED, (out, err)
    assert f"not back yet: worker w1: pid {started.pid} was started".encode() in out
    assert b"stopped: worker w1 is not back yet; to go on" in out

    said = await scripts("rolling-restart", *options)
    assert said.code == KEPT, said
    assert is_alive(pid_of(ready))


@pytest.mark.slow
async def test_what_a_killed_run_left_down_is_started_first_by_the_next(
    fleet: Fleet, scripts: Scripts, tmp_path: Path
) -> None:
    ready, worker = fleet.workers_ready[0], fleet.workers[0]
    state = tmp_path / "state"
    record = state / "stopped.json"
    second = pid_of(fleet.workers_ready[1])
    environ = psutil.Process(worker.pid).environ()
    options = ("workers", "--ready-file", *fleet.ready_files, "--state-dir", state)

    # It can't end before the run that stops it has been killed.
    worker.signal(signal.SIGSTOP)
    process = await scripts.start("rolling-restart", *options)
    await eventually(lambda: is_told_to_end(worker.pid), what="a SIGTERM")
    process.kill()
    await process.communicate()
    worker.signal(signal.SIGCONT)
    await worker.wait()
    assert stat.S_IMODE(record.stat().st_mode) == 0o600, "it has the environment, and what is secret there"
    assert [each["name"] for each in json.loads(record.read_text())["stopped"]] == ["worker w1"]

    said = await scripts("rolling-restart", *options, "--dry-run")
    assert said.code == KEPT, said
    assert "worker w1 was left down by a run that was broken off, and would be started first" in said.out
    assert f"output to {worker.log_path}" in said.out

    # It can't come back yet: nothing else is touched, and nothing is forgotten.
    elsewhere = worker.work_dir.rename(tmp_path / "elsewhere")
    worker.work_dir.write_text("no folder")
    said = await scripts("rolling-restart", *options)
    assert said.code == FAILED, said
    assert "ended after its start" in said.err
    assert "NOT BACK: worker w1 is down" in said.out
    assert pid_of(fleet.workers_ready[1]) == second
    worker.work_dir.unlink()
    elsewhere.rename(worker.work_dir)

    said = await scripts("rolling-restart", *options)
    assert said.code == KEPT, said
    assert "worker w1 was left down by a run that was broken off: it is started first" in said.out
    assert "left out: worker w1 was started just now" in said.out
    again = psutil.Process(pid_of(ready))
    assert again.environ() == environ
    assert await asyncio.to_thread(os.readlink, f"/proc/{again.pid}/fd/1") == str(worker.log_path)
    assert pid_of(fleet.workers_ready[1]) != second
    assert not record.exists()


@pytest.mark.slow
async def test_a_worker_that_a_killed_restart_workers_left_down_is_started_by_any_script(
    fleet: Fleet, scripts: Scripts
) -> None:
    ready, worker = fleet.workers_ready[0], fleet.workers[0]
    second = pid_of(fleet.workers_ready[1])
    worker.signal(signal.SIGSTOP)
    process = await scripts.start("restart-workers", *fleet.workers_ready)
    await eventually(lambda: is_told_to_end(worker.pid), what="a SIGTERM")
    for name in ("restart-master", "restart-workers", "rolling-restart"):
        options = fleet.workers_ready if name == "restart-workers" else ["--ready-file", *fleet.masters_ready]
        said = await scripts(name, *options)
        assert said.code == REFUSED, said
        assert f"another run is going on (pid {process.pid})" in said.err
    process.kill()
    await process.communicate()
    worker.signal(signal.SIGCONT)
    await worker.wait()

    said = await scripts("restart-workers", ready, "--dry-run")
    assert said.code == KEPT, said
    assert "worker w1 was left down by a run that was broken off, and would be started first" in said.out
    assert pid_of(ready) == worker.pid

    said = await scripts("restart-master", "--ready-file", *fleet.masters_ready)
    assert said.code == KEPT, said
    assert "worker w1 was left down by a run that was broken off: it is started first" in said.out
    assert is_alive(pid_of(ready))
    assert pid_of(fleet.workers_ready[1]) == second

    said = await scripts("restart-workers", *fleet.workers_ready)
    assert said.code == KEPT, said
    assert "left down" not in said.out
    assert pid_of(fleet.workers_ready[1]) != second


def leavings(worker: WorkerProcess) -> list[str]:
    """How the worker was told to end, each time."""
    lines = map(json.loads, worker.log_path.read_text().splitlines())
    return [line["how"] for line in lines if line["event"] == "worker.leaving"]


@pytest.mark.slow
@pytest.mark.parametrize("named", ["w1", "w2"])
async def test_a_worker_that_still_drains_for_a_killed_run_is_waited_for(
    cluster: Cluster, scripts: Scripts, named: str
) -> None:
    """Another SIGTERM would kill what it runs; and who forgets it would leave it down beside the one that is named."""
    worker = await cluster.add_worker("w1", drain_grace_seconds=60)
    gate, ready = cluster.root / "gate", cluster.root / "w1.ready"
    (task_id,) = await cluster.submit("first", ["deaf"], {"ignore_stop": "1", "gate": str(gate)})
    await eventually(lambda: cluster.journal("gate"), what="the evaluation at the gate")
    process = await scripts.start("restart-workers", ready)
    await eventually(lambda: leavings(worker), what="a drain")
    process.kill()
    await process.communicate()

    other = await cluster.add_worker("w2")
    said = await scripts("restart-workers", cluster.root / "w2.ready", "--dry-run")
    assert "worker w1 still ends for a run that was broken off: it would be waited for, and started" in said.out

    process = await scripts.start("restart-workers", cluster.root / f"{named}.ready")
    assert process.stdout is not None
    while b"worker w1, pid" not in (line := await process.stdout.readline()) or b"it is waited for" not in line:
        assert line, "it ended before it looked at the worker"
    assert is_alive(worker.pid)
    gate.touch()
    out, err = await process.communicate()
    assert process.returncode == KEPT, (out, err)
    assert leavings(worker) == ["drain"]
    assert is_alive(pid_of(ready))
    assert (pid_of(cluster.root / "w2.ready") == other.pid) == (named == "w1")
    await cluster.all_ended("first")
    (record,) = (await cluster.records([task_id])).values()
    assert (record.state, record.losses, record.attempts) == ("SUCCEEDED", 0, 0)


async def kill_while_it_waits_for(pid: int, scripts: Scripts, *arguments: str | Path) -> None:
    """A restart of the master with this pid, which can't end before the script is killed."""
    os.kill(pid, signal.SIGSTOP)
    process = await scripts.start("restart-master", *arguments[:2], "--unproved", *arguments[2:])
    await eventually(lambda: is_told_to_end(pid), what="a SIGTERM")
    process.kill()
    await process.communicate()
    os.kill(pid, signal.SIGCONT)
    await eventually(lambda: not is_alive(pid), what="the master's end")


@pytest.mark.slow
async def test_a_master_that_a_killed_run_left_down_is_started_as_it_was_or_as_it_was_to_be(
    cluster: Cluster, scripts: Scripts, tmp_path: Path
) -> None:
    await cluster.add_worker("w1")
    (done,) = await cluster.submit("first", ["done"], {})
    await cluster.all_ended("first")
    ready = cluster.root / "master" / "ready.json"
    pid = pid_of(ready)
    argv, environ = psutil.Process(pid).cmdline(), psutil.Process(pid).environ()
    await kill_while_it_waits_for(pid, scripts, "--ready-file", ready)
    assert stat.S_IMODE((tmp_path / "home" / "ops" / "stopped.json").stat().st_mode) == 0o600

    said = await scripts("restart-master", "--ready-file", ready, "--dry-run")
    assert said.code == KEPT, said
    assert "was left down by a run that was broken off, and would be started first" in said.out
    assert not ready.exists(), "a master that ends in order takes it along"

    said = await scripts("restart-master", "--ready-file", ready)
    assert said.code == KEPT, said
    assert "was left down by a run that was broken off: it is started first" in said.out
    assert "was started just now: it is not restarted once more" in said.out
    again = psutil.Process(pid_of(ready))
    assert again.cmdline()[: len(argv)] == argv
    assert again.environ() == {**environ, "TENURE_MASTER_LISTEN": cluster.master.address}

    # By another command line, without which nobody would know its settings either.
    new = [sys.executable, "-m", "tenure.client.cli", "master", "--log-level", "debug"]
    await kill_while_it_waits_for(again.pid, scripts, "--ready-file", ready, "--", *new)
    said = await scripts("restart-master", "--ready-file", ready, "--", *new)
    assert said.code == KEPT, said
    newest = psutil.Process(pid_of(ready))
    assert newest.cmdline() == new
    assert newest.environ()["TENURE_MASTER_DATA_DIR"] == environ["TENURE_MASTER_DATA_DIR"]
    assert (await cluster.records([done]))[done].state == "SUCCEEDED"
    assert not (tmp_path / "home" / "ops" / "stopped.json").exists()


async def test_a_master_named_by_the_pid_that_a_killed_run_stopped_is_back_by_another(
    cluster: Cluster, scripts: Scripts
) -> None:
    ready = cluster.root / "master" / "ready.json"
    pid = pid_of(ready)
    await kill_while_it_waits_for(pid, scripts, "--pid", str(pid))
    said = await scripts("restart-master", "--pid", str(pid))
    assert said.code == KEPT, said
    # Where it serves its ready file said, not --master.
    assert (
        f"master {cluster.master.address} was left down by a run that was broken off: it is started first" in said.out
    )
    assert "was started just now: it is not restarted once more" in said.out
    assert is_alive(pid_of(ready))


# What it starts outlives whoever started it.
@pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_came_up_by_the_version_that_is_left_and_does_not_serve_is_ended(tmp_path: Path) -> None:
    ready = tmp_path / "w1.ready"
    serve = (
        "import json, os, pathlib, sys, time; "
        "facts = {'pid': os.getpid(), 'grpc': 'h:1', 'worker_id': 'w1'}; "
        "pathlib.Path(sys.argv[1]).write_text(json.dumps(facts)); time.sleep(600)"
    )
    good = Recipe((sys.executable, "-c", serve, str(ready), "tenure"), dict(os.environ), tmp_path)
    bad = replace(good, argv=(sys.executable, "-c", "import time; time.sleep(600)", "tenure"))
    output = Output(None, tmp_path / "log")
    output.open()
    hung = start(bad, output)
    try:
        started_unix = psutil.Process(hung.pid).create_time()
        # The process that was stopped has ended long ago.
        stopped = Stopped("worker w1", ready, "", 2**22 + 1, 1.0, started_unix, good, bad, output.names)
        assert stopped.is_down
        assert stopped.coming_pid == hung.pid
        started = start_again([stopped.only_by(good)], 30, tmp_path / "log", Console(as_json=False))
        assert started == ["worker w1"]
        assert not is_alive(hung.pid)
        assert stopped.serving_pid == pid_of(ready)
    finally:
        output.close()
        hung.kill()
        if ready.exists():
            psutil.Process(pid_of(ready)).kill()
