"""A client that speaks nothing but MorphML 1.0's fields, and pulls: register, heartbeat, RequestTask, SubmitResult."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import grpc
import morphml
import pytest
from morphml import messages as m
from processes import MasterProcess, eventually
from raw_peers import GRAPH, Broker, OpenBroker, OpenSession, StartMaster, refused

from tenure.proto import tenure_pb2, worker_pb2


@pytest.fixture
async def legacy(broker: Broker) -> SimpleNamespace:
    """MasterService as MorphML's stubs know it."""
    return morphml.stub(broker.channel, "MasterService")


@pytest.fixture
async def worker_id(legacy: SimpleNamespace, search: str) -> str:
    """A registered worker without a port."""
    name = f"{search}-puller"
    assert (await legacy.RegisterWorker(m.RegisterRequest(worker_id=name, host="node", num_gpus=1))).success
    return name


async def pull(legacy: SimpleNamespace, worker_id: str, max_tasks: int = 1, timeout: float = 30) -> list[Any]:
    """RequestTask."""
    response = await legacy.RequestTask(m.TaskRequest(worker_id=worker_id, max_tasks=max_tasks), timeout=timeout)
    assert response.has_task == bool(response.tasks)
    return list(response.tasks)


async def submit_result(legacy: SimpleNamespace, worker_id: str, task_id: str, **fields: Any) -> Any:
    """SubmitResult, by default of a success."""
    fields = {"success": True, "metrics": {"fitness": 0.5}, "duration": 1.0, **fields}
    return await legacy.SubmitResult(m.ResultRequest(task_id=task_id, worker_id=worker_id, **fields), timeout=60)


async def waiting_slots(master: MasterProcess) -> float:
    """How many free slots wait for a task."""
    _, text = await asyncio.to_thread(master.get, "/metrics")
    (line,) = [line for line in text.splitlines() if line.startswith("tenure_waiting_slots ")]
    return float(line.split()[1])


# ---- registration and heartbeats -----------------------------------------------------------------------------------


async def test_registration(legacy: SimpleNamespace, broker: Broker, search: str, master: MasterProcess) -> None:
    request = m.RegisterRequest(
        worker_id=search,
        host="node-1",
        port=0,
        num_gpus=2,
        gpu_ids=[0, 1],
        # What Python says of itself has line breaks in it.
        metadata={"python": "3.10.12 (main)\n[GCC 11.4.0]", "a=b": "c=d"},
    )
    for _ in range(2):
        response = await legacy.RegisterWorker(request)
        assert (response.success, response.master_id) == (True, master.master_id)
    worker = await broker.worker(search)
    assert (worker.host, worker.num_gpus, list(worker.gpu_ids), worker.slots) == ("node-1", 2, [0, 1], 1)
    assert (worker.instance_id, worker.dispatch, worker.status) == ("", "pull", "live")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"worker_id": ""}, "worker_id"),
        ({"worker_id": "w" * 10_240}, "worker_id"),
        ({"worker_id": "é" * 100}, "worker_id"),
        ({"worker_id": "a\0b"}, "worker_id"),
        ({"worker_id": "w", "port": -1}, "port"),
        ({"worker_id": "w", "port": 65_536}, "port"),
        ({"worker_id": "w", "num_gpus": -1}, "num_gpus"),
        ({"worker_id": "w", "host": "h" * 10_240}, "host"),
    ],
)
async def test_a_bad_registration_is_refused_by_field(
    legacy: SimpleNamespace, fields: dict[str, Any], field: str
) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", field):
        await legacy.RegisterWorker(m.RegisterRequest(**fields))


async def test_a_heartbeat_is_acknowledged_and_says_go_on(
    legacy: SimpleNamespace, worker_id: str, broker: Broker
) -> None:
    metrics = m.WorkerMetrics(cpu_usage=5, gpu_usage=float("nan"), memory_usage=float("-inf"), tasks_failed=3)
    response = await legacy.Heartbeat(m.HeartbeatRequest(worker_id=worker_id, status="idle", metrics=metrics))
    assert (response.acknowledged, response.should_continue) == (True, True)
    worker = await broker.worker(worker_id)
    assert (worker.cpu_percent, worker.gpu_percent, worker.memory_percent, worker.tasks_failed) == (5, 0, 0, 3)


