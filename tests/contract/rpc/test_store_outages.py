"""The store goes away under a master and comes back: what is refused meanwhile, what waits; nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from processes import eventually
from raw_peers import GRAPH, Broker, OpenBroker, OpenSession, StartMaster, outcome_of, refused, renewal_of
from store_server import StoreServer

from tenure.proto import tenure_pb2, worker_pb2

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("", "morphml.distributed.MasterService", "tenure.v1.TenureService")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    """An external store of the test's own."""
    server = StoreServer(tmp_path / "store").start()
    yield server
    server.remove()


async def health(broker: Broker, service: str = "") -> int:
    """The status by the standard health service."""
    check = broker.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return int((await check(health_pb2.HealthCheckRequest(service=service))).status)


async def healthy(broker: Broker) -> bool:
    return await health(broker) == SERVING


async def unhealthy(broker: Broker) -> bool:
    return await health(broker) == NOT_SERVING


async def test_a_store_that_is_gone(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession, server: StoreServer
) -> None:
    master = await asyncio.to_thread(
        own_master, store=server.url, data_dir=None, lease_ttl_seconds=2, heartbeat_seconds=0.5
    )
    broker = open_broker(master.address)
    await broker.submit("s", 2)
    session = await open_session("w", at=master, want=2)
    running, done = await session.hear_tasks(2)
    await eventually(lambda: healthy(broker))
    server.kill()

    task = tenure_pb2.TaskSpec(architecture=GRAPH, key="during")
    for call in (
        broker.api.Submit(tenure_pb2.SubmitRequest(search="s", tasks=[task])),
        broker.api.GetTasks(tenure_pb2.GetTasksRequest(task_ids=[running.task_id])),
        broker.api.ListSearches(tenure_pb2.ListSearchesRequest()),
        broker.api.Watch(tenure_pb2.WatchRequest(search="s")).read(),
        broker.workers.RequestTask(worker_pb2.TaskRequest(worker_id="w")),
        broker.workers.Heartbeat(worker_pb2.HeartbeatRequest(worker_id="w")),
    ):
        async with refused(UNAVAILABLE, "STORE_UNAVAILABLE", "") as parts:
            await call
        assert "store" in parts["message"]
    # An outcome waits for the store on its stream, rather than be refused.
    await session.say(outcomes=worker_pb2.Outcomes(outcomes=[outcome_of(done, worker_pb2.OUTCOME_SUCCESS)]))
    await eventually(lambda: unhealthy(broker))
    assert [await health(broker, service) for service in SERVICES] == [NOT_SERVING] * 3
    assert await asyncio.to_thread(lambda: master.get("/readyz")[0]) == 503
    assert await asyncio.to_thread(lambda: master.get("/healthz")[0]) == 200
    # Longer than the leases: nothing ticks.
    await asyncio.sleep(2.5)

    await asyncio.to_thread(server.start)
    (verdict,) = (await session.hear("outcome_verdicts")).outcome_verdicts.verdicts
    assert verdict.verdict == worker_pb2.VERDICT_OK
    await eventually(lambda: healthy(broker))
    assert [await health(broker, service) for service in SERVICES] == [SERVING] * 3
    assert await asyncio.to_thread(lambda: master.get("/readyz")[0]) == 200
    assert (await session.heartbeat(renewal_of(running))).renewed == 1
    assert (await session.end(running)).verdict == worker_pb2.VERDICT_OK
    found = await broker.task(running.task_id)
    assert (found.epoch, found.losses) == (1, 0)
    # Sent again, the submit that was refused is taken once.
    response = await broker.api.Submit(tenure_pb2.SubmitRequest(search="s", tasks=[task]))
    assert len(response.tasks) == 1
    assert await broker.fsck() == []


async def test_a_store_that_hangs(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession, server: StoreServer
) -> None:
    """Silent, but not gone: callers' own deadlines hold, and the probes tell."""
    master = await asyncio.to_thread(own_master, store=server.url, data_dir=None)
    broker = open_broker(master.address)
    (task_id,) = await broker.submit("s")
    session = await open_session("w", at=master, want=1)
    task = await session.hear_task()
    await eventually(lambda: healthy(broker))
    server.pause()
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await broker.api.GetSearch(tenure_pb2.SearchName(name="s"), timeout=1)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: unhealthy(broker))
        assert await asyncio.to_thread(lambda: master.get("/readyz")[0]) == 503
    finally:
        server.resume()
    await eventually(lambda: healthy(broker))
    assert (await session.end(task)).verdict == worker_pb2.VERDICT_OK
    assert (await broker.task(task_id)).epoch == 1


async def test_an_embedded_store_killed_under_traffic(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """Again and again: every acknowledged submit ends in one success, and no lease is lost."""
    master = await asyncio.to_thread(own_master, lease_ttl_seconds=2, heartbeat_seconds=0.5)
    broker = open_broker(master.address)
    stop = asyncio.Event()
    acknowledged: list[str] = []

    async def submit() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            tasks = [tenure_pb2.TaskSpec(architecture=GRAPH, key=f"{number}-{each}") for each in range(5)]
            while True:
                try:
                    response = await broker.api.Submit(tenure_pb2.SubmitRequest(search="s", tasks=tasks))
                except grpc.aio.AioRpcError as error:
                    if error.code() != UNAVAILABLE:
                        raise
                    await asyncio.sleep(0.02)
                else:
                    acknowledged.extend(task.task_id for task in response.tasks)
                    break

    async def work(name: str) -> None:
        session = await open_session(name, at=master, want=1)
        while True:
            task = await session.hear_task()
            await session.say(renewals=worker_pb2.Renewals(renewals=[renewal_of(task, sequence=1, step=1)]))
            await session.say(
                outcomes=worker_pb2.Outcomes(outcomes=[outcome_of(task, worker_pb2.OUTCOME_SUCCESS)], want_slots=1)
            )
            (verdict,) = (await session.hear("outcome_verdicts")).outcome_verdicts.verdicts
            assert verdict.verdict == worker_pb2.VERDICT_OK

    submitting = asyncio.create_task(submit())
    working = [asyncio.create_task(work(f"w{number}")) for number in range(3)]
    for _ in range(4):
        before = len(acknowledged)
        await eventually(lambda before=before: len(acknowledged) >= before + 50)
        pid = master.store_pid
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda pid=pid: master.store_pid != pid)
    stop.set()
    await submitting

    async def all_done() -> bool:
        found = await broker.api.GetSearch(tenure_pb2.SearchName(name="s"))
        return found.tasks["SUCCEEDED"] == len(acknowledged)

    await eventually(all_done, deadline=60)
    for task in working:
        assert not task.done(), task
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    assert len(set(acknowledged)) == len(acknowledged)
    counters = await broker.counters()
    assert counters.get("leases_expired", 0) == 0
    assert await broker.fsck() == []
    assert len(master.logged("store.restarted")) == 4
    assert len(master.logged("master.ready")) == 1
