"""Run by the interpreter of a throw-away environment: does Tenure work on the versions installed there?

``probe.py wire`` needs grpcio, protobuf, grpcio-health-checking and grpcio-reflection only; ``probe.py package``
also imports the rest, asks the command line for its help and sends tasks from end to end. No test framework, so that
nothing but what is probed has a say in the versions. Each check prints its name; a failed one ends the process with a
traceback.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import google.protobuf
import grpc
import grpc.aio
import morphml
from google.protobuf import descriptor_pool
from google.protobuf.internal import api_implementation
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from tenure.common.addresses import Address
from tenure.proto import (
    EvaluateRequest,
    EvaluateResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    Hello,
    MasterServiceServicer,
    MasterServiceStub,
    Outcome,
    OutcomeKind,
    Outcomes,
    OutcomeVerdict,
    OutcomeVerdicts,
    RegisterRequest,
    RegisterResponse,
    ResultResponse,
    SessionDown,
    SessionUp,
    TaskResponse,
    Tasks,
    Verdict,
    Want,
    Welcome,
    WorkerServiceServicer,
    WorkerServiceStub,
    add_MasterServiceServicer_to_server,
    add_WorkerServiceServicer_to_server,
    serving,
    tenure_pb2,
    tenure_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)
from tenure.proto.pool import POOL

TESTS = Path(__file__).resolve().parent.parent
TENURE = str(Path(sys.executable).parent / "tenure")
TIMEOUT_SECONDS = 20.0


class Master(MasterServiceServicer):
    """Answers each call with what it was asked, so that a lost field shows."""

    def RegisterWorker(self, request, context):
        return RegisterResponse(success=True, message=request.metadata["zone"], master_id="m1", lease_ttl_ms=30_000)

    def Heartbeat(self, request, context):
        return HeartbeatResponse(acknowledged=request.metrics.cpu_usage == 12.5, should_continue=True)

    def SubmitResult(self, request, context):
        return ResultResponse(acknowledged=request.metrics["fitness"] == 0.5, verdict=Verdict.VERDICT_OK)

    def RequestTask(self, request, context):
        return TaskResponse(has_task=True, tasks=[EvaluateRequest(task_id="t1", lease_token="secret", epoch=3)])

    def Session(self, request_iterator, context):
        for message in request_iterator:
            kind = message.WhichOneof("message")
            if kind == "hello":
                yield SessionDown(welcome=Welcome(master_id="m1", grace_ms=2000))
            elif kind == "want":
                tasks = [EvaluateRequest(task_id=f"t{index}") for index in range(message.want.slots)]
                yield SessionDown(tasks=Tasks(tasks=tasks))
            elif kind == "outcomes":
                assert message.outcomes.HasField("want_slots")
                verdicts = [
                    OutcomeVerdict(task_id=outcome.task_id, verdict=Verdict.VERDICT_OK)
                    for outcome in message.outcomes.outcomes
                ]
                yield SessionDown(outcome_verdicts=OutcomeVerdicts(verdicts=verdicts))


class Worker(WorkerServiceServicer):
    """Evaluates everything to 0.75."""

    def Evaluate(self, request, context):
        return EvaluateResponse(task_id=request.task_id, success=True, metrics={"fitness": 0.75})


@contextmanager
def served() -> Iterator[grpc.Channel]:
    """A server with both services, health and reflection over our private pool, and a channel to it."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    add_MasterServiceServicer_to_server(Master(), server)
    add_WorkerServiceServicer_to_server(Worker(), server)
    health_servicer = health.HealthServicer()
    health_servicer.set("morphml.distributed.MasterService", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = ("morphml.distributed.MasterService", "tenure.v1.TenureService")
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.ReflectionServicer(names, pool=POOL), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        server.stop(grace=None).wait()


def descriptors() -> None:
    """Two files named worker.proto, two messages of one full name, one process."""
    ours = worker_pb2.DESCRIPTOR
    theirs = descriptor_pool.Default().FindFileByName("worker.proto")
    assert ours is not theirs
    assert RegisterRequest is not morphml.messages.RegisterRequest
    assert POOL.FindFileByName("tenure.proto") is not None
    assert tenure_pb2_grpc.TenureServiceStub
    assert worker_pb2_grpc.MasterServiceStub
    for field in morphml.FIELDS:
        assert ours.message_types_by_name[field.message].fields_by_name[field.name].number == field.number


def bytes_both_ways() -> None:
    """What one copy writes the other reads, and keeps what it doesn't know."""
    sent = EvaluateRequest(task_id="t", architecture="{}", lease_token="secret", epoch=7)
    sent.config.extra["a"] = "b"
    legacy = morphml.messages.EvaluateRequest.FromString(sent.SerializeToString())
    assert (legacy.task_id, legacy.config.extra["a"]) == ("t", "b")
    assert EvaluateRequest.FromString(legacy.SerializeToString()) == sent


def client_messages() -> None:
    """optional fields, enums and maps of the client API."""
    task = tenure_pb2.Task(task_id="t", state=tenure_pb2.LEASED, metrics={"fitness": 0.5})
    assert tenure_pb2.Task.FromString(task.SerializeToString()) == task
    assert not tenure_pb2.TaskSpec().HasField("max_attempts")


def unary_calls() -> None:
    """Every MorphML RPC of the master and a push, with our stubs."""
    with served() as channel:
        master, worker = MasterServiceStub(channel), WorkerServiceStub(channel)
        registered = master.RegisterWorker(
            RegisterRequest(worker_id="w", gpu_ids=[0, 1], metadata={"zone": "a"}), timeout=TIMEOUT_SECONDS
        )
        assert (registered.success, registered.message, registered.lease_ttl_ms) == (True, "a", 30_000)
        beat = HeartbeatRequest(worker_id="w", metrics=worker_pb2.WorkerMetrics(cpu_usage=12.5))
        assert master.Heartbeat(beat, timeout=TIMEOUT_SECONDS).acknowledged
        taken = master.RequestTask(worker_pb2.TaskRequest(worker_id="w", max_tasks=1), timeout=TIMEOUT_SECONDS)
        assert taken.tasks[0].lease_token == "secret"
        result = worker_pb2.ResultRequest(task_id="t1", metrics={"fitness": 0.5})
        assert master.SubmitResult(result, timeout=TIMEOUT_SECONDS, compression=grpc.Compression.Gzip).acknowledged
        pushed = worker.Evaluate(EvaluateRequest(task_id="t1"), timeout=TIMEOUT_SECONDS)
        assert pushed.metrics["fitness"] == 0.75


def legacy_client() -> None:
    """A peer that knows MorphML's fields only, against our servicers."""
    with served() as channel:
        master = morphml.stub(channel, "MasterService")
        request = morphml.messages.RegisterRequest(worker_id="w", metadata={"zone": "b"})
        assert master.RegisterWorker(request, timeout=TIMEOUT_SECONDS).message == "b"
        taken = master.RequestTask(morphml.messages.TaskRequest(worker_id="w"), timeout=TIMEOUT_SECONDS)
        assert taken.tasks[0].task_id == "t1"


def session_stream() -> None:
    """hello, want and outcomes up; welcome, tasks and verdicts down."""
    up = [
        SessionUp(hello=Hello(worker=RegisterRequest(worker_id="w"))),
        SessionUp(want=Want(slots=2)),
        SessionUp(outcomes=Outcomes(outcomes=[Outcome(task_id="t0", kind=OutcomeKind.OUTCOME_SUCCESS)], want_slots=0)),
    ]
    with served() as channel:
        down = list(MasterServiceStub(channel).Session(iter(up), timeout=TIMEOUT_SECONDS))
    assert [message.WhichOneof("message") for message in down] == ["welcome", "tasks", "outcome_verdicts"]
    assert [task.task_id for task in down[1].tasks.tasks] == ["t0", "t1"]


def health_and_reflection() -> None:
    """The standard services; reflection must serve our extended file, not MorphML's from the default pool."""
    with served() as channel:
        checked = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="morphml.distributed.MasterService"),
            timeout=TIMEOUT_SECONDS,
        )
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="morphml.distributed.MasterService"),
        ]
        answers = list(
            reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter(requests), timeout=TIMEOUT_SECONDS
            )
        )
    listed = {service.name for service in answers[0].list_services_response.service}
    assert {"morphml.distributed.MasterService", "tenure.v1.TenureService"} <= listed
    described = answers[1].file_descriptor_response.file_descriptor_proto
    assert any(b"lease_token" in part for part in described)


