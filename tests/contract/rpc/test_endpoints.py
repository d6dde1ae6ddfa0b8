"""What a master serves beside its two services: metrics, probes, health, reflection; and starts that are refused."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from processes import MasterProcess, make_master, wait_for
from prometheus_client.parser import text_string_to_metric_families
from raw_peers import Broker, OpenSession, StartMaster
from store_server import StoreServer

from tenure.common.errors import InvalidSetting
from tenure.common.exits import ExitCode
from tenure.master.metrics import MasterMetrics
from tenure.master.settings import load_settings
from tenure.proto import worker_pb2


def families(text: str) -> dict[str, Any]:
    """A scrape's metric families by name."""
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.fixture
def taken_port() -> Iterator[str]:
    """An address where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def refused_start(folder: Path, code: ExitCode = ExitCode.REFUSED, **settings: Any) -> str:
    """What a start that must fail says on stderr, for people; its exit code must be ``code``."""
    process = make_master(folder, **settings)
    try:
        process.spawn()
        assert process.wait() == code, process.log_text()
    finally:
        process.remove()
    (line,) = [line for line in process.log_text().splitlines() if line.startswith("error: ")]
    assert "Traceback" not in process.log_text()
    assert not (folder / "ready.json").exists()
    return line.removeprefix("error: ")


# ---- HTTP ----------------------------------------------------------------------------------------------------------


async def test_every_metric_is_exported(
    broker: Broker, search: str, open_session: OpenSession, master: MasterProcess
) -> None:
    await broker.submit(search, 2)
    session = await open_session(want=1)
    await session.end(await session.hear_task())
    await session.heartbeat()
    status, text = await asyncio.to_thread(master.get, "/metrics")
    assert status == 200
    found = families(text)
    declared = {family.name for family in MasterMetrics().registry.collect()}
    assert {name for name in declared if name.startswith("tenure_")} <= set(found)
    for family in found.values():
        assert family.documentation, family.name
    assert {"process_resident_memory_bytes", "python_info"} <= set(found)


async def test_figures_move(broker: Broker, search: str, open_session: OpenSession, master: MasterProcess) -> None:
    def value(name: str, **labels: str) -> float:
        family = families(master.get("/metrics")[1])[re.sub(r"_(total|count)$", "", name)]
        return sum(
            sample.value for sample in family.samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def figures() -> dict[str, float]:
        return {
            "submits": value("tenure_transitions_total", transition="submit"),
            "successes": value("tenure_outcomes_total", kind="success", verdict="accepted"),
            "stale": value("tenure_outcomes_total", kind="failure", verdict="stale"),
            "sessions": value("tenure_sessions"),
            "heartbeats": value("tenure_heartbeats_total", way="session", verdict="OK"),
            "renewals": value("tenure_lease_renewals_total", verdict="OK"),
            "checkpoints": value("tenure_checkpoints_registered_total", verdict="OK"),
            "calls": value("tenure_rpc_seconds_count", method="Submit", code="OK"),
            "scripts": value("tenure_store_script_items_total", script="submit"),
        }

    # Nobody else's: the session of a test before this one may end only now.
    await asyncio.to_thread(wait_for, lambda: value("tenure_sessions") == 0, what="the end of earlier sessions")
    before = await asyncio.to_thread(figures)
    await broker.submit(search, 2)
    session = await open_session(want=1)
    task = await session.hear_task()
    await session.heartbeat(worker_pb2.Renewal(task_id=task.task_id, lease_token=task.lease_token, epoch=1))
    await session.register_checkpoint(task, "file:///x")
    await session.end(task)
    unknown = worker_pb2.EvaluateRequest(task_id=task.task_id, lease_token="0" * 32, epoch=9)
    await session.end(unknown, worker_pb2.OUTCOME_FAILURE)
    after = await asyncio.to_thread(figures)
    assert {name: after[name] - before[name] for name in after} == {
        "submits": 2,
        "successes": 1,
        "stale": 1,
        "sessions": 1,
        "heartbeats": 1,
        "renewals": 1,
        "checkpoints": 1,
        "calls": 1,
        "scripts": 1,
    }


async def test_figures_of_searches_and_workers(
    broker: Broker, search: str, open_session: OpenSession, master: MasterProcess
) -> None:
    """The sweeper's: they follow within a round."""
    await broker.submit(search, 3)
    await open_session(slots=5)

    def swept() -> bool:
        found = families(master.get("/metrics")[1])
        tasks = {
            sample.labels["state"]: sample.value
            for sample in found["tenure_tasks"].samples
            if sample.labels["search"] == search
        }
        free = [sample.value for sample in found["tenure_slots"].samples if sample.labels["use"] == "free"]
        return tasks.get("QUEUED") == 3 and free[0] >= 5

    await asyncio.to_thread(wait_for, swept)


def test_probes(shared_master: MasterProcess) -> None:
    status, body = shared_master.get("/healthz")
    assert (status, json.loads(body)["ok"], json.loads(body)["master_id"]) == (200, True, shared_master.master_id)
    wait_for(lambda: shared_master.get("/readyz")[0] == 200)
    body = json.loads(shared_master.get("/readyz")[1])
    assert (body["ok"], body["durability"]) == (True, "strict")
    status, text = shared_master.get("/nothing")
    assert (status, "/metrics" in text) == (404, True)


# ---- gRPC ----------------------------------------------------------------------------------------------------------


