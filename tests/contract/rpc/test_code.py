"""PutCode, HasCode and GetCode: what is refused, and by which field."""

from __future__ import annotations

import hashlib

import grpc
import pytest
from raw_peers import Broker, OpenSession, refused

from tenure.common.limits import CODE_BYTES_MAX, CODE_PIECE_BYTES_MAX
from tenure.proto import tenure_pb2, worker_pb2

ARCHIVE = b"x" * 2_500_000
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()


def piece(name: str, **changed: object) -> tenure_pb2.PutCodeRequest:
    fields = {"search": name, "digest": DIGEST, "size_bytes": len(ARCHIVE), "offset": 0, "data": ARCHIVE[:1000]}
    return tenure_pb2.PutCodeRequest(**{**fields, **changed})


async def put_whole(broker: Broker, search: str, archive: bytes = ARCHIVE) -> str:
    digest = hashlib.sha256(archive).hexdigest()
    state = await broker.api.HasCode(tenure_pb2.CodeName(search=search, digest=digest))
    while not state.whole:
        offset = state.received_bytes
        data = archive[offset : offset + CODE_PIECE_BYTES_MAX]
        state = await broker.api.PutCode(
            piece(search, digest=digest, size_bytes=len(archive), offset=offset, data=data)
        )
    return digest


@pytest.mark.parametrize(
    ("changed", "code", "field"),
    [
        ({"search": ""}, "INVALID_INPUT", "search"),
        ({"digest": "../etc"}, "INVALID_INPUT", "code"),
        ({"digest": "A" * 64}, "INVALID_INPUT", "code"),
        ({"size_bytes": 0}, "INVALID_CODE", "size_bytes"),
        ({"size_bytes": CODE_BYTES_MAX + 1}, "INVALID_CODE", "size_bytes"),
        ({"data": b""}, "INVALID_INPUT", "data"),
        ({"data": b"x" * (CODE_PIECE_BYTES_MAX + 1)}, "INVALID_INPUT", "data"),
        ({"offset": -1}, "INVALID_INPUT", "offset"),
        ({"offset": len(ARCHIVE)}, "INVALID_INPUT", "offset"),
    ],
)
async def test_a_piece_that_can_not_be_right(
    broker: Broker, search: str, changed: dict[str, object], code: str, field: str
) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, code, field):
        await broker.api.PutCode(piece(search, **changed))


async def test_a_worker_reads_what_a_client_put(broker: Broker, search: str) -> None:
    await put_whole(broker, search)
    found = b""
    while len(found) < len(ARCHIVE):
        request = worker_pb2.CodeRequest(search=search, digest=DIGEST, offset=len(found))
        answer = await broker.workers.GetCode(request)
        assert answer.size_bytes == len(ARCHIVE)
        assert 0 < len(answer.data) <= CODE_PIECE_BYTES_MAX
        found += answer.data
    assert found == ARCHIVE
    unknown = worker_pb2.CodeRequest(search=search, digest="0" * 64)
    async with refused(grpc.StatusCode.NOT_FOUND, "UNKNOWN_CODE", "code"):
        await broker.workers.GetCode(unknown)


async def test_a_search_names_it_for_tasks_that_name_nothing(
    broker: Broker, search: str, open_session: OpenSession
) -> None:
    """What a task is evaluated by is settled when it is submitted, by any client."""
    archive = b"of this test alone"
    digest = hashlib.sha256(archive).hexdigest()
    put = tenure_pb2.PutSearchRequest(name=search, evaluator="m:f", code=digest, architecture_format="json")
    async with refused(grpc.StatusCode.NOT_FOUND, "UNKNOWN_CODE", "code"):
        await broker.api.PutSearch(put)
    await put_whole(broker, search, archive)
    changed = await broker.api.PutSearch(put)
    assert (changed.evaluator, changed.code) == ("m:f", digest)
    first = (await broker.submit(search, 1))[0]
    await broker.api.PutSearch(tenure_pb2.PutSearchRequest(name=search, evaluator="", code=""))
    second = (await broker.submit(search, 1, key="second"))[0]
    careful = await open_session(want=2)
    assert [task.task_id for task in await careful.hear_tasks(1)] == [second]
    bold = await open_session(want=1, accepts_code=True)
    (task,) = await bold.hear_tasks(1)
    assert (task.task_id, task.evaluator, task.code, dict(task.config.extra)) == (first, "m:f", digest, {})
    record = await broker.task(first)
    assert (record.evaluator, record.code, dict(record.requirements.labels)) == ("m:f", digest, {})
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", "code"):
        await broker.api.PutSearch(tenure_pb2.PutSearchRequest(name=search, code=DIGEST))


async def test_a_task_with_code_needs_its_evaluator(broker: Broker, search: str) -> None:
    for program, field in (({"code": DIGEST}, "evaluator"), ({"evaluator": "nonsense"}, "evaluator")):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", f"tasks[0].{field}"):
            await broker.submit(search, 1, **program)