async def test_an_unknown_workers_heartbeat_is_not_acknowledged_but_it_goes_on(legacy: SimpleNamespace) -> None:
    """false would make it stop heartbeating while its server keeps serving."""
    response = await legacy.Heartbeat(m.HeartbeatRequest(worker_id="never-registered", status="idle"))
    assert (response.acknowledged, response.should_continue) == (False, True)


@pytest.mark.parametrize("worker_id", ["", "w" * 10_240])
async def test_heartbeats_of_bad_ids(legacy: SimpleNamespace, worker_id: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", "worker_id"):
        await legacy.Heartbeat(m.HeartbeatRequest(worker_id=worker_id))


async def test_a_legacy_process_that_a_newer_one_replaced_is_told_to_stop(
    legacy: SimpleNamespace, worker_id: str, open_session: OpenSession
) -> None:
    await open_session(worker_id, instance_id="newer")
    response = await legacy.Heartbeat(m.HeartbeatRequest(worker_id=worker_id, status="idle"))
    assert (response.acknowledged, response.should_continue) == (False, False)
    async with refused(grpc.StatusCode.ABORTED, "STALE_LEASE", "worker_id", worker_id):
        await pull(legacy, worker_id)


# ---- RequestTask ---------------------------------------------------------------------------------------------------


async def test_a_task_that_is_there_comes_at_once(
    legacy: SimpleNamespace, worker_id: str, broker: Broker, search: str
) -> None:
    config = tenure_pb2.Config(num_epochs=2, batch_size=8, learning_rate=0.5, dataset="digits", extra={"a": "b"})
    (task_id,) = await broker.submit(search, config=config)
    (task,) = await pull(legacy, worker_id)
    assert (task.task_id, task.architecture) == (task_id, GRAPH)
    assert (task.config.num_epochs, task.config.batch_size, task.config.learning_rate) == (2, 8, 0.5)
    assert (task.config.dataset, task.config.gpu_id, dict(task.config.extra)) == ("digits", 0, {"a": "b"})
    found = await broker.task(task_id)
    assert (found.state, found.worker_id) == (tenure_pb2.LEASED, worker_id)


async def test_a_waiting_call_is_woken_by_a_new_task(
    legacy: SimpleNamespace, worker_id: str, broker: Broker, search: str, master: MasterProcess
) -> None:
    waiting = asyncio.ensure_future(pull(legacy, worker_id, timeout=100))
    await eventually(lambda: waiting_slots(master))
    (task_id,) = await broker.submit(search)
    # The poll itself would wait for 80 s.
    async with asyncio.timeout(30):
        (task,) = await waiting
    assert task.task_id == task_id
    assert await waiting_slots(master) == 0


async def test_the_first_task_ever_wakes_a_waiting_call(own_master: StartMaster, open_broker: OpenBroker) -> None:
    """Of a store that knew no requirements before, and with requirements that nobody had before."""
    master = await asyncio.to_thread(own_master)
    broker = open_broker(master.address)
    legacy = morphml.stub(broker.channel, "MasterService")
    await legacy.RegisterWorker(m.RegisterRequest(worker_id="w", num_gpus=3))
    for requirements in (None, tenure_pb2.Requirements(gpus=3)):
        waiting = asyncio.ensure_future(pull(legacy, "w", timeout=100))
        await eventually(lambda: waiting_slots(master))
        (task_id,) = await broker.submit("s", requirements=requirements)
        async with asyncio.timeout(30):
            (task,) = await waiting
        assert task.task_id == task_id


async def test_a_call_without_a_task_is_answered_before_its_deadline(legacy: SimpleNamespace, worker_id: str) -> None:
    # What is left for the answer grows with the deadline: a busy machine may need more than a fifth of a second.
    answers: list[list[Any]] = []
    for seconds in (1, 5, 20):
        with contextlib.suppress(grpc.aio.AioRpcError):
            answers.append(await pull(legacy, worker_id, timeout=seconds))
            break
    assert answers == [[]]


async def test_a_poll_waits_for_as_long_as_the_caller_wants(broker: Broker, worker_id: str) -> None:
    response = await broker.workers.RequestTask(worker_pb2.TaskRequest(worker_id=worker_id, wait_ms=100))
    assert not response.has_task


async def test_several_tasks_in_one_call(legacy: SimpleNamespace, worker_id: str, broker: Broker, search: str) -> None:
    task_ids = await broker.submit(search, 5)
    tasks = await pull(legacy, worker_id, max_tasks=3)
    assert [task.task_id for task in tasks] == task_ids[:3]
    # 0 is the default, and means one.
    assert [task.task_id for task in await pull(legacy, worker_id, max_tasks=0)] == task_ids[3:4]


async def test_a_caller_that_gave_up_is_given_nothing(
    legacy: SimpleNamespace, worker_id: str, broker: Broker, search: str, master: MasterProcess
) -> None:
    waiting = asyncio.ensure_future(pull(legacy, worker_id, timeout=100))
    await eventually(lambda: waiting_slots(master))
    waiting.cancel()
    await asyncio.wait([waiting])
    await eventually(lambda: _nobody_waits(master))
    (task_id,) = await broker.submit(search)
    (task,) = await pull(legacy, worker_id)
    assert (task.task_id, (await broker.task(task_id)).epoch) == (task_id, 1)


async def _nobody_waits(master: MasterProcess) -> bool:
    return await waiting_slots(master) == 0


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"worker_id": "never-registered"}, "UNKNOWN_WORKER", "worker_id"),
        ({"worker_id": ""}, "INVALID_INPUT", "worker_id"),
        ({"worker_id": "w" * 10_240}, "INVALID_INPUT", "worker_id"),
        ({"worker_id": "w", "max_tasks": -1}, "INVALID_INPUT", "max_tasks"),
    ],
)
async def test_bad_pulls(legacy: SimpleNamespace, fields: dict[str, Any], code: str, field: str) -> None:
    status = grpc.StatusCode.NOT_FOUND if code == "UNKNOWN_WORKER" else grpc.StatusCode.INVALID_ARGUMENT
    async with refused(status, code, field):
        await legacy.RequestTask(m.TaskRequest(**fields), timeout=60)


