"""A pushed-to worker against a master that speaks MorphML's fields only, and against one that gives lease tokens.

`LEGACY` tests set no extension field and read none: they are what protocol.md says a MorphML master is owed.
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from scripted_master import ScriptedMaster, make_task
from worker_process import WorkerProcess, eventually, found, is_alive

from tenure.common.errors import ERROR_METADATA_KEY, TenureError
from tenure.common.exits import ExitCode
from tenure.proto import worker_pb2 as pb
from tenure.proto import worker_pb2_grpc

GRAPH = '{"nodes": [{"id": "a", "operation": "input"}]}'


def legacy_task(task_id: str, **extra: Any) -> pb.EvaluateRequest:
    """A task as MorphML's master sends it; it sends no config, but the test evaluator needs its fate."""
    config = pb.EvaluationConfig(extra={name: str(value) for name, value in extra.items()}) if extra else None
    return pb.EvaluateRequest(task_id=task_id, architecture=GRAPH, config=config)


@pytest.fixture
async def stub(legacy_master: ScriptedMaster, worker: WorkerProcess) -> AsyncIterator[Any]:
    """A master's stub of a started push worker."""
    await worker.start(legacy_master.address, dispatch="push", slots=1, stop_grace_seconds=1)
    await legacy_master.until(lambda heard: heard.registrations)
    async with grpc.aio.insecure_channel(worker.ready["grpc"]) as channel:
        yield worker_pb2_grpc.WorkerServiceStub(channel)


async def test_legacy_a_morphml_master_is_served(
    legacy_master: ScriptedMaster, worker: WorkerProcess, stub: Any
) -> None:
    registration = legacy_master.heard.registrations[0]
    assert registration.worker_id == "worker"
    assert f"{registration.host}:{registration.port}" == worker.ready["grpc"]
    response = await stub.Evaluate(legacy_task("t1"))
    assert response.task_id == "t1"
    assert response.success
    assert response.metrics["fitness"] == 0.5
    assert response.error == ""
    assert response.duration > 0
    # The result has come by SubmitResult before Evaluate returned.
    (result,) = legacy_master.heard.results
    assert (result.task_id, result.worker_id, result.success) == ("t1", "worker", True)
    assert result.metrics == response.metrics
    assert all(math.isfinite(value) for value in result.metrics.values())
    await eventually(lambda: not list((worker.work_dir / "spool").glob("*.outcome")))


async def test_legacy_a_failure_is_told_in_words(legacy_master: ScriptedMaster, stub: Any) -> None:
    response = await stub.Evaluate(legacy_task("t1", fate="error"))
    assert not response.success
    assert response.error == "RuntimeError: the evaluation failed at step 1, as asked"
    assert legacy_master.heard.results[0].error == response.error
    response = await stub.Evaluate(legacy_task("t2", fate="segfault"))
    assert "SIGSEGV" in response.error


async def test_legacy_the_same_task_twice_is_one_evaluation(worker: WorkerProcess, stub: Any, tmp_path: Path) -> None:
    task = legacy_task("t1", gate=tmp_path / "gate")
    first = stub.Evaluate(task)
    await worker.journaled("gate")
    second = stub.Evaluate(task)
    status = await stub.GetStatus(pb.StatusRequest(worker_id="worker"))
    assert (status.status, status.current_task_id) == ("busy", "t1")
    (tmp_path / "gate").touch()
    assert (await first).metrics == (await second).metrics
    assert (await stub.Evaluate(task)).success, "and afterwards it is answered from memory"
    assert len(worker.journal("start")) == 1
    failing = legacy_task("t2", fate="error")
    await stub.Evaluate(failing)
    await stub.Evaluate(failing)
    assert len(worker.journal("start", "t2")) == 2, "a failed task that is pushed again is a new attempt"


