"""Checkpoints of whole workers: saved by themselves when due, on S3, and what losses do to the interval."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from s3_server import S3Server, s3, s3_server
from scripted_master import ScriptedMaster, make_task
from worker_process import WorkerProcess, eventually, found

from tenure.proto import worker_pb2 as pb
from tenure.worker.checkpoint import read_checkpoint

__all__ = ["s3", "s3_server"]

# As if a run of this worker were lost every 0.1 s: a checkpoint is due about as often.
PERILOUS = {"losses": 1e6, "run_seconds": 0.0}


async def start(worker: WorkerProcess, master: ScriptedMaster, **settings: Any) -> None:
    worker.work_dir.mkdir(parents=True, exist_ok=True)
    (worker.work_dir / "losses.json").write_text(json.dumps(PERILOUS))
    await worker.start(master.address, evaluator="step_evaluator:evaluate", **settings)


def losses(worker: WorkerProcess) -> dict[str, float]:
    kept: dict[str, float] = json.loads((worker.work_dir / "losses.json").read_text())
    return kept


async def test_checkpoints_come_by_themselves_when_due_and_a_drained_task_carries_the_last_step(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await start(worker, master, checkpoint_overhead=1)
    task = make_task("t1", steps=100_000)
    await master.offer(task)
    await master.until(lambda heard: len(heard.checkpoints) >= 3)
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == 0
    outcome = await master.outcome_of(task)
    assert outcome.kind == pb.OUTCOME_RELEASE
    last = master.heard.checkpoints[-1].checkpoint
    assert last.step == outcome.steps_end
    assert read_checkpoint(last.url, last.digest)["step"] == last.step
    order = master.heard.order
    assert len(order) - 1 - order[::-1].index("checkpoint") < order.index("outcomes")
    steps = [one.checkpoint.step for one in master.heard.checkpoints]
    assert steps == sorted(set(steps))
    assert steps[-1] > len(steps), "not after every step"
    assert losses(worker)["losses"] == PERILOUS["losses"], "a drain is no loss"
    assert losses(worker)["run_seconds"] > 0


async def test_without_an_allowance_only_a_stop_saves(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await start(worker, master, checkpoint_overhead=0)
    task = make_task("t1", steps=100_000)
    await master.offer(task)
    await master.until(lambda heard: any(one.progress.step > 100 for one in heard.renewals))
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == 0
    assert len(master.heard.checkpoints) == 1
    assert master.heard.checkpoints[0].checkpoint.step == (await master.outcome_of(task)).steps_end


async def test_killed_in_the_middle_of_its_saves_the_run_leaves_whole_ones_and_counts_as_a_loss(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await start(worker, master, checkpoint_overhead=1)
    # Large enough that the kill finds one half-written, more often than not.
    task = make_task("t1", steps=100_000, bytes=20_000_000)
    await master.offer(task)
    await master.until(lambda heard: len(heard.checkpoints) >= 2)
    await eventually(lambda: found(worker.checkpoints, ".writing-*"), what="one is being written")
    (executor,) = worker.executors()
    executor.kill()
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_LOSS
    assert losses(worker)["losses"] == PERILOUS["losses"] + 1
    left = [path for path in worker.checkpoints.rglob("step-*") if path.is_dir()]
    announced = {one.checkpoint.url: one.checkpoint.digest for one in master.heard.checkpoints}
    for path in left:
        if path.as_uri() in announced:
            read_checkpoint(path.as_uri(), announced[path.as_uri()])

    again = make_task("t1", epoch=2, steps=master.heard.checkpoints[-1].checkpoint.step + 5)
    again.checkpoints.extend(one.checkpoint for one in reversed(master.heard.checkpoints[-2:]))
    await master.offer(again)
    outcome = await master.outcome_of(again)
    assert outcome.metrics["resumed_from"] == again.checkpoints[0].step


async def test_a_worker_that_dies_under_a_run_counts_it_when_it_comes_back(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await start(worker, master)
    task = make_task("t1", steps=100_000)
    await master.offer(task)
    await master.until(lambda heard: any(one.progress.step > 1 for one in heard.renewals))
    worker.signal(signal.SIGKILL)
    await worker.wait()
    await worker.start(master.address, evaluator="step_evaluator:evaluate")
    assert losses(worker)["losses"] == PERILOUS["losses"] + 1


async def test_on_s3_a_killed_workers_task_goes_on_elsewhere(tmp_path: Path, s3: str, s3_server: S3Server) -> None:
    bucket = s3.removeprefix("s3://")
    cluster = await asyncio.to_thread(Cluster, tmp_path)
    try:
        first = await cluster.add_worker("first", checkpoints=f"{s3}/all")
        hang = {"steps": "6", "checkpoint": "2", "fate": "hang", "fate_epochs": "1", "fate_step": "5"}
        (task_id,) = await cluster.submit("s", ["k"], hang)
        await eventually(lambda: cluster.journal("fate", task_id), what=cluster.explain())
        first.signal(signal.SIGKILL)
        await first.wait()
        await cluster.add_worker("second", checkpoints=f"{s3}/all")
        await cluster.all_ended("s")
        record = (await cluster.records([task_id]))[task_id]
        assert record.state == "SUCCEEDED", cluster.explain()
        assert [line["resumed_from"] for line in cluster.journal("start", task_id)] == [-1, 4]

        def nothing_is_there_by_half() -> bool:
            names = [key.rpartition("/") for key in s3_server.keys(bucket)]
            whole, begun = (
                {directory for directory, _, file in names if file == name} for name in ("manifest.json", "state.json")
            )
            return whole == begun

        # The worker may be deleting still what the master has told it to.
        await eventually(nothing_is_there_by_half, what="the end of deleting")
    finally:
        await cluster.destroy()


@pytest.mark.parametrize("checkpoints", ["s4://bucket/a", "nosuch::s3://bucket/a"])
async def test_a_storage_that_nobody_knows_is_refused_at_the_start(
    checkpoints: str, master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.spawn(master.address, checkpoints=checkpoints)
    assert await worker.wait() == 2
    assert "checkpoints: no storage is known by this name" in worker.log_text()
