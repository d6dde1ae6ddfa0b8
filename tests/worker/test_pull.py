"""A pulling worker against a scripted master, from hello to goodbye."""

from __future__ import annotations

import signal

from scripted_master import ScriptedMaster, make_task
from worker_process import WorkerProcess

from tenure.proto import worker_pb2 as pb


async def test_a_task_is_pulled_run_and_reported(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address)
    task = make_task("t1", steps=3)
    await master.offer(task)
    outcome = await master.outcome_of(task)
    assert outcome.kind == pb.OUTCOME_SUCCESS
    assert outcome.metrics["fitness"] == 0.5
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == 0
    assert [goodbye.reason for goodbye in master.heard.goodbyes] == ["drained"]
