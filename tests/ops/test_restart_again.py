"""restart-master by another command line, run again after it failed or was killed: never two masters at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cluster import Cluster
from ops_scripts import FAILED, KEPT, Scripts, pid_of
from processes import is_alive

SCRIPTS = Path(__file__).resolve().parents[2] / "ops" / "scripts"
MASTER = [sys.executable, "-m", "tenure.client.cli", "master", "--log-level", "debug"]
# A master that takes long to load: until the gate is there.
SLOW = """
import pathlib, runpy, sys, time
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.05)
sys.argv = ["tenure", "master"]
runpy.run_module("tenure.client.cli", run_name="__main__")
"""


def slow_masters(gate: Path) -> list[int]:
    """Those that run, and wait for this gate."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[1:4] == ["-c", SLOW, str(gate)] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """What a slow master waits for; none outlives the test."""
    path = tmp_path / "gate"
    yield path
    for pid in slow_masters(path):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for each in [*process.children(recursive=True), process]:
                each.kill()


async def test_the_same_command_again_waits_for_what_the_first_one_started(
    cluster: Cluster, scripts: Scripts, gate: Path
) -> None:
    ready = cluster.root / "master" / "ready.json"
    slow = ("--ready-file", ready, "--ready-timeout", "1", "--", sys.executable, "-c", SLOW, gate, "tenure")
    said = await scripts("restart-master", *slow)
    assert said.code == FAILED, said
    (pid,) = slow_masters(gate)
    assert f"pid {pid} does not serve at {cluster.master.address} after 1 s; it was left alone" in said.err

    said = await scripts("restart-master", *slow[:2], "--dry-run", *slow[4:])
    assert said.code == KEPT, said
    assert f"pid {pid} was started by an earlier run, and is waited for" in said.out

    process = await scripts.start("restart-master", *slow[:2], *slow[4:])
    assert process.stdout is not None
    while f"pid {pid} was started by an earlier run: it is waited for".encode() not in (
        line := await process.stdout.readline()
    ):
        assert line, "it ended before it waited"
    assert slow_masters(gate) == [pid]
    gate.touch()
    out, err = await process.communicate()
    assert process.returncode == KEPT, (out, err)
    assert pid_of(ready) == pid
    assert json.loads(ready.read_text())["grpc"] == cluster.master.address


async def test_another_command_ends_what_the_first_one_started_and_keeps_the_port(
    cluster: Cluster, scripts: Scripts, gate: Path
) -> None:
    ready = cluster.root / "master" / "ready.json"
    slow = [sys.executable, "-c", SLOW, str(gate), "tenure"]
    said = await scripts("restart-master", "--ready-file", ready, "--ready-timeout", "1", "--", *slow)
    assert said.code == FAILED, said
    (pid,) = slow_masters(gate)

    said = await scripts("restart-master", "--ready-file", ready, "--", *MASTER, "--listen", "127.0.0.1:0")
    assert said.code == KEPT, said
    assert f"as pid {pid}, which does not serve: it is ended" in said.out
    assert not is_alive(pid)
    assert psutil.Process(pid_of(ready)).cmdline()[: len(MASTER)] == MASTER
    assert json.loads(ready.read_text())["grpc"] == cluster.master.address, "workers and clients know only that port"


async def test_the_master_that_a_killed_second_run_started_is_waited_for_by_the_next_script(
    cluster: Cluster, scripts: Scripts, gate: Path
) -> None:
    ready = cluster.root / "master" / "ready.json"
    said = await scripts("restart-master", "--ready-file", ready, "--", sys.executable, "-c", "exit(7)", "tenure")
    assert said.code == FAILED, said
    slow = [sys.executable, "-c", SLOW, str(gate), "tenure"]
    process = await scripts.start("restart-master", "--ready-file", ready, "--", *slow)
    assert process.stdout is not None
    while b"started pid" not in (line := await process.stdout.readline()):
        assert line, "it ended before it started a master"
    process.kill()
    await process.communicate()
    pid = int(line.split()[-1])

    process = await scripts.start("rolling-restart", "masters", "--ready-file", ready)
    assert process.stdout is not None
    waits = f"was started by a run that was broken off, as pid {pid}: it is waited for"
    line = await process.stdout.readline()
    assert waits.encode() in line, line
    gate.touch()
    out, err = await process.communicate()
    assert process.returncode == KEPT, (out, err)
    assert pid_of(ready) == pid, "the one that was meant runs, and no other was started beside it"


async def test_a_script_does_not_take_itself_for_the_master_that_it_is_to_start(tmp_path: Path) -> None:
    """The new command line stands at the end of its own, and without settings the environments are alike."""
    look = """
import os, pathlib, psutil, sys
sys.path.insert(0, sys.argv[1])
from restarting.processes import Recipe
from restarting.stopped import Stopped
recipe = Recipe(tuple(psutil.Process().cmdline()[-2:]), dict(os.environ), pathlib.Path())
stopped = Stopped("master h:1", None, "h:1", 2**22 + 1, 1.0, 1.0, recipe, recipe, ("", ""))
print(stopped.coming_pid)
"""
    words = (sys.executable, "-c", look, SCRIPTS, "--", tmp_path / "tenure", tmp_path / "master")
    process = await asyncio.create_subprocess_exec(*map(str, words), stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().split() == ["None"]
