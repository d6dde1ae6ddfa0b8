"""MasterService: what workers call, MorphML's and Tenure's own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import structlog

from tenure import __version__
from tenure.common import ids, limits
from tenure.common.errors import InvalidInput, UnknownTask
from tenure.master.core.outcomes import Judged, judge_legacy, judge_outcome
from tenure.master.rpc import session as streams
from tenure.master.rpc.code import get_code
from tenure.master.rpc.messages import evaluate_request
from tenure.master.rpc.outcomes import Taken, end_orphans, take_outcome, verdict_name
from tenure.master.rpc.renewals import HELD, renew, revocations
from tenure.master.rpc.sessions import read_hello, superseded
from tenure.master.rpc.stream_ends import MessagesEnded
from tenure.master.rpc.workers import PULL, PUSH, Registration, heartbeat_fields, read_registration
from tenure.master.store.records import Verdict
from tenure.proto import worker_pb2, worker_pb2_grpc

if TYPE_CHECKING:
    from tenure.master.master import Master

log = structlog.get_logger()

CALL_SECONDS_DEFAULT = 10.0
LONG_POLL_SECONDS_MAX = 60.0
# Part of a call's deadline that may be spent waiting, so that the answer still arrives.
DEADLINE_FRACTION = 0.8


class WorkerService(worker_pb2_grpc.MasterServiceServicer):
    """See proto/worker.proto, MasterService."""

    def __init__(self, master: Master) -> None:
        self._master = master

    async def RegisterWorker(self, request: worker_pb2.RegisterRequest, context: Any) -> worker_pb2.RegisterResponse:
        """Take a worker into the registry. The newer registration of an id wins."""
        master = self._master
        registration = read_registration(request, context.peer())
        register = functools.partial(
            master.store.workers.register, registration.worker_id, registration.instance_id, registration.fields
        )
        patience = master.store.patience
        mode, replaced = await patience.repeat(register, _patience_seconds(context))
        await patience.repeat(lambda: self._end_predecessor(registration), _patience_seconds(context))
        log.info(
            "worker.register",
            worker=registration.worker_id,
            dispatch=registration.dispatch,
            host=registration.host,
            port=registration.port,
            mode=mode,
            replaced=replaced,
        )
        if registration.dispatch == PUSH:
            master.pusher.note_worker(registration.worker_id)
        return worker_pb2.RegisterResponse(
            success=True,
            message="registered",
            master_id=master.master_id,
            lease_ttl_ms=master.settings.lease_ttl_ms,
            heartbeat_interval_ms=master.settings.heartbeat_ms,
            version=__version__,
        )

    async def Heartbeat(self, request: worker_pb2.HeartbeatRequest, context: Any) -> worker_pb2.HeartbeatResponse:
        """The worker is alive, and what it holds is renewed."""
        master = self._master
        worker_id = ids.check_id(request.worker_id, "worker_id")
        verdict, mode = await master.store.workers.heartbeat(worker_id, request.instance_id, heartbeat_fields(request))
        master.metrics.heartbeats.labels("unary", verdict).inc()
        if verdict == "UNKNOWN":
            return worker_pb2.HeartbeatResponse(acknowledged=False, should_continue=True)
        if verdict == "SUPERSEDED":
            # A legacy process that shares its id with a newer one must stop; one of ours is told the same way.
            return worker_pb2.HeartbeatResponse(acknowledged=False, should_continue=False)
        renewed = await renew(master.store, master.metrics, request.renewals, worker_id, request.instance_id)
        if request.instance_id:
            held = [row for row, verdict in renewed if verdict in HELD]
            tokens = frozenset(row.token for row, _ in renewed)
            await master.pusher.note_heartbeat(worker_id, {row.task_id for row in held}, tokens)
        else:
            await master.pusher.note_heartbeat(worker_id, {request.current_task_id} - {""})
        response = worker_pb2.HeartbeatResponse(
            acknowledged=True,
            should_continue=True,
            drain=mode == "draining",
            uncordoned=mode == "active" and master.uncordons.take(worker_id),
        )
        response.revocations.extend(revocations(renewed))
        return response

    async def SubmitResult(self, request: worker_pb2.ResultRequest, context: Any) -> worker_pb2.ResultResponse:
        """Take a result. Sent twice, it is answered the same. A MorphML worker sends it once and then forgets it, so a
        store that is away is waited for as long as the call allows."""
        ids.check_id(request.task_id, "task_id")
        worker_id = ids.check_id(request.worker_id, "worker_id")
        judged = self._judge(request, worker_id)
        taken = await self._master.store.patience.repeat(lambda: self._take(judged), _patience_seconds(context))
        if request.HasField("outcome"):
            self._master.pusher.note_result(worker_id, request.task_id)
        if taken.verdict == Verdict.UNKNOWN_TASK:
            raise unknown_task(request.task_id)
        return worker_pb2.ResultResponse(
            acknowledged=taken.verdict in (Verdict.OK, Verdict.DUPLICATE),
            message=taken.message or "taken",
            verdict=verdict_name(taken.verdict.value),
        )

    async def RequestTask(self, request: worker_pb2.TaskRequest, context: Any) -> worker_pb2.TaskResponse:
        """Pull tasks; waits for one (long poll)."""
        master = self._master
        worker_id = ids.check_id(request.worker_id, "worker_id")
        if request.max_tasks < 0 or request.wait_ms < 0:
            field = "max_tasks" if request.max_tasks < 0 else "wait_ms"
            raise InvalidInput("must not be negative", field=field, given=getattr(request, field))
        worker = await master.store.workers.get(worker_id)
        if worker.fields.get("instance", "") != request.instance_id:
            raise superseded(worker_id)
        master.pusher.forget(worker_id)
        if worker.fields.get("dispatch") == PUSH:
            # It pulls, so it isn't pushed to from now on.
            await master.store.workers.heartbeat(worker_id, request.instance_id, {"dispatch": PULL})
        if not request.instance_id:
            await master.store.workers.seen_legacy(worker_id)
        count = min(request.max_tasks or 1, limits.BATCH_TASKS_MAX)
        grants = await master.polls.wait(worker, count, _wait_seconds(request, context))
        return worker_pb2.TaskResponse(
            has_task=bool(grants), tasks=[evaluate_request(grant, master.settings.lease_ttl_ms) for grant in grants]
        )

    async def GetCode(self, request: worker_pb2.CodeRequest, context: Any) -> worker_pb2.CodePiece:
        """A piece of the code that a task names."""
        return await get_code(self._master.store, request)

    async def Session(self, messages: AsyncIterator[worker_pb2.SessionUp], context: Any) -> None:
        """A Tenure worker's stream; see docs/protocol-session.md."""
        master = self._master
        first = await anext(aiter(messages), None)
        if first is None:
            raise MessagesEnded
        registration = read_hello(first, context.peer())
        mode, _ = await master.store.workers.register(
            registration.worker_id, registration.instance_id, registration.fields
        )
        session = master.new_session(registration, mode, first.hello.held)
        log.info("session.up", worker=registration.worker_id, slots=registration.slots, held=len(first.hello.held))
        reader = asyncio.create_task(session.run(first.hello, messages, master.welcome()))
        reader.add_done_callback(session.end_if_failed)
        try:
            async for message in session.outgoing():
                await context.write(message)
        finally:
            # Shielded: a peer's death is often seen as the end of its messages first, and cancels this call only then.
            await asyncio.shield(master.spawn(self._end_session(session, reader)))

    async def _end_session(self, session: streams.Session, reader: asyncio.Task[None]) -> None:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        self._master.sessions.remove(session)
        self._master.tails.forget_worker(session.worker_id)
        await session.close(cut=not self._master.stopping)
        log.info("session.down", worker=session.worker_id)

    async def _end_predecessor(self, registration: Registration) -> None:
        """What an earlier process of this worker id held died with it. A legacy process registers once, as it starts;
        its heartbeats would keep alive for ever what it knows nothing of."""
        master = self._master
        held = await master.census.leases_of(registration.worker_id)
        orphans = [
            each for each in held if not registration.instance_id or each.instance_id != registration.instance_id
        ]
        await end_orphans(master.store, master.metrics, orphans, master.retry)

    async def _take(self, judged: Judged) -> Taken:
        if not judged.token:
            await self._master.store.workers.get(judged.worker_id)
        return await take_outcome(self._master.store, self._master.metrics, judged)

    def _judge(self, request: worker_pb2.ResultRequest, worker_id: str) -> Judged:
        if request.HasField("outcome"):
            outcome = worker_pb2.Outcome()
            outcome.CopyFrom(request.outcome)
            outcome.task_id = request.task_id
            return judge_outcome(outcome, worker_id, self._master.retry)
        lease = self._master.pusher.lease_of(worker_id, request.task_id)
        return judge_legacy(
            task_id=request.task_id,
            worker_id=worker_id,
            success=request.success,
            metrics=dict(request.metrics),
            error=request.error,
            duration=request.duration,
            architecture=request.architecture,
            retry=self._master.retry,
            token=lease.token if lease else "",
        )


def unknown_task(task_id: str) -> UnknownTask:
    """For an id that no task has."""
    return UnknownTask(
        "no task of this id",
        field="task_id",
        given=task_id,
        expected="it was never submitted here, or retention has forgotten it",
    )


def _patience_seconds(context: Any) -> float:
    left = context.time_remaining()
    return CALL_SECONDS_DEFAULT if left is None else float(left) * DEADLINE_FRACTION


def _wait_seconds(request: worker_pb2.TaskRequest, context: Any) -> float:
    left = context.time_remaining()
    wait = request.wait_ms / 1000 if request.wait_ms else CALL_SECONDS_DEFAULT
    if left is not None:
        wait = min(wait, left * DEADLINE_FRACTION) if request.wait_ms else left * DEADLINE_FRACTION
    return float(min(wait, LONG_POLL_SECONDS_MAX))
