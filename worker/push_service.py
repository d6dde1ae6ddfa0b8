"""WorkerService: what a master may ask of this worker by calling it.

``Evaluate`` is the push protocol and served with ``--dispatch push`` only; the rest is served always.

When an Evaluate call ends before its evaluation (cancelled, deadline passed, connection lost), what is right depends
on who called. A MorphML master has given the task up, and keeps nothing across a restart: the work stops. A task with
a lease token comes from a Tenure master, which forgets nothing: the call may have ended because that master died, the
lease lives on, and so does the work; it is renewed by heartbeats, its result goes by SubmitResult, and what is to
stop is said by CancelTask or a revocation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
import grpc.aio
import structlog

from tenure.common import ids, limits
from tenure.common.errors import (
    ERROR_METADATA_KEY,
    InvalidArchitecture,
    Overloaded,
    TenureError,
    UnknownWorker,
    WrongState,
)
from tenure.proto import worker_pb2, worker_pb2_grpc
from tenure.worker.holdings import Holdings
from tenure.worker.leases import LeaseKey, key_of
from tenure.worker.push_client import error_text
from tenure.worker.runs import Kind, Run, StopReason
from tenure.worker.slots.slot import SlotState

log = structlog.get_logger()

# Outcomes that a repeated call is answered with.
_REMEMBERED_MAX = 1000
_USELESS = (SlotState.BROKEN, SlotState.CORDONED)
_REMEMBERED_BYTES_MAX = 32 * 1024 * 1024


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """The servicer.

    Args:
        worker_id: Ours; requests that name another are refused.
        instance_id: Of this process.
        holdings: What is running.
        takes_pushes: Whether Evaluate is served.
        metrics: Looks the machine's figures up; blocks a little.
        shut_down: Called with (wait for the current task, reason).
        delivery_seconds: How long Evaluate waits for SubmitResult to have been acknowledged before it answers.
    """

    def __init__(
        self,
        *,
        worker_id: str,
        instance_id: str,
        holdings: Holdings,
        takes_pushes: bool,
        metrics: Callable[[], worker_pb2.WorkerMetrics],
        shut_down: Callable[[bool, str], None],
        delivery_seconds: float,
    ) -> None:
        self._worker_id = worker_id
        self._instance_id = instance_id
        self._holdings = holdings
        self._takes_pushes = takes_pushes
        self._metrics = metrics
        self._shut_down = shut_down
        self._delivery_seconds = delivery_seconds
        self._started = time.monotonic()
        self._calls: dict[LeaseKey, int] = {}
        # In the order they came.
        self._remembered: dict[LeaseKey, worker_pb2.Outcome] = {}
        self._remembered_bytes = 0

    async def Evaluate(self, request: worker_pb2.EvaluateRequest, context: Any) -> worker_pb2.EvaluateResponse:
        """Carry one task out; the answer comes when it has ended. The same task sent twice is one evaluation."""
        try:
            self._check(request)
        except TenureError as error:
            await _abort(context, error)
        key = key_of(request)
        if (remembered := self._remembered.get(key)) is not None:
            return _response(remembered)
        run = self._holdings.accept(request, may_wait=False)
        if run is None:
            await _abort(
                context,
                Overloaded(
                    "no slot is free",
                    field="task_id",
                    given=request.task_id,
                    expected=f"this worker has {len(self._holdings.slots)} slots; push the task elsewhere or later",
                ),
            )
        self._calls[key] = self._calls.get(key, 0) + 1
        try:
            outcome = await asyncio.shield(run.ended)
        except asyncio.CancelledError:
            if self._calls[key] == 1:
                self._last_call_ended(run)
            raise
        finally:
            self._calls[key] -= 1
            if not self._calls[key]:
                del self._calls[key]
        if outcome is None:
            await _abort(
                context,
                WrongState("the run was stopped: its lease is gone", field="task_id", given=request.task_id),
            )
        self._remember(outcome)
        # The result comes by SubmitResult before Evaluate returns, as MorphML's workers do it, if a master listens.
        await self._holdings.spool.acknowledged(key, self._delivery_seconds)
        return _response(outcome)

    async def GetStatus(self, request: worker_pb2.StatusRequest, context: Any) -> worker_pb2.StatusResponse:
        """What the worker is doing."""
        await self._check_worker_id(request.worker_id, context)
        runs = list(self._holdings.runs.values())
        broken = bool(self._holdings.slots) and all(slot.state in _USELESS for slot in self._holdings.slots)
        return worker_pb2.StatusResponse(
            status="error" if broken else "busy" if runs else "idle",
            current_task_id=runs[0].key.task_id if runs else "",
            metrics=await asyncio.to_thread(self._metrics),
            uptime_seconds=int(time.monotonic() - self._started),
            instance_id=self._instance_id,
            task_ids=[run.key.task_id for run in runs],
            draining=not self._holdings.open,
        )

    async def Shutdown(self, request: worker_pb2.ShutdownRequest, context: Any) -> worker_pb2.ShutdownResponse:
        """End the worker: after its current tasks (``graceful``), or once they are handed back."""
        await self._check_worker_id(request.worker_id, context)
        self._shut_down(request.graceful, f"Shutdown was called by {context.peer()}")
        return worker_pb2.ShutdownResponse(acknowledged=True)

    async def CancelTask(self, request: worker_pb2.CancelRequest, context: Any) -> worker_pb2.CancelResponse:
        """Stop the task's run; the answer comes when the work has really stopped."""
        run = self._holdings.find(request.task_id, request.lease_token)
        if run is None:
            return worker_pb2.CancelResponse(success=False, message="that task is not running here")
        log.info("task.cancel_requested", **run.log_fields, reason=request.reason)
        self._holdings.stop(run, StopReason.CANCELLED)
        outcome = await asyncio.shield(run.ended)
        if outcome is not None and outcome.kind == Kind.OUTCOME_SUCCESS:
            return worker_pb2.CancelResponse(success=False, message="it succeeded before it could be stopped")
        return worker_pb2.CancelResponse(success=True, message="stopped")

    def _check(self, request: worker_pb2.EvaluateRequest) -> None:
        if not self._takes_pushes:
            raise WrongState(
                "this worker pulls its tasks",
                field="dispatch",
                given="pull",
                expected="start it with --dispatch push to have tasks pushed to it",
            )
        ids.check_id(request.task_id, "task_id")
        size = len(request.architecture.encode())
        if not 0 < size <= limits.ARCHITECTURE_BYTES_MAX:
            raise InvalidArchitecture(
                f"is {size} bytes long",
                field="architecture",
                expected=f"1 to {limits.ARCHITECTURE_BYTES_MAX} bytes of JSON",
            )

    def _last_call_ended(self, run: Run) -> None:
        if run.key.token:
            log.info("task.call_ended", **run.log_fields, goes_on=True)
        else:
            self._holdings.stop(run, StopReason.CALL_ENDED)

    def _remember(self, outcome: worker_pb2.Outcome) -> None:
        """For repeated calls. Without a token a failed task that is pushed again is a new attempt."""
        key = key_of(outcome)
        if key.token or outcome.kind == Kind.OUTCOME_SUCCESS:
            self._forget(key)
            self._remembered[key] = outcome
            self._remembered_bytes += outcome.ByteSize()
            while len(self._remembered) > _REMEMBERED_MAX or self._remembered_bytes > _REMEMBERED_BYTES_MAX:
                self._forget(next(iter(self._remembered)))

    def _forget(self, key: LeaseKey) -> None:
        if (outcome := self._remembered.pop(key, None)) is not None:
            self._remembered_bytes -= outcome.ByteSize()

    async def _check_worker_id(self, worker_id: str, context: Any) -> None:
        if worker_id and worker_id != self._worker_id:
            await _abort(
                context,
                UnknownWorker(
                    "is another worker", field="worker_id", given=worker_id, expected=f"this one is {self._worker_id}"
                ),
            )


def _response(outcome: worker_pb2.Outcome) -> worker_pb2.EvaluateResponse:
    return worker_pb2.EvaluateResponse(
        task_id=outcome.task_id,
        success=outcome.kind == Kind.OUTCOME_SUCCESS,
        metrics=outcome.metrics,
        error=error_text(outcome),
        duration=outcome.duration_seconds,
        outcome=outcome,
    )


async def _abort(context: Any, error: TenureError) -> NoReturn:
    await context.abort(grpc.StatusCode[error.grpc_status], str(error), ((ERROR_METADATA_KEY, error.to_json()),))
    raise error