async def test_legacy_a_cancelled_call_stops_the_work(
    legacy_master: ScriptedMaster, worker: WorkerProcess, stub: Any
) -> None:
    call = stub.Evaluate(legacy_task("t1", seconds=100))
    await worker.journaled("start", "t1")
    call.cancel()
    await worker.journaled("stopped", "t1")
    assert (await stub.Evaluate(legacy_task("t2"))).success
    assert [result.task_id for result in legacy_master.heard.results] == ["t2"]


async def test_legacy_a_deadline_stops_the_work_even_if_it_is_deaf(worker: WorkerProcess, stub: Any) -> None:
    # A deadline that passes before the evaluation has begun, as on a busy machine, stops nothing.
    for seconds in (1, 5, 20):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Evaluate(legacy_task(f"t{seconds}", fate="hang", fate_step=0), timeout=seconds)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if started := worker.journal("start"):
            break
    await eventually(lambda: not is_alive(started[0]["pid"]))


async def test_legacy_one_of_two_callers_may_leave(worker: WorkerProcess, stub: Any, tmp_path: Path) -> None:
    task = legacy_task("t1", gate=tmp_path / "gate")
    first, second = stub.Evaluate(task), stub.Evaluate(task)
    await worker.journaled("gate")
    await stub.GetStatus(pb.StatusRequest())
    first.cancel()
    await stub.GetStatus(pb.StatusRequest())
    (tmp_path / "gate").touch()
    assert (await second).success


async def test_legacy_cancel_task_really_stops_the_work(
    legacy_master: ScriptedMaster, worker: WorkerProcess, stub: Any
) -> None:
    for task_id, extra in (("obedient", {"seconds": 100}), ("deaf", {"fate": "hang", "fate_step": 0})):
        call = stub.Evaluate(legacy_task(task_id, **extra))
        pid = (await worker.journaled("start", task_id))["pid"]
        answer = await stub.CancelTask(pb.CancelRequest(task_id=task_id))
        assert answer.success
        assert not (await call).success
        if task_id == "deaf":
            assert not is_alive(pid)
    missing = await stub.CancelTask(pb.CancelRequest(task_id="never heard of"))
    assert not missing.success
    assert "not running" in missing.message


async def test_legacy_a_master_that_started_anew_is_registered_with_again(
    legacy_master: ScriptedMaster, worker: WorkerProcess
) -> None:
    legacy_master.acknowledges = False
    legacy_master.should_continue = False
    await worker.start(legacy_master.address, dispatch="push")
    await legacy_master.until(lambda heard: len(heard.registrations) == 2)
    assert worker.returncode is None, "an answer that is no acknowledgement is no order to shut down either"
    await legacy_master.vanish()
    await eventually(lambda: worker.log_lines("session.unreachable"), seconds=30)
    legacy_master.acknowledges = legacy_master.should_continue = True
    before = len(legacy_master.heard.registrations)
    await legacy_master.start()
    await legacy_master.until(lambda heard: len(heard.registrations) > before, seconds=30)


async def test_legacy_a_master_that_says_stop_is_obeyed(legacy_master: ScriptedMaster, worker: WorkerProcess) -> None:
    legacy_master.should_continue = False
    await worker.spawn(legacy_master.address, dispatch="push")
    assert await worker.wait() == 0


async def test_legacy_a_refused_registration_ends_the_worker(
    legacy_master: ScriptedMaster, worker: WorkerProcess
) -> None:
    legacy_master.registers = False
    await worker.spawn(legacy_master.address, dispatch="push")
    assert await worker.wait() == ExitCode.REFUSED
    assert "as the script says" in worker.log_lines("worker.refused")[0]["error"]


async def test_legacy_results_are_submitted_until_they_are_taken(
    legacy_master: ScriptedMaster, worker: WorkerProcess, stub: Any
) -> None:
    legacy_master.unavailable_results = 3
    response = await stub.Evaluate(legacy_task("t1"))
    assert response.success
    await legacy_master.until(lambda heard: heard.results)
    assert legacy_master.heard.order.count("unavailable") == 3
    await eventually(lambda: not list((worker.work_dir / "spool").glob("*.outcome")))


