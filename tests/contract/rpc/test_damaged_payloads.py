"""A task whose payload can't be read any more is parked at once, costs the others nothing, and can be mended."""

from __future__ import annotations

import redis
from processes import MasterProcess
from raw_peers import GRAPH, Broker, OpenSession

from tenure.proto import tenure_pb2

FAILED, SUCCEEDED = tenure_pb2.FAILED, tenure_pb2.SUCCEEDED


async def test_it_is_parked_with_the_reason_and_what_waits_behind_it_is_served(
    master: MasterProcess, broker: Broker, open_session: OpenSession, search: str
) -> None:
    # Each with content of its own.
    ids = [(await broker.submit(search, architecture=GRAPH + " " * number))[0] for number in range(6)]
    damaged = {}
    with redis.Redis(unix_socket_path=str(master.data_dir / "store.sock")) as client:
        for task_id in ids[:4]:
            digest = client.hget(f"tenure:{{0}}:task:{task_id}", "payload")
            assert digest is not None
            key = "tenure:{0}:payload:" + digest.decode()
            damaged[key] = client.get(key)
        for key in damaged:
            client.set(key, b"not compressed")
        try:
            session = await open_session(want=1)
            for whole in ids[4:]:
                task = await session.hear_task()
                assert task.task_id == whole
                await session.end(task)
                await session.want(1)
            for task_id in ids[:4]:
                found = await broker.until(task_id, FAILED)
                assert (found.attempts, found.losses) == (1, 0)
                (record,) = found.attempt_records
                assert record.error_class == "PayloadDamaged"
                assert "submit the task again" in record.error_message
        finally:
            for key, content in damaged.items():
                assert content is not None
                client.set(key, content)
    assert {line["task"] for line in master.logged("store.payload_damaged")} >= set(ids[:4])
    await broker.api.RequeueTasks(tenure_pb2.TaskIds(task_ids=ids[:4]))
    for _ in ids[:4]:
        await session.end(await session.hear_task())
        await session.want(1)
    for task_id in ids:
        await broker.until(task_id, SUCCEEDED)
