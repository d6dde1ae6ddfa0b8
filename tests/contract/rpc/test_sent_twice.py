"""Every request of both services, sent twice: the second answer is the first, and the second sending changes nothing.

The table is checked against the services' descriptors: an RPC without a case fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from processes import MasterProcess, start_master
from raw_peers import (
    GRAPH,
    MASTER_SETTINGS,
    Broker,
    OpenBroker,
    OpenSession,
    RawSession,
    outcome_of,
    renewal_of,
)
from store_scene import read_key
from store_server import StoreServer

from tenure.proto import tenure_pb2, worker_pb2

# What a second sending must leave as it is; the rest are clocks, when somebody was seen, and the events of refusals.
KEPT = (":task:", ":search:", ":attempts:", ":checkpoints:", ":outcome:", ":members:", ":keys:", ":payload-refs")
# Fields of an answer that say that it was done before.
DONE_BEFORE = {"SubmitResponse": ("created",), "TaskVerdicts": ("verdict",)}
# Those that only say what time it is.
TIMES = re.compile(r"\s*(\w+_ms_ago|oldest_queued_ms|lease_\w*ms|uptime\w*):")


_numbers = itertools.count(1)


@dataclass
class Peers:
    """A search with a QUEUED task, one LEASED by a worker with a stream, a CANCELLED one; a worker without stream."""

    search: str
    broker: Broker
    session: RawSession
    queued: str
    leased: worker_pb2.EvaluateRequest
    cancelled: str


def name(peers: Peers) -> tenure_pb2.SearchName:
    return tenure_pb2.SearchName(name=peers.search)


def worker(peers: Peers) -> tenure_pb2.WorkerName:
    return tenure_pb2.WorkerName(worker_id=peers.session.worker_id)


def registration(search: str) -> worker_pb2.RegisterRequest:
    return worker_pb2.RegisterRequest(worker_id=f"{search}-pull", instance_id="i", dispatch=worker_pb2.DISPATCH_PULL)


ARCHIVE = b"no zip, which is the worker's affair"
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()


def upload() -> tenure_pb2.PutCodeRequest:
    return tenure_pb2.PutCodeRequest(search="code", digest=DIGEST, size_bytes=len(ARCHIVE), data=ARCHIVE)


CASES: dict[str, Callable[[Peers], Message]] = {
    "RegisterWorker": lambda peers: registration(peers.search),
    "Heartbeat": lambda peers: worker_pb2.HeartbeatRequest(
        worker_id=peers.session.worker_id,
        instance_id="instance-1",
        renewals=[renewal_of(peers.leased, sequence=1, step=2)],
    ),
    "SubmitResult": lambda peers: worker_pb2.ResultRequest(
        task_id=peers.leased.task_id,
        worker_id=peers.session.worker_id,
        outcome=outcome_of(peers.leased, worker_pb2.OUTCOME_SUCCESS),
    ),
    "Submit": lambda peers: tenure_pb2.SubmitRequest(
        search=peers.search, tasks=[tenure_pb2.TaskSpec(architecture=GRAPH, key=key) for key in ("new", "newer")]
    ),
    "GetTasks": lambda peers: tenure_pb2.GetTasksRequest(task_ids=[peers.queued, peers.cancelled], full=True),
    "ListTasks": lambda peers: tenure_pb2.ListTasksRequest(search=peers.search),
    "CancelTasks": lambda peers: tenure_pb2.TaskIds(task_ids=[peers.queued, peers.leased.task_id]),
    "RequeueTasks": lambda peers: tenure_pb2.TaskIds(task_ids=[peers.cancelled]),
    "PutSearch": lambda peers: tenure_pb2.PutSearchRequest(name=peers.search, priority=3, weight=2.5),
    "GetSearch": name,
    "ListSearches": lambda peers: tenure_pb2.ListSearchesRequest(),
    "PauseSearch": name,
    "ResumeSearch": name,
    "CancelSearch": name,
    "ListWorkers": lambda peers: tenure_pb2.ListWorkersRequest(all=True),
    "DrainWorker": worker,
    "CordonWorker": worker,
    "UncordonWorker": worker,
    "PutCode": lambda peers: upload(),
    "HasCode": lambda peers: tenure_pb2.CodeName(search="code", digest=DIGEST),
    "GetCode": lambda peers: worker_pb2.CodeRequest(search="code", digest=DIGEST),
    "GetStats": lambda peers: tenure_pb2.StatsRequest(),
    "Fsck": lambda peers: tenure_pb2.FsckRequest(),
}
# Tests of their own below.
APART = {"RequestTask", "Session", "TailTask", "Watch"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    server = StoreServer(tmp_path_factory.mktemp("store")).start()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def master(server: StoreServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterProcess]:
    """The module's own: nobody else changes anything there."""
    folder = tmp_path_factory.mktemp("master")
    process = start_master(folder, store=server.url, **MASTER_SETTINGS | {"data_dir": None})
    yield process
    process.remove()


@pytest.fixture
async def peers(master: MasterProcess, open_broker: OpenBroker, open_session: OpenSession) -> AsyncIterator[Peers]:
    search = f"s{next(_numbers)}"
    broker = open_broker(master.address)
    await broker.submit(search)
    session = await open_session(f"{search}-w", at=master, want=1)
    leased = await session.hear_task()
    cancelled, queued = await broker.submit(search, 2)
    await broker.api.CancelTasks(tenure_pb2.TaskIds(task_ids=[cancelled]))
    await broker.workers.RegisterWorker(registration(search))
    await broker.api.PutCode(upload())
    yield Peers(search, broker, session, queued, leased, cancelled)
    # Nothing of it changes while the next test looks.
    await broker.api.CancelSearch(tenure_pb2.SearchName(name=search))
    with contextlib.suppress(grpc.aio.AioRpcError):
        await session.end(leased, worker_pb2.OUTCOME_RELEASE)
        await session.goodbye()