async def test_legacy_heartbeats_say_what_is_running_in_numbers(
    legacy_master: ScriptedMaster, worker: WorkerProcess, stub: Any
) -> None:
    beat = (await legacy_master.until(lambda heard: heard.heartbeats))[0]
    assert (beat.worker_id, beat.status, beat.current_task_id) == ("worker", "idle", "")
    assert 0 < beat.metrics.memory_usage <= 100
    await stub.Evaluate(legacy_task("t1"))
    await stub.Evaluate(legacy_task("t2", fate="error"))
    status = await stub.GetStatus(pb.StatusRequest(worker_id="worker"))
    assert (status.metrics.tasks_completed, status.metrics.tasks_failed) == (1, 1)


async def test_legacy_shutdown(legacy_master: ScriptedMaster, worker: WorkerProcess, stub: Any, tmp_path: Path) -> None:
    call = stub.Evaluate(legacy_task("t1", gate=tmp_path / "gate"))
    await worker.journaled("gate")
    assert (await stub.Shutdown(pb.ShutdownRequest(worker_id="worker", graceful=True))).acknowledged
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Evaluate(legacy_task("t2"))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    (tmp_path / "gate").touch()
    assert (await call).success, "graceful waits for the current task"
    assert await worker.wait() == 0
    assert [result.success for result in legacy_master.heard.results] == [True]


async def test_legacy_what_is_said_twice_is_done_once(
    legacy_master: ScriptedMaster, worker: WorkerProcess, stub: Any, tmp_path: Path
) -> None:
    """GetStatus, CancelTask and Shutdown, as by a master whose answers were lost; Evaluate has its own test above."""
    cancelled = stub.Evaluate(legacy_task("t1", seconds=100))
    await worker.journaled("start", "t1")
    status = [await stub.GetStatus(pb.StatusRequest(worker_id="worker")) for _ in range(2)]
    assert [(each.status, each.current_task_id) for each in status] == [("busy", "t1")] * 2
    assert (await stub.CancelTask(pb.CancelRequest(task_id="t1"))).success
    assert not (await cancelled).success
    running = stub.Evaluate(legacy_task("t2", gate=tmp_path / "gate"))
    await worker.journaled("gate", "t2")
    again = await stub.CancelTask(pb.CancelRequest(task_id="t1"))
    assert not again.success, "it has ended, and what runs now is another"
    assert "not running" in again.message
    for _ in range(2):
        assert (await stub.Shutdown(pb.ShutdownRequest(worker_id="worker", graceful=True))).acknowledged
    (tmp_path / "gate").touch()
    assert (await running).success
    assert await worker.wait() == 0
    results = [(result.task_id, result.success) for result in legacy_master.heard.results]
    assert results == [("t1", False), ("t2", True)]


async def test_legacy_shutdown_at_once(worker: WorkerProcess, stub: Any) -> None:
    call = stub.Evaluate(legacy_task("t1", seconds=100))
    await worker.journaled("start")
    assert (await stub.Shutdown(pb.ShutdownRequest(worker_id="worker"))).acknowledged
    response = await call
    assert not response.success
    assert "drains" in response.error
    assert await worker.wait() == 0