async def test_health_and_its_watch(broker: Broker) -> None:
    check = broker.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    for service in ("", "morphml.distributed.MasterService", "tenure.v1.TenureService"):
        response = await check(health_pb2.HealthCheckRequest(service=service))
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(health_pb2.HealthCheckRequest(service="nothing"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    watch = broker.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_reflection_lists_and_describes_the_services(broker: Broker) -> None:
    call = broker.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in (await call.read()).list_services_response.service}
    assert {"morphml.distributed.MasterService", "tenure.v1.TenureService", "grpc.health.v1.Health"} <= names
    for name in names:
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
        assert (await call.read()).file_descriptor_response.file_descriptor_proto, name
    await call.done_writing()


async def test_unknown_methods_are_unimplemented(broker: Broker) -> None:
    for path in ("/tenure.v1.TenureService/Nothing", "/nothing.Service/Method"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await broker.channel.unary_unary(path)(b"")
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("path", ["/tenure.v1.TenureService/Submit", "/morphml.distributed.MasterService/Heartbeat"])
async def test_bytes_that_are_no_message(broker: Broker, path: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await broker.channel.unary_unary(path)(b"\xff\xff\xff\xff")
    # Which of them is gRPC's choice, and changes with its versions.
    assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    assert await broker.fsck() == []


# ---- starts that are refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["listen", "http"])
def test_a_port_in_use(tmp_path: Path, taken_port: str, option: str) -> None:
    message = refused_start(tmp_path / "m", **{option: taken_port})
    assert message.startswith(f"{option}: ")
    assert taken_port in message
    assert f"--{option}" in message


def test_the_default_http_port_moves_aside(own_master: StartMaster) -> None:
    """Only where nobody chose it."""
    first = own_master("first", http=None)
    second = own_master("second", http=None)
    assert first.facts["http"] != second.facts["http"]
    assert second.get("/healthz")[0] == 200


def test_a_second_master_on_one_data_directory(own_master: StartMaster, tmp_path: Path) -> None:
    first = own_master()
    message = refused_start(tmp_path / "second", data_dir=first.data_dir)
    assert message.startswith("data_dir: another master")
    assert str(first.pid) in message
    assert str(first.data_dir) in message
    assert first.get("/healthz")[0] == 200
    # Once the first is gone the second may.
    first.kill()
    own_master("second", data_dir=first.data_dir)


@pytest.mark.parametrize(
    ("settings", "field", "given"),
    [
        ({"listen": "127.0.0.1:99999"}, "listen", "127.0.0.1:99999"),
        ({"http": "127.0.0.1"}, "http", "127.0.0.1"),
        ({"lease_ttl_seconds": "soon"}, "lease_ttl_seconds", "soon"),
        ({"lease_ttl_seconds": 10, "heartbeat_seconds": 9}, "lease_ttl_seconds", "10"),
        ({"grace_seconds": 40}, "grace_seconds", "40"),
        ({"tick_seconds": 0}, "tick_seconds", "0"),
        ({"durability": "maybe"}, "durability", "maybe"),
        ({"retry_base_seconds": 60, "retry_max_seconds": 1}, "retry_base_seconds", "60"),
    ],
)
def test_bad_settings(settings: dict[str, Any], field: str, given: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load_settings(**settings)
    assert caught.value.field == field
    assert given in caught.value.given


@pytest.mark.parametrize(
    ("field", "given"),
    [("listen", "nonsense"), ("store", "postgres://x"), ("store", "redis://127.0.0.1:not-a-port")],
)
def test_a_start_with_a_bad_setting(tmp_path: Path, field: str, given: str) -> None:
    message = refused_start(tmp_path / "m", ExitCode.USAGE, **{field: given})
    assert message.startswith(f"{field}: ")
    assert given in message


def test_a_store_that_nobody_serves(tmp_path: Path) -> None:
    message = refused_start(tmp_path / "m", ExitCode.UNAVAILABLE, store=f"unix://{tmp_path}/nothing.sock")
    assert message.startswith("store: does not answer")
    assert "nothing.sock" in message
    assert "start the server" in message


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"}, "evicts"),
        ({"appendonly": "no"}, ""),
    ],
)
def test_a_store_that_must_not_be_used(tmp_path: Path, settings: dict[str, str], problem: str) -> None:
    server = StoreServer(tmp_path / "store", **settings).start()
    try:
        master = {"store": server.url, "data_dir": None}
        if problem:
            assert problem in refused_start(tmp_path / "m", **master)
        else:
            # Asked for, it is refused; not asked for, it is warned of.
            assert "append-only" in refused_start(tmp_path / "m", durability="strict", **master)
            process = make_master(tmp_path / "relaxed", **master).start()
            assert process.logged("store.not_durable")
            process.remove()
    finally:
        server.remove()


def test_a_newer_schema(tmp_path: Path) -> None:
    server = StoreServer(tmp_path / "store").start()
    try:
        with server.client() as client:
            client.hset("tenure:{meta}:schema", mapping={"version": 999, "shards": 1})
        message = refused_start(tmp_path / "m", store=server.url, data_dir=None)
        assert "schema version 999" in message
        assert "another store" in message
    finally:
        server.remove()


def test_help_tells_of_every_option() -> None:
    text = subprocess.run(
        [sys.executable, "-P", "-m", "tenure.client.cli", "master", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for option in ("--listen", "--store", "--data-dir", "--http", "--ready-file"):
        assert option in text