def kept(server: StoreServer) -> dict[str, Any]:
    """Everything that a second sending must leave as it is."""
    with server.client() as client:
        found = {key: read_key(client, key) for key in sorted(client.keys()) if any(n in key.decode() for n in KEPT)}
    for value in found.values():
        if isinstance(value, dict):
            for field in (b"changed", b"progress_at"):
                value.pop(field, None)
    return found


def comparable(answer: Message) -> str:
    """The answer as text, without what may pass."""
    passing = DONE_BEFORE.get(type(answer).__name__, ())
    lines = [line for line in str(answer).splitlines() if not TIMES.match(line)]
    return "\n".join(line for line in lines if line.strip().partition(":")[0] not in passing)


def test_every_rpc_has_a_case() -> None:
    methods = [
        method.name
        for service in (
            worker_pb2.DESCRIPTOR.services_by_name["MasterService"],
            tenure_pb2.DESCRIPTOR.services_by_name["TenureService"],
        )
        for method in service.methods
    ]
    assert sorted(methods) == sorted([*CASES, *APART])


@pytest.mark.parametrize("rpc", CASES)
async def test_the_second_sending_answers_the_same_and_changes_nothing(
    peers: Peers, server: StoreServer, rpc: str
) -> None:
    stub = getattr(peers.broker.workers, rpc, None) or getattr(peers.broker.api, rpc)
    request = CASES[rpc](peers)
    first = await stub(request)
    before = kept(server)
    second = await stub(request)
    assert comparable(second) == comparable(first)
    assert kept(server) == before
    assert await peers.broker.fsck() == []


async def test_a_second_request_for_a_task_is_not_given_the_first_one_s(peers: Peers) -> None:
    """It asks for more, as it must: what the first was given it holds. A lost answer's lease runs out."""
    request = worker_pb2.TaskRequest(worker_id=f"{peers.search}-pull", instance_id="i", max_tasks=1, wait_ms=300)
    first = await peers.broker.workers.RequestTask(request)
    assert [task.task_id for task in first.tasks] == [peers.queued]
    assert not (await peers.broker.workers.RequestTask(request)).has_task


KINDS: dict[str, Callable[[RawSession, worker_pb2.EvaluateRequest], Awaitable[Message]]] = {
    "success": lambda session, task: session.end(task),
    "failure": lambda session, task: session.end(task, worker_pb2.OUTCOME_FAILURE, retryable=False),
    "loss": lambda session, task: session.end(task, worker_pb2.OUTCOME_LOSS),
    "release": lambda session, task: session.end(task, worker_pb2.OUTCOME_RELEASE),
    "checkpoint": lambda session, task: session.register_checkpoint(task, "file:///c/1"),
    "renewal": lambda session, task: session.heartbeat(renewal_of(task, sequence=1, step=1)),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_second_message_on_a_stream_is_answered_the_same(peers: Peers, server: StoreServer, kind: str) -> None:
    first = await KINDS[kind](peers.session, peers.leased)
    before = kept(server)
    assert comparable(await KINDS[kind](peers.session, peers.leased)) == comparable(first)
    assert kept(server) == before


@pytest.mark.parametrize("kind", KINDS)
async def test_an_outdated_token_on_a_stream_changes_nothing(peers: Peers, server: StoreServer, kind: str) -> None:
    stranger = worker_pb2.EvaluateRequest()
    stranger.CopyFrom(peers.leased)
    stranger.lease_token = "f" * 32
    before = kept(server)
    answer = await KINDS[kind](peers.session, stranger)
    if kind == "success":
        assert answer.verdict == worker_pb2.VERDICT_OK  # type: ignore[attr-defined]
        return
    if kind == "renewal":
        assert answer.renewed == 0  # type: ignore[attr-defined]
        assert (await peers.session.hear_revocation()).reason == "lost"
    else:
        assert answer.verdict == worker_pb2.VERDICT_STALE  # type: ignore[attr-defined]
    assert kept(server) == before


async def test_a_tail_of_an_ended_task_tells_the_same_twice(peers: Peers) -> None:
    request = tenure_pb2.TailTaskRequest(task_id=peers.cancelled, follow=True)
    told = [[item async for item in peers.broker.api.TailTask(request)] for _ in range(2)]
    assert told[0] == told[1]
    assert told[0][-1].end.state == tenure_pb2.CANCELLED


async def test_a_watch_from_one_cursor_tells_the_same_twice(peers: Peers) -> None:
    told = []
    start = (await peers.broker.api.Watch(tenure_pb2.WatchRequest(search=peers.search)).read()).cursor
    await peers.broker.api.CancelTasks(tenure_pb2.TaskIds(task_ids=[peers.queued]))
    for _ in range(2):
        watch = peers.broker.api.Watch(tenure_pb2.WatchRequest(search=peers.search, cursor=start))
        while not (batch := await watch.read()).events:
            pass
        told.append(batch.events[0])
        watch.cancel()
    assert told[0] == told[1]
    assert told[0].task_id == peers.queued
