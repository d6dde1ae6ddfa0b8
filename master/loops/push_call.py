"""One Evaluate call on a push worker, from the request to its outcome in the store."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import time
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import structlog

from tenure.common.errors import StoreUnavailable
from tenure.master.core.outcomes import Judged, judge_legacy, judge_outcome
from tenure.master.rpc.messages import evaluate_request
from tenure.master.rpc.outcomes import take_outcome
from tenure.master.store.records import Evidence, Failure, FailureKind, Grant, Release, Renewal, RenewVerdict
from tenure.proto import worker_pb2, worker_pb2_grpc

if TYPE_CHECKING:
    from tenure.master.master import Master

log = structlog.get_logger()

CONTROL_CALL_SECONDS = 5.0
# After a call broke: how long a result that is on its way by SubmitResult is waited for.
RESULT_GRACE_SECONDS = 3.0
# Whoever answers with these has not begun: all slots are taken, it pulls, or it is no worker at all.
_REFUSALS = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
_STOP_REASONS = {
    RenewVerdict.CANCEL: "cancelled",
    RenewVerdict.LOST: "lost",
    RenewVerdict.FINISHED: "finished_elsewhere",
    RenewVerdict.UNKNOWN: "unknown",
}


class CallEnd(enum.Enum):
    """How a call ended, for whoever decides what the worker is given next."""

    ANSWERED = "the evaluation has ended"
    REFUSED = "it never began"
    BROKEN = "the connection or the worker is gone"
    GOES_ON = "the call has ended, the evaluation maybe not"


class PushCall:
    """See the module. :meth:`run` once.

    Attributes:
        grant: The task and its lease.
    """

    def __init__(self, master: Master, worker_id: str, stub: worker_pb2_grpc.WorkerServiceStub, grant: Grant) -> None:
        self.grant = grant
        self._master = master
        self._store = master.store
        self._worker_id = worker_id
        self._stub = stub
        self._stop_said = False
        self._lease_ended = asyncio.Event()

    async def run(self) -> CallEnd:
        """Call, wait for the end, put it into the store. When cancelled, the worker runs on: its result comes by
        SubmitResult."""
        grant = self.grant
        log.info("task.push", **grant.log_fields, worker=self._worker_id)
        request = evaluate_request(grant, self._master.settings.lease_ttl_ms)
        renewing = asyncio.create_task(self._renew())
        try:
            response = await self._stub.Evaluate(request, timeout=grant.timeout_ms / 1000 or None)
        except asyncio.CancelledError:
            # This side has hung up: the master stops, or the worker is pushed to no more.
            self._master.metrics.pushes.labels("cancelled").inc()
            raise
        except grpc.aio.AioRpcError as error:
            return await self._ended_badly(error)
        else:
            self._master.metrics.pushes.labels("response").inc()
            await self._take(self._judge(response))
            return CallEnd.ANSWERED
        finally:
            renewing.cancel()

    def note_lease_ended(self) -> None:
        """The lease has ended in the store: its result came by SubmitResult, or it was lost."""
        self._lease_ended.set()

    async def say_stop(self, reason: str) -> None:
        """Ask the worker to stop the evaluation, once. A MorphML worker answers yes and goes on."""
        if self._stop_said:
            return
        self._stop_said = True
        grant = self.grant
        request = worker_pb2.CancelRequest(task_id=grant.task_id, lease_token=grant.token, reason=reason)
        try:
            await self._stub.CancelTask(request, timeout=CONTROL_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            fields = {**grant.log_fields, "worker": self._worker_id}
            log.warning("push.cancel_failed", **fields, code=error.code().name, details=error.details())

    async def _renew(self) -> None:
        """An open call is a sign of life: pings run beneath it."""
        grant = self.grant
        renewal = Renewal(grant.task_id, grant.token, grant.epoch, self._worker_id)
        while True:
            await asyncio.sleep(self._master.settings.heartbeat_seconds)
            with contextlib.suppress(StoreUnavailable):
                verdict = await self._store.tasks.renew(renewal)
                self._master.metrics.renewals.labels(verdict.value).inc()
                if verdict in _STOP_REASONS:
                    await self.say_stop(_STOP_REASONS[verdict])

    def _judge(self, response: worker_pb2.EvaluateResponse) -> Judged:
        grant = self.grant
        if response.HasField("outcome"):
            outcome = worker_pb2.Outcome()
            outcome.CopyFrom(response.outcome)
            outcome.task_id, outcome.lease_token, outcome.epoch = grant.task_id, grant.token, grant.epoch
            return judge_outcome(outcome, self._worker_id, self._master.retry)
        return judge_legacy(
            task_id=grant.task_id,
            worker_id=self._worker_id,
            success=response.success,
            metrics=dict(response.metrics),
            error=response.error,
            duration=response.duration,
            architecture="",
            retry=self._master.retry,
            token=grant.token,
        )

    async def _ended_badly(self, error: grpc.aio.AioRpcError) -> CallEnd:
        code, details = error.code(), error.details() or ""
        self._master.metrics.pushes.labels(code.name.lower()).inc()
        fields = {**self.grant.log_fields, "worker": self._worker_id}
        log.warning("push.broke", **fields, code=code.name, details=details)
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            await self.say_stop("timeout")
            await self._fail(FailureKind.FAILURE, "TaskTimeout", f"ran for {self.grant.timeout_ms / 1000:g} s")
            return CallEnd.GOES_ON if await self._still_runs() else CallEnd.ANSWERED
        if code in _REFUSALS or _found_nobody(error):
            await self._take(Release(self.grant.task_id, self.grant.token, self._worker_id))
            return CallEnd.REFUSED
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            await self._ask_what_runs()
            return CallEnd.BROKEN
        await self._fail(FailureKind.FAILURE, "EvaluateCallFailed", f"{code.name}: {details}")
        return CallEnd.ANSWERED

    async def _ask_what_runs(self) -> None:
        """The call broke under way. While the worker says that it runs the task, its result is waited for."""
        try:
            while await self._is_running():
                if await self._ends_within(min(RESULT_GRACE_SECONDS, self._master.settings.heartbeat_seconds)):
                    return
        except grpc.aio.AioRpcError as error:
            await self._fail(FailureKind.LOSS, "WorkerLost", f"its worker can't be reached: {error.details()}")
        else:
            if not await self._ends_within(RESULT_GRACE_SECONDS):
                await self._fail(FailureKind.LOSS, "ResultLost", "its worker runs it no more")

    async def _ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._lease_ended.wait()
        return self._lease_ended.is_set()

    async def _still_runs(self) -> bool:
        """False where the worker can't be asked."""
        try:
            return await self._is_running()
        except grpc.aio.AioRpcError:
            return False

    async def _is_running(self) -> bool:
        """Whether the worker says that it runs the task; raises AioRpcError when it can't be asked.

        A connection that is refused is believed at once. One that broke, as this one may under way, is dialled again.
        """
        request = worker_pb2.StatusRequest(worker_id=self._worker_id)
        deadline = time.monotonic() + CONTROL_CALL_SECONDS
        while True:
            try:
                status = await self._stub.GetStatus(request, timeout=max(0.1, deadline - time.monotonic()))
            except grpc.aio.AioRpcError as error:
                if _found_nobody(error) or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                return self.grant.task_id in (status.current_task_id, *status.task_ids)

    async def _fail(self, kind: FailureKind, error_class: str, message: str) -> None:
        evidence = Evidence(error_class=error_class, error_message=message)
        grant = self.grant
        await self._take(Failure(grant.task_id, grant.token, self._worker_id, kind, True, evidence, self._master.retry))

    async def _take(self, judged: Judged) -> None:
        while True:
            try:
                await take_outcome(self._store, self._master.metrics, judged)
                return
            except StoreUnavailable:
                await asyncio.sleep(random.uniform(0.1, 1.0))


def _found_nobody(error: grpc.aio.AioRpcError) -> bool:
    """Whether the call found no connection, rather than lost it under way; only the text tells."""
    return error.code() == grpc.StatusCode.UNAVAILABLE and "failed to connect" in (error.details() or "").lower()
