"""A worker's host goes down hard and comes up again: same id, same work directory, a new process, under a real master.

What the worker says to whom after a crash is in test_outage.py; here is what becomes of its tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from chaos_suite.disks import SmallDisks, can_mount
from cluster import Cluster
from processes import eventually
from worker_process import WorkerProcess, is_alive

from tenure.client.records import TaskRecord
from tenure.common.states import TaskState

SLOTS = 3
# None runs out by itself within a test.
LONG_LEASE = {"lease_ttl_seconds": 60, "heartbeat_seconds": 1}
SHORT_LEASE = {"lease_ttl_seconds": 2, "heartbeat_seconds": 0.4, "grace_seconds": 0.5}


@pytest.fixture
async def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """A master with leases as the test's parameter says; workers are added by the test."""
    made = Cluster(tmp_path, **request.param)
    try:
        yield made
    finally:
        await made.destroy()


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[SmallDisks]:
    """Small file systems below ``tmp_path / "disks"``."""
    if not can_mount():
        pytest.skip("only root on Linux can mount a small tmpfs to fill")
    made = SmallDisks(tmp_path / "disks")
    yield made
    made.remove()


with_long_leases = pytest.mark.parametrize("cluster", [LONG_LEASE], indirect=True)
with_short_leases = pytest.mark.parametrize("cluster", [SHORT_LEASE], indirect=True)


async def go_down(worker: WorkerProcess) -> None:
    """SIGKILL for everything of the worker, before any of it can say a word about the others."""
    executors = worker.executors()
    worker.signal(signal.SIGSTOP)
    for executor in executors:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(executor.pid, signal.SIGKILL)
    os.killpg(worker.pid, signal.SIGKILL)
    await worker.wait()
    await eventually(lambda: not any(is_alive(executor.pid) for executor in executors))


async def come_up(cluster: Cluster, worker: WorkerProcess) -> None:
    """The same id, the same directory."""
    await worker.start(cluster.master.address, slots=SLOTS, work_dir=worker.work_dir)


def spooled(worker: WorkerProcess) -> list[Path]:
    """Outcomes on disk."""
    return list((worker.work_dir / "spool").glob("*.outcome"))


def notes(worker: WorkerProcess, task_id: str) -> dict[Path, bytes]:
    """Where the worker notes that it runs that task, and what it notes."""
    files: dict[Path, bytes] = {}
    for path in (worker.work_dir / "runs").glob("*.lease"):
        # That of another run may be deleted meanwhile.
        with contextlib.suppress(FileNotFoundError):
            files[path] = path.read_bytes()
    return {path: content for path, content in files.items() if task_id.encode() in content}


async def submit(cluster: Cluster, key: str, **extra: str) -> str:
    """One task. At its gate it waits for :func:`finish`."""
    gate = str(cluster.root / "{task_id}.gate")
    (task_id,) = await cluster.submit("search", [key], {"gate": gate, **extra})
    await eventually(lambda: cluster.journal("gate", task_id), what=f"{key} is at its gate")
    return task_id


def finish(cluster: Cluster, *task_ids: str) -> None:
    """Open their gates, for every run of them."""
    for task_id in task_ids:
        (cluster.root / f"{task_id}.gate").touch()


async def finish_unheard(cluster: Cluster, worker: WorkerProcess, *task_ids: str) -> None:
    """Have these tasks end in the worker while no master is there to be told."""
    cluster.master.kill()
    finish(cluster, *task_ids)
    await eventually(lambda: len(spooled(worker)) == len(task_ids), what="their outcomes are on disk")


async def becomes(cluster: Cluster, task_id: str, is_so: Callable[[TaskRecord], bool]) -> None:
    """Wait until the store says so of the task."""

    async def reached() -> bool:
        return is_so((await cluster.records([task_id]))[task_id])

    await eventually(reached, what=inspect.getsource(is_so).strip())


def ends(record: TaskRecord) -> list[tuple[int, str, str]]:
    """How its leases ended: epoch, outcome, error class."""
    return [(each.epoch, each.outcome, each.error_class) for each in record.attempt_records]


async def assert_settled(cluster: Cluster, worker: WorkerProcess) -> None:
    """Everything succeeded, and the worker has nothing left to tell."""
    await cluster.all_ended("search")
    status = await asyncio.to_thread(cluster.client.search("search").status)
    assert status.tasks[TaskState.SUCCEEDED] == status.total, cluster.explain()
    await eventually(lambda: not spooled(worker), what="the spool is empty")
    assert await cluster.fsck() == []


@with_long_leases
async def test_what_no_master_has_heard_of_is_told_at_once(cluster: Cluster) -> None:
    """Masters and worker go down together: nobody has seen a stream break, and each lease has a minute left."""
    worker = await cluster.add_worker("one", slots=SLOTS)
    finished = await submit(cluster, "finished")
    note = notes(worker, finished)
    # These two stand still for ever in their first run, one step after a checkpoint.
    hang = {"steps": "6", "fate": "hang", "fate_epochs": "1", "checkpoint": "2"}
    half_done = await submit(cluster, "half done", **hang, fate_step="3", gate_step="2")
    saved = await submit(cluster, "saved while no master was there", **hang, fate_step="5", gate_step="3")
    finish(cluster, half_done)
    for task_id in (half_done, saved):
        await becomes(cluster, task_id, lambda task: task.checkpoint is not None and task.checkpoint.step == 2)
    await finish_unheard(cluster, worker, finished)
    finish(cluster, saved)
    await eventually(lambda: any(b"step-00000004" in content for content in notes(worker, saved).values()))
    await go_down(worker)
    # As it is when the host goes down right after the outcome is on disk: the run isn't tidied away yet.
    for path, content in note.items():
        path.write_bytes(content)
    cluster.master.restart()
    await come_up(cluster, worker)
    await assert_settled(cluster, worker)

    records = await cluster.records([finished, half_done, saved])
    assert ends(records[finished]) == [(1, "success", "")]
    # Neither ``expired``, so nobody had to wait for the leases to run out, nor burned as an attempt.
    for task_id in (half_done, saved):
        assert ends(records[task_id]) == [(1, "loss", "WorkerDied"), (2, "success", "")]
    assert {(record.attempts, record.losses) for record in records.values()} == {(0, 0), (0, 1)}
    assert [line["resumed_from"] for line in cluster.journal("start", half_done)] == [-1, 2]
    assert [line["resumed_from"] for line in cluster.journal("start", saved)] == [-1, 4]
    assert cluster.starts() == {finished: 1, half_done: 2, saved: 2}