@pytest.mark.parametrize("way", ["CordonWorker", "DrainWorker"])
async def test_a_cordon_reaches_a_call_that_waits(
    legacy: SimpleNamespace, worker_id: str, broker: Broker, search: str, master: MasterProcess, way: str
) -> None:
    waiting = asyncio.ensure_future(pull(legacy, worker_id, timeout=100))
    await eventually(lambda: waiting_slots(master))
    await getattr(broker.api, way)(tenure_pb2.WorkerName(worker_id=worker_id))
    await eventually(lambda: _nobody_waits(master))
    (task_id,) = await broker.submit(search)
    # A new call waits as well, rather than be answered "none" and asked again at once.
    second = asyncio.ensure_future(pull(legacy, worker_id, timeout=100))
    assert (await broker.task(task_id)).state == tenure_pb2.QUEUED
    await broker.api.UncordonWorker(tenure_pb2.WorkerName(worker_id=worker_id))
    async with asyncio.timeout(30):
        done, pending = await asyncio.wait({waiting, second}, return_when=asyncio.FIRST_COMPLETED)
    assert [task.task_id for call in done for task in await call] == [task_id]
    for call in pending:
        call.cancel()
    await asyncio.wait(pending)


# ---- SubmitResult --------------------------------------------------------------------------------------------------


