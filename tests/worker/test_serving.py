"""What a worker serves beside its work: health, reflection, metrics, probes."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from scripted_master import ScriptedMaster, make_task
from worker_process import WorkerProcess, eventually

from tenure.proto import worker_pb2 as pb


async def http(worker: WorkerProcess, path: str) -> tuple[int, str]:
    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{worker.ready['http']}{path}", timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(get)


async def metric(worker: WorkerProcess, sample: str) -> float | None:
    _, text = await http(worker, "/metrics")
    return next((float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.rsplit(" ", 1)[0] == sample), None)


async def until_metric(worker: WorkerProcess, sample: str, value: float) -> None:
    for _ in range(1200):
        if await metric(worker, sample) == value:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{sample} is {await metric(worker, sample)}, not {value}")


async def test_health_and_reflection(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address)
    async with grpc.aio.insecure_channel(worker.ready["grpc"]) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "morphml.distributed.WorkerService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="morphml.distributed.WorkerService"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
        ]
        answers = [answer async for answer in reflection.ServerReflectionInfo(iter(requests))]
        names = {service.name for service in answers[0].list_services_response.service}
        assert {"morphml.distributed.WorkerService", "grpc.health.v1.Health"} <= names
        assert all(answer.file_descriptor_response.file_descriptor_proto for answer in answers[1:])


async def test_probes_tell_the_truth(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await master.vanish()
    await worker.start(master.address)
    assert (await http(worker, "/healthz"))[0] == 200
    status, body = await http(worker, "/readyz")
    assert status == 503, "no master yet"
    assert '"session": false' in body
    await master.start()
    await master.until(lambda heard: heard.hellos)
    await until_metric(worker, "tenure_worker_session_up", 1)
    assert (await http(worker, "/readyz"))[0] == 200
    assert (await http(worker, "/"))[0] == 404


async def test_metrics_follow_what_happens(master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path) -> None:
    await worker.start(master.address, slots=2)
    await until_metric(worker, "tenure_worker_session_up", 1)
    await until_metric(worker, 'tenure_worker_slots{state="free"}', 2)
    task = make_task("t1", steps=4, checkpoint=1, gate=tmp_path / "gate", gate_step=3)
    await master.offer(task)
    await worker.journaled("gate")
    await until_metric(worker, 'tenure_worker_training_step{slot="0"}', 3)
    assert await metric(worker, 'tenure_worker_slots{state="running"}') == 1
    assert await metric(worker, 'tenure_worker_training_samples_per_second{slot="0"}') == 100
    assert await metric(worker, "tenure_worker_checkpoints_saved_total") == 3
    assert (await metric(worker, "tenure_worker_checkpoint_written_bytes_total") or 0) > 100
    assert (await metric(worker, 'tenure_worker_progress_age_seconds{slot="0"}') or -1) >= 0
    assert (await metric(worker, 'tenure_worker_checkpoint_age_seconds{slot="0"}') or -1) >= 0
    assert (await metric(worker, 'tenure_worker_executor_resident_bytes{slot="0"}') or 0) > 1_000_000
    assert await metric(worker, "tenure_worker_leases") == 1
    await master.vanish()
    (tmp_path / "gate").touch()
    await until_metric(worker, "tenure_worker_spool_outcomes", 1)
    await until_metric(worker, "tenure_worker_session_up", 0)
    await master.start()
    await until_metric(worker, "tenure_worker_spool_outcomes", 0)
    await until_metric(worker, 'tenure_worker_tasks_total{outcome="success"}', 1)
    assert await metric(worker, "tenure_worker_session_reconnects_total") == 1
    crash = make_task("t2", fate="kill")
    await master.offer(crash)
    assert (await master.outcome_of(crash)).kind == pb.OUTCOME_LOSS
    await until_metric(worker, 'tenure_worker_executor_restarts_total{reason="crash"}', 1)
    assert await metric(worker, 'tenure_worker_tasks_total{outcome="loss"}') == 1
    assert await metric(worker, 'tenure_worker_run_seconds_count{outcome="success"}') == 1


async def test_evaluations_log_through_their_worker(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address)
    task = make_task("t1", steps=2, checkpoint=1)
    await master.offer(task)
    await master.outcome_of(task)
    second = make_task("t1", epoch=2, steps=3, checkpoint=1)
    second.checkpoints.append(master.heard.checkpoints[-1].checkpoint)
    await master.offer(second)
    await master.outcome_of(second)
    line = (await eventually(lambda: worker.log_lines("checkpoint.loaded")))[0]
    assert (line["search"], line["task"], line["epoch"], line["worker"]) == ("tests", "t1", 2, "worker")
    assert line["component"] == "worker"
    assert worker.log_lines("task.resumed")[-1]["step"] == 2


async def test_figures_are_its_own_whatever_it_inherits(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """prometheus_client would keep values in files by process id, which a later process of that id goes on from."""
    folder = tmp_path / "multiprocess"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    await worker.start(master.address)
    assert await metric(worker, 'tenure_worker_tasks_total{outcome="success"}') == 0
    assert list(folder.iterdir()) == []
