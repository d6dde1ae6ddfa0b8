"""MasterService: what workers call, MorphML's and Tenure's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import structlog

from tenure import __version__
from tenure.common import ids
from tenure.common.errors import InvalidInput, StoreUnavailable, UnknownTask
from tenure.master.core.matching import Capabilities
from tenure.master.core.outcomes import Judged, judge_legacy, judge_outcome
from tenure.master.loops.matchmaker import Consumer
from tenure.master.rpc import session as streams
from tenure.master.rpc.messages import evaluate_request
from tenure.master.rpc.outcomes import take_outcome, verdict_name
from tenure.master.rpc.renewals import renew, revocations
from tenure.master.rpc.sessions import read_hello
from tenure.master.rpc.workers import PULL, PUSH, heartbeat_fields, read_registration
from tenure.master.store.records import Grant, Release, Verdict
from tenure.proto import worker_pb2, worker_pb2_grpc

if TYPE_CHECKING:
    from tenure.master.master import Master

log = structlog.get_logger()

LONG_POLL_SECONDS_DEFAULT = 10.0
LONG_POLL_SECONDS_MAX = 60.0
# Part of a call's deadline that a long poll may use, so that its answer still arrives.
LONG_POLL_FRACTION = 0.8


class WorkerService(worker_pb2_grpc.MasterServiceServicer):
    """See proto/worker.proto, MasterService."""

    def __init__(self, master: Master) -> None:
        self._master = master

    async def RegisterWorker(self, request: worker_pb2.RegisterRequest, context: Any) -> worker_pb2.RegisterResponse:
        """Take a worker into the registry. The newer registration of an id wins."""
        master = self._master
        registration = read_registration(request, context.peer())
        mode, replaced = await master.store.workers.register(
            registration.worker_id, registration.instance_id, registration.fields
        )
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
        if not request.instance_id:
            await master.pusher.note_legacy_heartbeat(worker_id, request.current_task_id)
        else:
            master.pusher.note_heartbeat(worker_id, request.current_task_id)
        response = worker_pb2.HeartbeatResponse(acknowledged=True, should_continue=True, drain=mode == "draining")
        renewed = await renew(master.store, master.metrics, request.renewals, worker_id)
        response.revocations.extend(revocations(renewed))
        return response

    async def SubmitResult(self, request: worker_pb2.ResultRequest, context: Any) -> worker_pb2.ResultResponse:
        """Take a result. Sent twice, it is answered the same."""
        master = self._master
        ids.check_id(request.task_id, "task_id")
        worker_id = ids.check_id(request.worker_id, "worker_id")
        judged = self._judge(request, worker_id)
        if not judged.token:
            await master.store.workers.get(worker_id)
        taken = await take_outcome(master.store, master.metrics, judged)
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
        master.pusher.forget(worker_id)
        if worker.fields.get("dispatch") == PUSH:
            # It pulls, so it isn't pushed to from now on.
            await master.store.workers.heartbeat(worker_id, worker.fields["instance"], {"dispatch": PULL})
        if worker.fields.get("mode", "active") != "active":
            return worker_pb2.TaskResponse(has_task=False)
        if not request.instance_id:
            await master.store.workers.seen_legacy(worker_id)
        capabilities = Capabilities(
            int(worker.number("num_gpus")) // max(1, int(worker.number("slots"))),
            dict(pair.split("=", 1) for pair in worker.fields.get("labels", "").split("\n") if "=" in pair),
        )
        grants = await self._wait_for_tasks(request, capabilities, _wait_seconds(request, context))
        return worker_pb2.TaskResponse(
            has_task=bool(grants), tasks=[evaluate_request(grant, master.settings.lease_ttl_ms) for grant in grants]
        )

    async def Session(self, messages: AsyncIterator[worker_pb2.SessionUp], context: Any) -> None:
        """A Tenure worker's stream; see docs/protocol-session.md."""
        master = self._master
        first = await anext(aiter(messages), None)
        if first is None:
            return
        registration = read_hello(first, context.peer())
        mode, _ = await master.store.workers.register(
            registration.worker_id, registration.instance_id, registration.fields
        )
        session = master.new_session(registration, mode, first.hello.held)
        log.info("session.up", worker=registration.worker_id, slots=registration.slots, held=len(first.hello.held))
        reader = asyncio.create_task(session.run(first.hello, messages, master.welcome()))
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
        await session.close(cut=not self._master.stopping)
        log.info("session.down", worker=session.worker_id)

    def _judge(self, request: worker_pb2.ResultRequest, worker_id: str) -> Judged:
        if request.HasField("outcome"):
            outcome = worker_pb2.Outcome()
            outcome.CopyFrom(request.outcome)
            outcome.task_id = request.task_id
            return judge_outcome(outcome, worker_id, self._master.retry)
        return judge_legacy(
            task_id=request.task_id,
            worker_id=worker_id,
            success=request.success,
            metrics=dict(request.metrics),
            error=request.error,
            duration=request.duration,
            architecture=request.architecture,
            retry=self._master.retry,
        )

    async def _wait_for_tasks(
        self, request: worker_pb2.TaskRequest, capabilities: Capabilities, seconds: float
    ) -> list[Grant]:
        """Grants, or none after ``seconds``. Those that come too late (the caller is gone) are given back."""
        arrived: asyncio.Future[list[Grant]] = asyncio.get_running_loop().create_future()

        def deliver(grants: list[Grant]) -> None:
            if arrived.done():
                self._master.spawn(self._give_back(request.worker_id, grants))
            else:
                arrived.set_result(grants)
                self._master.matchmaker.want(consumer, 0)

        consumer = Consumer(request.worker_id, capabilities, deliver, legacy=not request.instance_id)
        self._master.matchmaker.want(consumer, min(request.max_tasks or 1, 100))
        try:
            return await asyncio.wait_for(asyncio.shield(arrived), seconds)
        except TimeoutError:
            return arrived.result() if arrived.done() else []
        except asyncio.CancelledError:
            if arrived.done():
                self._master.spawn(self._give_back(request.worker_id, arrived.result()))
            raise
        finally:
            self._master.matchmaker.leave(consumer)
            if not arrived.done():
                arrived.cancel()

    async def _give_back(self, worker_id: str, grants: list[Grant]) -> None:
        for grant in grants:
            try:
                await self._master.store.tasks.release(Release(grant.task_id, grant.token, worker_id))
            except StoreUnavailable as error:
                log.warning("task.give_back_failed", task=grant.task_id, worker=worker_id, error=str(error))


def unknown_task(task_id: str) -> UnknownTask:
    """For an id that no task has."""
    return UnknownTask(
        "no task of this id",
        field="task_id",
        given=task_id,
        expected="it was never submitted here, or retention has forgotten it",
    )


def _wait_seconds(request: worker_pb2.TaskRequest, context: Any) -> float:
    left = context.time_remaining()
    wait = request.wait_ms / 1000 if request.wait_ms else LONG_POLL_SECONDS_DEFAULT
    if left is not None:
        wait = min(wait, left * LONG_POLL_FRACTION) if request.wait_ms else left * LONG_POLL_FRACTION
    return float(min(wait, LONG_POLL_SECONDS_MAX))