def asynchronous_serving() -> None:
    """What master and worker use: grpc.aio with our channel arguments, health and reflection, on a port of its own."""

    async def check() -> None:
        server = grpc.aio.server(options=serving.SERVER_OPTIONS)
        servicer = serving.add_health_and_reflection(server, ["morphml.distributed.MasterService"])
        address = serving.bind(server, Address("127.0.0.1", 0))
        await server.start()
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        async with grpc.aio.insecure_channel(str(address)) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health")]),
                timeout=TIMEOUT_SECONDS,
            )
            described = [answer async for answer in reflect]
            assert described[0].HasField("file_descriptor_response")
        await server.stop(grace=None)

    asyncio.run(check())


def package_imports() -> None:
    """Everything that runs without torch."""
    import tenure.client
    import tenure.client.cli
    import tenure.master
    import tenure.worker.supervisor

    assert tenure.client.Client
    assert "torch" not in sys.modules


def command_line() -> None:
    """The help of everything, which is where a command line breaks on another version of its libraries."""
    for arguments in ([], ["master"], ["worker"], ["tasks", "submit"], ["searches", "list"], ["workers", "drain"]):
        done = subprocess.run([TENURE, *arguments, "--help"], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, (arguments, done.stderr)
        assert "Usage" in done.stdout, (arguments, done.stdout)


@contextmanager
def running(arguments: list[str], ready_file: Path) -> Iterator[dict[str, str]]:
    """A Tenure process, once it has said that it is ready; ended by SIGTERM, which must work."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "TENURE_HOME": str(ready_file.parent / "home")}
    command = [TENURE, *arguments, "--ready-file", ready_file, "--log-format", "json"]
    process = subprocess.Popen(command, env=environment, cwd=ready_file.parent)
    try:
        deadline = time.monotonic() + 90
        while not ready_file.exists():
            assert process.poll() is None, f"{arguments} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{arguments} is not ready"
            time.sleep(0.05)
        yield json.loads(ready_file.read_text())
        process.terminate()
        assert process.wait(timeout=60) == 0, arguments
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def a_task_from_end_to_end() -> None:
    """A master on its embedded store, a worker with an executor, a client, twenty tasks."""
    from tenure.client import Client

    local = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    with tempfile.TemporaryDirectory(prefix="tenure-probe-") as name:
        folder = Path(name)
        with running(["master", *local], folder / "master.json") as master:
            worker = ["worker", *local, "--master", master["grpc"], "--evaluator", "evaluators:noop"]
            with running(worker, folder / "worker.json"), Client(master["grpc"], timeout_seconds=60) as client:
                graph = {"nodes": [{"id": "a", "operation": "relu"}], "edges": []}
                handles = [client.search("probe").submit(graph, {"num_epochs": epochs}) for epochs in range(1, 21)]
                assert [handle.result(timeout=90).metrics["fitness"] for handle in handles] == [1.0] * 20
                assert client.fsck().violations == ()


WIRE: tuple[Callable[[], None], ...] = (
    descriptors,
    bytes_both_ways,
    client_messages,
    unary_calls,
    legacy_client,
    session_stream,
    health_and_reflection,
    asynchronous_serving,
)
PACKAGE: tuple[Callable[[], None], ...] = (*WIRE, package_imports, command_line, a_task_from_end_to_end)


def main() -> int:
    """Run the checks named by the first argument: ``wire`` or ``package``."""
    checks = {"wire": WIRE, "package": PACKAGE}[sys.argv[1]]
    implementation = api_implementation.Type()
    print(
        f"python {sys.version.split()[0]}, grpcio {grpc.__version__}, "
        f"protobuf {google.protobuf.__version__} ({implementation})"
    )
    for check in checks:
        check()
        print(f"ok {check.__name__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