async def test_a_success_is_acknowledged_as_often_as_it_is_sent(
    legacy: SimpleNamespace, worker_id: str, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    await pull(legacy, worker_id)
    for fitness in (0.5, 0.7):
        assert (await submit_result(legacy, worker_id, task_id, metrics={"fitness": fitness})).acknowledged
    found = await broker.task(task_id)
    assert (found.state, dict(found.metrics), found.duration_seconds) == (tenure_pb2.SUCCEEDED, {"fitness": 0.5}, 1.0)
    assert len(found.attempt_records) == 1


async def test_a_modified_architecture_is_kept(
    legacy: SimpleNamespace, worker_id: str, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    await pull(legacy, worker_id)
    await submit_result(legacy, worker_id, task_id, architecture='{"nodes": []}')
    assert (await broker.task(task_id)).architecture == '{"nodes": []}'


async def test_a_failure_burns_one_attempt_however_often_it_is_sent(
    legacy: SimpleNamespace, worker_id: str, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    await pull(legacy, worker_id)
    for _ in range(2):
        response = await submit_result(legacy, worker_id, task_id, success=False, error="CUDA trouble")
        assert response.acknowledged
    found = await broker.task(task_id)
    assert (found.state, found.attempts) == (tenure_pb2.QUEUED, 1)
    assert (found.failure.error_class, found.failure.message) == ("EvaluationError", "CUDA trouble")
    assert found.failure.retryable


async def test_attempts_run_out(legacy: SimpleNamespace, worker_id: str, broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search)
    for _ in range(3):
        (task,) = await pull(legacy, worker_id)
        await submit_result(legacy, worker_id, task.task_id, success=False, error="no")
    found = await broker.task(task_id)
    assert (found.state, found.attempts, found.epoch) == (tenure_pb2.FAILED, 3, 3)


async def test_metrics_that_are_no_numbers_are_a_failure_that_says_so(
    legacy: SimpleNamespace, worker_id: str, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    await pull(legacy, worker_id)
    response = await submit_result(legacy, worker_id, task_id, metrics={"fitness": float("nan")})
    assert response.acknowledged
    found = await broker.task(task_id)
    assert (found.attempts, found.failure.error_class) == (1, "InvalidResult")
    assert "fitness" in found.failure.message


async def test_the_unpatched_morphml_is_explained(
    legacy: SimpleNamespace, worker_id: str, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    await pull(legacy, worker_id)
    error = "bad argument type for built-in operation: must be real number, not str"
    await submit_result(legacy, worker_id, task_id, success=False, error=error, metrics={})
    message = (await broker.task(task_id)).failure.message
    assert message.startswith(error)
    assert "MorphML 1.0" in message


async def test_another_workers_failure_is_not_taken_but_its_success_is(
    legacy: SimpleNamespace, worker_id: str, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    await pull(legacy, worker_id)
    other = f"{search}-other"
    await legacy.RegisterWorker(m.RegisterRequest(worker_id=other))
    response = await submit_result(legacy, other, task_id, success=False, error="no")
    assert (response.acknowledged, bool(response.message)) == (False, True)
    assert (await broker.task(task_id)).attempts == 0
    assert (await submit_result(legacy, other, task_id)).acknowledged
    # The holder's own comes too late, and is acknowledged: nobody needs it any more.
    late = await submit_result(legacy, worker_id, task_id)
    assert (late.acknowledged, bool(late.message)) == (True, True)
    assert (await broker.task(task_id)).worker_id == other


@pytest.mark.parametrize(
    ("task_id", "worker", "code", "field"),
    [
        ("0-" + "z" * 26, "", "UNKNOWN_TASK", "task_id"),
        ("nonsense", "", "UNKNOWN_TASK", "task_id"),
        ("", "", "INVALID_INPUT", "task_id"),
        ("t" * 10_240, "", "INVALID_INPUT", "task_id"),
        ("0-" + "z" * 26, "never-registered", "UNKNOWN_WORKER", "worker_id"),
        ("0-" + "z" * 26, "w" * 10_240, "INVALID_INPUT", "worker_id"),
    ],
)
async def test_results_of_unknown_tasks_and_workers(
    legacy: SimpleNamespace, worker_id: str, task_id: str, worker: str, code: str, field: str
) -> None:
    status = grpc.StatusCode.INVALID_ARGUMENT if code == "INVALID_INPUT" else grpc.StatusCode.NOT_FOUND
    async with refused(status, code, field):
        await submit_result(legacy, worker or worker_id, task_id)
