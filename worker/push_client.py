"""The pushed-to worker's link: MorphML's unary calls to a master, MorphML's own or Tenure's.

It registers, heartbeats, and delivers outcomes by SubmitResult. A master that doesn't acknowledge a heartbeat has
forgotten this worker: it registers again. What came with a lease token is renewed in the heartbeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message

from tenure.common.addresses import Address, expand
from tenure.proto import worker_pb2, worker_pb2_grpc
from tenure.worker.channels import describe, open_channel
from tenure.worker.holdings import Holdings
from tenure.worker.leases import LeaseKey, fields_of, key_of
from tenure.worker.link import Contact, Refused, Superseded, Unreachable, connect_for_ever
from tenure.worker.runs import Kind
from tenure.worker.settings import WorkerSettings

log = structlog.get_logger()

# MorphML's masters say nothing of their interval; theirs is this, and they give a worker up after so long.
_HEARTBEAT_SECONDS = 10.0
_TTL_SECONDS = 30.0
# Of the interval: the longest pause between two attempts. A lease lives for two intervals at least, and must not run
# out meanwhile.
_PAUSE_SHARE = 0.6
# How long a call that renews leases, or that must come before, is waited for: a share of the time that they have left,
# so that there is some for another master; of their whole life at least, once there is none left to be saved.
_LEFT_SHARE = 1 / 2
_TTL_SHARE_MIN = 1 / 6
_CALL_SECONDS_MIN = 0.5
# A master that keeps refusing an outcome is believed after so many times.
_REFUSALS_MAX = 5
_REFUSALS = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
_UNREACHABLE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)

Verdict = worker_pb2.Verdict
Response = TypeVar("Response")


class _Refusal(NamedTuple):
    times: int
    again_at: float


_NEVER = _Refusal(0, 0.0)


class _Declined(Exception):
    """The master answered this call with an error of its own."""


class PushLink:
    """See :class:`tenure.worker.link.Link`.

    Args:
        settings: The worker's.
        holdings: What is told, and told about.
        registration: Sent at each registration.
        metrics: Looks the machine's figures up; blocks a little.
        on_drain: Called with the heartbeat's wish.
        on_shutdown: Called when a master says that this worker should not continue.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        holdings: Holdings,
        registration: worker_pb2.RegisterRequest,
        metrics: Callable[[], worker_pb2.WorkerMetrics],
        on_drain: Callable[[worker_pb2.Drain], None],
        on_shutdown: Callable[[str], None],
    ) -> None:
        self.contact = Contact()
        self._settings = settings
        self._holdings = holdings
        self._registration = registration
        self._metrics = metrics
        self._on_drain = on_drain
        self._on_shutdown = on_shutdown
        # Looked up anew for each round over all of them.
        self._addresses: list[Address] = []
        self._tries_left = 0
        self._registered_once = False
        self._speaks_tenure = False
        self._heartbeat_seconds = _HEARTBEAT_SECONDS
        self._ttl_seconds = _TTL_SECONDS
        # Since when the leases live, at the least.
        self._renewed_at = time.monotonic()
        self._undelivered = asyncio.Event()
        self._refusals: dict[LeaseKey, _Refusal] = {}
        self._drained = False

    def wake(self) -> None:
        """See Link."""
        if len(self._holdings.spool):
            self._undelivered.set()

    async def leave(self, reason: str) -> None:
        """See Link. The protocol has no goodbye: the master misses the heartbeats."""

    async def run(self) -> None:
        """See Link."""
        await connect_for_ever(self._connect, lambda: _PAUSE_SHARE * self._heartbeat_seconds, self._settings.master)

    async def _connect(self) -> None:
        """Talk to one master until it doesn't answer."""
        if self._tries_left == 0:
            self._addresses = await asyncio.to_thread(expand, self._settings.masters)
            self._tries_left = len(self._addresses)
        self._tries_left -= 1
        address = self._addresses[0]
        try:
            async with open_channel(
                address, self._settings.compression, keepalive=False, observe=self._holdings.call_ended
            ) as channel:
                self._stub = worker_pb2_grpc.MasterServiceStub(channel)
                await self._register(address)
                await self._serve()
        except (Unreachable, _Declined) as error:
            self._addresses = [*self._addresses[1:], self._addresses[0]]
            if self.contact.up:
                runs = len(self._holdings.runs)
                log.warning("session.lost", master=str(address), error=str(error), runs=runs)
            if not self.contact.was_good():
                raise Unreachable(str(error)) from error
        finally:
            self.contact.lost()

    async def _serve(self) -> None:
        delivery = asyncio.create_task(self._deliver_all())
        heartbeats = asyncio.create_task(self._heartbeat_all())
        try:
            await asyncio.wait((delivery, heartbeats), return_when=asyncio.FIRST_COMPLETED)
            for task in (delivery, heartbeats):
                if task.done():
                    task.result()
        finally:
            for task in (delivery, heartbeats):
                task.cancel()
            await asyncio.gather(delivery, heartbeats, return_exceptions=True)

    # -- registration and heartbeats --------------------------------------------------------------------------------

    async def _register(self, address: Address | str) -> None:
        try:
            response = await self._call(self._stub.RegisterWorker, self._registration, self._patience_seconds())
        except _Declined as error:
            if self._registered_once:
                raise
            raise Refused(f"the master at {address} refuses this worker: {error}") from error
        if not response.success:
            if not self._registered_once:
                raise Refused(f"the master at {address} refuses this worker: {response.message}")
            raise Unreachable(f"registration refused: {response.message}")
        self._registered_once = True
        self._speaks_tenure = bool(response.version)
        if response.heartbeat_interval_ms:
            self._heartbeat_seconds = response.heartbeat_interval_ms / 1000
        self._ttl_seconds = response.lease_ttl_ms / 1000 or _TTL_SECONDS
        self.contact.connected()
        self.wake()
        log.info("session.up", master=str(address), master_id=response.master_id)

    async def _heartbeat_all(self) -> None:
        while True:
            await self._heartbeat()
            await asyncio.sleep(self._heartbeat_seconds * random.uniform(0.9, 1.0))

    async def _heartbeat(self) -> None:
        runs = list(self._holdings.runs.values())
        request = worker_pb2.HeartbeatRequest(
            worker_id=self._registration.worker_id,
            instance_id=self._registration.instance_id,
            status="busy" if runs else "idle",
            current_task_id=runs[0].key.task_id if runs else "",
            metrics=await asyncio.to_thread(self._metrics),
            renewals=self._holdings.renewals(),
        )
        asked_at = time.monotonic()
        response = await self._call(self._stub.Heartbeat, request, self._patience_seconds())
        if not response.acknowledged:
            if self._speaks_tenure and not response.should_continue:
                raise Superseded("a newer process has registered this worker id")
            # A master that started anew. What else a MorphML master says in this answer it doesn't mean.
            log.warning("worker.forgotten", master=str(self._addresses[0]))
            await self._register(self._addresses[0])
            return
        self._renewed_at = asked_at
        for revocation in response.revocations:
            self._holdings.revoke(revocation)
        if response.drain != self._drained or response.uncordoned:
            self._drained = response.drain
            self._on_drain(worker_pb2.Drain(active=response.drain, reason="the master asks for it"))
        if not response.should_continue:
            self._on_shutdown("the master says that this worker should not continue")

    # -- delivery -------------------------------------------------------------------------------------------------

    async def _deliver_all(self) -> None:
        """Deliver what is in the spool, oldest first, for ever."""
        while True:
            self._undelivered.clear()
            now = time.monotonic()
            self._refusals = {key: refusal for key, refusal in self._refusals.items() if key in self._holdings.spool}
            for outcome in self._holdings.spool.pending():
                if now >= self._refusals.get(key_of(outcome), _NEVER).again_at:
                    await self._deliver(outcome)
            again_at = min((refusal.again_at for refusal in self._refusals.values()), default=math.inf)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if again_at == math.inf else again_at - time.monotonic()):
                    await self._undelivered.wait()

    async def _deliver(self, outcome: worker_pb2.Outcome) -> None:
        key = key_of(outcome)
        try:
            # Heartbeats go on beside it, so no lease waits for it.
            request = result_request(outcome, self._registration.worker_id)
            response = await self._call(self._stub.SubmitResult, request, self._settings.rpc_timeout_seconds)
        except _Declined as error:
            self._refused(outcome, str(error))
            return
        if response.verdict != Verdict.VERDICT_UNSPECIFIED:
            self._settled(key, response.verdict, response.message)
        elif response.acknowledged:
            self._settled(key, Verdict.VERDICT_OK, "")
        else:
            self._refused(outcome, response.message)

    def _refused(self, outcome: worker_pb2.Outcome, message: str) -> None:
        """Maybe the master doesn't know this worker yet, or its store is away: asked again a few times."""
        key = key_of(outcome)
        times = self._refusals.get(key, _NEVER).times + 1
        log.warning("outcome.refused", **fields_of(outcome), times=times, message=message)
        if times >= _REFUSALS_MAX:
            self._settled(key, Verdict.VERDICT_INVALID, message)
        else:
            self._refusals[key] = _Refusal(times, time.monotonic() + self._heartbeat_seconds)

    def _settled(self, key: LeaseKey, verdict: worker_pb2.Verdict, message: str) -> None:
        self._refusals.pop(key, None)
        self._holdings.take_outcome_verdict(key, verdict, message=message)

    def _patience_seconds(self) -> float:
        """For a call that leases wait for. A master may hang: it takes the call, and says nothing."""
        left_seconds = self._renewed_at + self._ttl_seconds - time.monotonic()
        least_seconds = max(_CALL_SECONDS_MIN, _TTL_SHARE_MIN * self._ttl_seconds)
        return min(self._settings.rpc_timeout_seconds, max(_LEFT_SHARE * left_seconds, least_seconds))

    async def _call(
        self, method: Callable[..., Awaitable[Response]], request: Message, timeout_seconds: float
    ) -> Response:
        """One call within its deadline.

        Raises:
            Refused: The master will never take calls like this from us.
            Superseded: A newer process has this worker's id.
            _Declined: The master answered with an error; the same request will meet the same one.
            Unreachable: Nobody answered.
        """
        try:
            response = await method(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            if code is grpc.StatusCode.ABORTED:
                raise Superseded(describe(error)) from error
            if code in _REFUSALS and not self._registered_once:
                raise Refused(f"the master refuses this worker: {describe(error)}") from error
            raise (Unreachable if code in _UNREACHABLE else _Declined)(describe(error)) from error
        self.contact.heard()
        return response


def result_request(outcome: worker_pb2.Outcome, worker_id: str) -> worker_pb2.ResultRequest:
    """The outcome in MorphML's fields, and whole beside them."""
    return worker_pb2.ResultRequest(
        task_id=outcome.task_id,
        worker_id=worker_id,
        success=outcome.kind == Kind.OUTCOME_SUCCESS,
        metrics=outcome.metrics,
        error=error_text(outcome),
        duration=outcome.duration_seconds,
        architecture=outcome.architecture,
        outcome=outcome,
    )


def error_text(outcome: worker_pb2.Outcome) -> str:
    """What a peer without Outcome is told went wrong; empty for a success."""
    if outcome.kind == Kind.OUTCOME_SUCCESS:
        return ""
    return f"{outcome.error_class}: {outcome.error_message}" if outcome.error_class else "failed"
