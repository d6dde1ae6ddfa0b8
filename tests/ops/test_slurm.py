"""The Slurm scripts, with this test in Slurm's place: its variables, its signals, its commands recorded."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from evaluators import JOURNAL_ENV, read_journal
from processes import MasterProcess, eventually, start_master, wait_for
from tools import tool

from tenure.client import Client
from tenure.common.exits import ExitCode
from tenure.common.states import TaskState
from tenure.worker.settings import WorkerSettings

OPS = Path(__file__).resolve().parents[2] / "ops"
TESTS = OPS.parent / "tests"
WORKER, MASTER = OPS / "slurm" / "worker-array.sbatch", OPS / "slurm" / "master.sbatch"
ARCHITECTURE = {"nodes": [{"id": "out", "operation": "flatten"}], "edges": []}


class Slurm:
    """Runs batch scripts as slurmd does, and records what they ask of the controller.

    Attributes:
        shared: A directory that all nodes reach.
        journal: What the evaluations wrote.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shared = root / "shared"
        self.journal = root / "journal"
        self._asked = root / "asked"
        self._commands = root / "bin"
        self._jobs: list[subprocess.Popen[bytes]] = []
        self.shared.mkdir()
        self._commands.mkdir()
        for name in ("scontrol", "scancel"):
            program = self._commands / name
            program.write_text(f'#!/bin/sh\necho {name} "$@" >>{self._asked}\n')
            program.chmod(0o755)

    def start(self, script: Path, *arguments: str, task: int | None = 3, **variables: str) -> subprocess.Popen[bytes]:
        """A job 78 that is task 3 of the array 77, on a node with a scratch directory of its own."""
        node = self.root / f"node-{len(self._jobs)}"
        node.mkdir()
        given = {
            "PATH": f"{self._commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.root),
            "SLURM_JOB_ID": "78",
            "SLURMD_NODENAME": "127.0.0.1",
            "TMPDIR": str(node),
            "TENURE_SHARED": str(self.shared),
            "TENURE_POLL_SECONDS": "0.05",
            JOURNAL_ENV: str(self.journal),
            **{
                f"TENURE_WORKER_{name}": value
                for name, value in {
                    "LISTEN": "127.0.0.1:0",
                    "HTTP": "127.0.0.1:0",
                    "EVALUATOR": "evaluators:evaluate",
                    "PYTHON_PATH": str(TESTS),
                    "LOG_FORMAT": "json",
                }.items()
            },
            **variables,
        }
        if task is not None:
            given |= {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": str(task)}
        with (self.root / "output").open("ab") as output:
            job = subprocess.Popen(
                ["bash", str(script), *arguments], env=given, stdout=output, stderr=output, start_new_session=True
            )
        self._jobs.append(job)
        return job

    @property
    def asked(self) -> list[str]:
        """The controller's commands so far."""
        return self._asked.read_text().splitlines() if self._asked.exists() else []

    @property
    def output(self) -> str:
        """What the jobs printed."""
        return (self.root / "output").read_text()

    def end(self) -> None:
        for job in self._jobs:
            try:
                os.killpg(job.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            job.wait()


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    made = Slurm(tmp_path)
    yield made
    made.end()


@pytest_asyncio.fixture
async def master(tmp_path: Path, slurm: Slurm) -> AsyncIterator[MasterProcess]:
    """One on a login node; its address is where workers look."""
    made = start_master(tmp_path / "master")
    (slurm.shared / "master").write_text(made.address)
    yield made
    made.remove()


async def submit(master: MasterProcess, search: str = "s", **extra: str) -> str:
    def send() -> str:
        with Client(master.address) as client:
            return str(client.search(search).submit(ARCHITECTURE, config={"extra": extra}).task_id)

    return await asyncio.to_thread(send)


async def record(master: MasterProcess, task: str) -> Any:
    def ask() -> Any:
        with Client(master.address) as client:
            return client.task(task)

    return await asyncio.to_thread(ask)


async def exit_code(job: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(job.wait, 60)


async def test_a_notice_hands_the_task_back_and_queues_the_worker_again(master: MasterProcess, slurm: Slurm) -> None:
    """As `--signal=B:USR1@180` does: to the script alone. On its next node the task goes on from its checkpoint."""
    gate = slurm.root / "gate"
    task = await submit(master, steps="2", checkpoint="1", gate=str(gate), gate_step="1")
    job = slurm.start(WORKER)
    await eventually(lambda: read_journal(slurm.journal, event="gate"), what=slurm.output)
    os.kill(job.pid, signal.SIGUSR1)
    assert await exit_code(job) == ExitCode.PREEMPTED, slurm.output
    assert slurm.asked == ["scontrol requeue 77_3"]
    assert not list((slurm.root / "node-0").iterdir()), "the node's scratch is left as it was"
    released = await record(master, task)
    assert released.state is TaskState.QUEUED
    assert (released.attempts, released.losses) == (0, 0)

    gate.touch()
    again = slurm.start(WORKER, SLURM_RESTART_COUNT="1")
    await eventually(lambda: read_journal(slurm.journal, event="end"), what=slurm.output)
    assert {line["resumed_from"] for line in read_journal(slurm.journal, event="end")} == {1}
    os.kill(again.pid, signal.SIGTERM)
    await exit_code(again)
    ended = await record(master, task)
    assert ended.state is TaskState.SUCCEEDED
    assert ended.worker_id == "slurm-77-3", "the same worker on both nodes"


async def test_cancelling_drains_and_queues_nothing_again(master: MasterProcess, slurm: Slurm) -> None:
    """scancel signals every process of the job: the worker and the script, which must not pass on a second one."""
    task = await submit(master, gate=str(slurm.root / "gate"))
    job = slurm.start(WORKER)
    await eventually(lambda: read_journal(slurm.journal, event="gate"), what=slurm.output)
    os.killpg(job.pid, signal.SIGTERM)
    assert await exit_code(job) in (ExitCode.OK, ExitCode.PREEMPTED), slurm.output
    assert slurm.asked == []
    assert '"killed": true' not in slurm.output
    assert (await record(master, task)).state is TaskState.QUEUED


async def unacknowledged(master: MasterProcess, slurm: Slurm) -> tuple[str, Path]:
    """(a task whose result no master has, for it is dead; where the ended job has kept the result)."""
    gate = slurm.root / "gate"
    task = await submit(master, gate=str(gate), ignore_stop="1")
    job = slurm.start(WORKER, TENURE_TERM_SECONDS="3")
    await eventually(lambda: read_journal(slurm.journal, event="gate"), what=slurm.output)
    master.kill()
    gate.touch()
    await eventually(lambda: read_journal(slurm.journal, event="end"))
    os.kill(job.pid, signal.SIGUSR1)
    assert await exit_code(job) == ExitCode.PREEMPTED, slurm.output
    return task, slurm.shared / "workers" / "slurm-77-3" / "spool"


async def delivers(master: MasterProcess, slurm: Slurm, task: str, kept: Path) -> None:
    """Once the master is back, the next job hands it the result, and keeps it no longer."""
    master.restart()
    again = slurm.start(WORKER)
    ended = await eventually(lambda: _succeeded(master, task), what=slurm.output)
    assert ended.state is TaskState.SUCCEEDED
    assert len(read_journal(slurm.journal, event="start")) == 1, "it was not evaluated twice"
    os.kill(again.pid, signal.SIGTERM)
    await exit_code(again)
    assert list(kept.iterdir()) == []


async def test_what_no_master_had_acknowledged_is_delivered_from_the_next_node(
    master: MasterProcess, slurm: Slurm
) -> None:
    task, kept = await unacknowledged(master, slurm)
    assert [path.suffix for path in kept.iterdir()] == [".outcome"]
    await delivers(master, slurm, task, kept)


async def test_a_node_that_dies_with_what_was_not_acknowledged_loses_nothing(
    master: MasterProcess, slurm: Slurm
) -> None:
    task, kept = await unacknowledged(master, slurm)
    (result,) = kept.iterdir()
    written_ns = result.stat().st_mtime_ns
    job = slurm.start(WORKER)
    taken = slurm.root / "node-1" / "tenure-slurm-77-3" / "spool" / result.name
    await eventually(taken.exists, what=slurm.output)
    assert taken.stat().st_mtime_ns == written_ns, "results are sent in the order of their times"
    os.killpg(job.pid, signal.SIGKILL)
    await exit_code(job)
    shutil.rmtree(slurm.root / "node-1", ignore_errors=True)
    assert [path.name for path in kept.iterdir()] == [result.name]
    await delivers(master, slurm, task, kept)


async def _succeeded(master: MasterProcess, task: str) -> Any:
    found = await record(master, task)
    return found if found.state is TaskState.SUCCEEDED else None


async def test_a_worker_ends_with_its_search(master: MasterProcess, slurm: Slurm) -> None:
    task = await submit(master, "short")
    job = slurm.start(WORKER, TENURE_SEARCH="short")
    assert await exit_code(job) == ExitCode.OK, slurm.output
    assert (await record(master, task)).state is TaskState.SUCCEEDED
    assert slurm.asked == []


async def test_a_worker_waits_for_the_masters_address_and_a_notice_ends_the_wait(slurm: Slurm) -> None:
    job = slurm.start(WORKER)
    await eventually(lambda: "waiting for" in slurm.output)
    os.kill(job.pid, signal.SIGUSR1)
    assert await exit_code(job) == ExitCode.PREEMPTED
    assert slurm.asked == ["scontrol requeue 77_3"]


def test_a_master_publishes_its_address_and_is_queued_again_when_its_time_is_up(slurm: Slurm) -> None:
    variables = {"TENURE_MASTER_LISTEN": "127.0.0.1:0", "TENURE_MASTER_HTTP": "127.0.0.1:0"}
    variables |= {"TENURE_MASTER_CONSOLE": "off"}
    job = slurm.start(MASTER, task=None, **variables)
    published = slurm.shared / "master"
    first = wait_for(lambda: published.exists() and published.read_text().strip(), what=slurm.output)
    assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d+", first)
    with Client(first) as client:
        task = client.search("s").submit(ARCHITECTURE).task_id
    os.kill(job.pid, signal.SIGUSR1)
    assert job.wait(60) == ExitCode.OK
    assert slurm.asked == ["scontrol requeue 78"]

    again = slurm.start(MASTER, task=None, **variables)
    second = wait_for(lambda: (text := published.read_text().strip()) != first and text, what=slurm.output)
    # Its workers know the old address only: they are told to fetch the new one.
    wait_for(lambda: any("--name=tenure-worker" in line and "--signal=USR1" in line for line in slurm.asked))
    with Client(second) as client:
        assert client.task(task).state is TaskState.QUEUED
    os.killpg(again.pid, signal.SIGTERM)
    assert again.wait(60) == ExitCode.OK
    assert slurm.asked.count("scontrol requeue 78") == 1


@pytest.mark.parametrize("script", [WORKER, MASTER], ids=lambda script: script.stem)
def test_outside_of_slurm_it_says_how_it_is_meant(script: Path) -> None:
    given = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=given, check=False)
    assert done.returncode == 2
    assert "sbatch" in done.stderr
    given["SLURM_JOB_ID"] = "1"
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=given, check=False)
    assert (done.returncode, "TENURE_SHARED" in done.stderr) == (2, True)


def test_the_notice_leaves_the_time_that_the_worker_takes() -> None:
    text = WORKER.read_text()
    (notice,) = re.findall(r"^#SBATCH --signal=B:USR1@(\d+)$", text, re.MULTILINE)
    (grace,) = re.findall(r"TENURE_TERM_SECONDS:-(\d+)", text)
    assert int(grace) + 20 <= int(notice)
    named = {name.lower() for name in re.findall(r"TENURE_WORKER_([A-Z_]+)", text)} - {"name"}
    assert named <= WorkerSettings.model_fields.keys()


@pytest.mark.tools
@pytest.mark.parametrize("script", [WORKER, MASTER], ids=lambda script: script.stem)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    done = subprocess.run([tool("shellcheck"), str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