async def test_legacy_what_cannot_be_a_task_is_refused_and_costs_nothing(worker: WorkerProcess, stub: Any) -> None:
    for request, field in (
        (pb.EvaluateRequest(task_id="", architecture=GRAPH), "task_id"),
        (pb.EvaluateRequest(task_id="x" * 10_000, architecture=GRAPH), "task_id"),
        (pb.EvaluateRequest(task_id="t", architecture=""), "architecture"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Evaluate(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        metadata = dict(list(caught.value.trailing_metadata() or ()))
        assert TenureError.from_json(str(metadata[ERROR_METADATA_KEY])).field == field
    for call in (
        stub.GetStatus(pb.StatusRequest(worker_id="other")),
        stub.Shutdown(pb.ShutdownRequest(worker_id="other")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert worker.journal() == []
    assert worker.returncode is None


async def test_legacy_checkpoints_of_a_master_that_registers_none_do_not_pile_up(
    worker: WorkerProcess, stub: Any
) -> None:
    assert (await stub.Evaluate(legacy_task("t1", steps=5, checkpoint=1))).success
    await eventually(lambda: not found(worker.checkpoints, "step-*"))


async def test_with_a_lease_the_work_outlives_the_call(
    legacy_master: ScriptedMaster, worker: WorkerProcess, stub: Any, tmp_path: Path
) -> None:
    """The call of a Tenure master that died: it comes back, and wants the work to have gone on."""
    task = make_task("t1", gate=tmp_path / "gate")
    call = stub.Evaluate(task)
    await worker.journaled("gate")
    call.cancel()
    await eventually(lambda: worker.log_lines("task.call_ended"))
    again = stub.Evaluate(task)
    await stub.GetStatus(pb.StatusRequest())
    (tmp_path / "gate").touch()
    assert (await again).outcome.lease_token == task.lease_token
    result = (await legacy_master.until(lambda heard: heard.results))[0]
    assert result.outcome.lease_token == task.lease_token
    assert len(worker.journal("start")) == 1


async def test_with_a_lease_heartbeats_renew_and_revocations_stop(
    legacy_master: ScriptedMaster, worker: WorkerProcess, stub: Any
) -> None:
    task = make_task("t1", seconds=100)
    call = stub.Evaluate(task)
    await worker.journaled("start")
    legacy_master.heartbeat_revocations = [pb.Revocation(task_id="t1", lease_token=task.lease_token, reason="lost")]
    await legacy_master.until(
        lambda heard: any(one.lease_token == task.lease_token for beat in heard.heartbeats for one in beat.renewals)
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert worker.journal("stopped")
    assert legacy_master.heard.results == []


async def test_a_full_worker_refuses_the_next_push(worker: WorkerProcess, stub: Any, tmp_path: Path) -> None:
    call = stub.Evaluate(legacy_task("t1", gate=tmp_path / "gate"))
    await worker.journaled("gate")
    with pytest.raises(grpc.aio.AioRpcError, match="no slot is free") as caught:
        await stub.Evaluate(legacy_task("t2"))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    (tmp_path / "gate").touch()
    assert (await call).success


async def test_sigterm_hands_back_and_answers_the_call(
    legacy_master: ScriptedMaster, worker: WorkerProcess, stub: Any
) -> None:
    call = asyncio.ensure_future(stub.Evaluate(make_task("t1", seconds=100)))
    await worker.journaled("start")
    worker.signal(signal.SIGTERM)
    response = await call
    assert response.outcome.kind == pb.OUTCOME_RELEASE
    assert await worker.wait() == 0
    assert legacy_master.heard.results[0].outcome.kind == pb.OUTCOME_RELEASE


async def test_a_pulling_worker_is_not_pushed_to(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address)
    async with grpc.aio.insecure_channel(worker.ready["grpc"]) as channel:
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="pulls its tasks") as caught:
            await stub.Evaluate(legacy_task("t1"))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        task = make_task("t2", seconds=100)
        await master.offer(task)
        await worker.journaled("start")
        answer = await stub.CancelTask(pb.CancelRequest(task_id="t2", lease_token=task.lease_token))
        assert answer.success
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_RELEASE


async def test_a_tenure_master_ends_the_older_process_of_a_worker_id(
    legacy_master: ScriptedMaster, worker: WorkerProcess
) -> None:
    legacy_master.version = "0.1.0"
    legacy_master.acknowledges = legacy_master.should_continue = False
    await worker.spawn(legacy_master.address, dispatch="push")
    assert await worker.wait() == ExitCode.SUPERSEDED
    assert len(legacy_master.heard.registrations) == 1, "it doesn't fight for the id"