@with_short_leases
async def test_leases_that_ran_out_while_the_host_was_down(cluster: Cluster) -> None:
    """The work that is done isn't done again, and what is lost is one loss: not one by the lease, one by the report."""
    worker = await cluster.add_worker("one", slots=SLOTS)
    finished, half_done = await submit(cluster, "finished"), await submit(cluster, "half done")
    await finish_unheard(cluster, worker, finished)
    await go_down(worker)
    cluster.master.restart()
    for task_id in (finished, half_done):
        await becomes(cluster, task_id, lambda task: (task.state, task.losses) == (TaskState.QUEUED, 1))
    finish(cluster, half_done)
    await come_up(cluster, worker)
    await assert_settled(cluster, worker)

    records = await cluster.records([finished, half_done])
    assert ends(records[finished])[-1] == (1, "success", "")
    assert ends(records[half_done]) == [(1, "loss", "WorkerDied"), (2, "success", "")]
    assert (records[half_done].attempts, records[half_done].losses) == (0, 1)
    assert cluster.starts() == {finished: 1, half_done: 2}


@with_short_leases
async def test_a_result_of_a_task_that_ended_elsewhere_is_acknowledged_as_duplicate(cluster: Cluster) -> None:
    worker = await cluster.add_worker("one", slots=SLOTS)
    task_id = await submit(cluster, "ended elsewhere")
    await finish_unheard(cluster, worker, task_id)
    await go_down(worker)
    cluster.master.restart()
    await cluster.add_worker("two")
    await cluster.all_ended("search")
    before = (await cluster.records([task_id]))[task_id]
    assert (before.state, before.worker_id, before.epoch) == ("SUCCEEDED", "two", 2), cluster.explain()
    await come_up(cluster, worker)
    await assert_settled(cluster, worker)

    assert (await cluster.records([task_id]))[task_id] == before
    assert (await cluster.counters())["duplicates"] == 1
    assert worker.log_lines("outcome.not_taken") == [], "acknowledged, not refused"


@with_long_leases
async def test_a_torn_outcome_is_set_aside_and_its_task_runs_again(cluster: Cluster) -> None:
    """The disk lied about fsync: only the beginning of the outcome is there. Of one of the two tasks the note of its
    run is still there; of the other one the worker knows nothing, and the store finds that out by its hello."""
    worker = await cluster.add_worker("one", slots=SLOTS)
    noted, unknown = await submit(cluster, "noted"), await submit(cluster, "unknown")
    note = notes(worker, noted)
    await finish_unheard(cluster, worker, noted, unknown)
    await go_down(worker)
    torn = spooled(worker)
    for path in torn:
        os.truncate(path, 100)
    for path, content in note.items():
        path.write_bytes(content)
    cluster.master.restart()
    await come_up(cluster, worker)
    await assert_settled(cluster, worker)

    aside = {str(path.with_suffix(".corrupt")) for path in torn}
    lines = worker.log_lines("spool.corrupt")
    assert {(line["path"], line["error"]) for line in lines} == {(path, "truncated or altered") for path in aside}
    assert {Path(path).stat().st_size for path in aside} == {100}, "kept for whoever wants to look at it"
    records = await cluster.records([noted, unknown])
    assert ends(records[noted]) == [(1, "loss", "WorkerDied"), (2, "success", "")]
    assert ends(records[unknown]) == [(1, "loss", "WorkerRestarted"), (2, "success", "")]
    assert {record.attempts for record in records.values()} == {0}
    assert cluster.starts() == {noted: 2, unknown: 2}


@with_long_leases
async def test_a_full_disk_keeps_nothing_from_the_master(cluster: Cluster, disks: SmallDisks) -> None:
    """When the host is up again, something else has filled the disk to its last byte, and it stays full."""
    disks.make("work", 4)
    worker = cluster.workers["one"] = WorkerProcess(cluster.root, "one")
    worker.work_dir = cluster.root / "disks" / "work" / "worker"
    await come_up(cluster, worker)
    finished, half_done = await submit(cluster, "finished"), await submit(cluster, "half done")
    await finish_unheard(cluster, worker, finished)
    await go_down(worker)
    disks.fill("work")
    cluster.master.restart()
    finish(cluster, half_done)
    await come_up(cluster, worker)
    assert worker.log_lines("spool.reserve_short"), "there was room"
    await assert_settled(cluster, worker)

    records = await cluster.records([finished, half_done])
    assert ends(records[finished]) == [(1, "success", "")]
    assert ends(records[half_done]) == [(1, "loss", "WorkerDied"), (2, "success", "")]
    assert cluster.starts() == {finished: 1, half_done: 2}
    # What was delivered is room for what comes.
    assert len(list((worker.work_dir / "spool").glob("*.reserve"))) == SLOTS
