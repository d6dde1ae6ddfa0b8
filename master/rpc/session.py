"""One worker's session stream: see docs/protocol-session.md for what the messages mean."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

import structlog
import tenacity

from tenure.common import ids, limits
from tenure.common.errors import InvalidInput, StoreUnavailable, TenureError
from tenure.master.core.outcomes import judge_outcome
from tenure.master.loops.matchmaker import Consumer, Matchmaker
from tenure.master.metrics import MasterMetrics
from tenure.master.rpc.messages import checkpoint_record, evaluate_request
from tenure.master.rpc.outcomes import take_outcomes, verdict_message
from tenure.master.rpc.sessions import superseded
from tenure.master.rpc.workers import Registration, heartbeat_fields, read_renewal
from tenure.master.settings import MasterSettings
from tenure.master.store import Store
from tenure.master.store.records import Grant, Release, RetryPolicy, TaskEvent
from tenure.proto import worker_pb2

log = structlog.get_logger()

GIVE_BACK_SECONDS = 30.0

_REVOCATION_REASONS = {
    "CANCEL": "cancelled",
    "LOST": "lost",
    "FINISHED": "finished_elsewhere",
    "UNKNOWN": "unknown",
}

_Reply = TypeVar("_Reply")


async def _patiently(call: Callable[[], Awaitable[_Reply]], seconds: float = math.inf) -> _Reply:
    """While the store is away a stream waits with what its worker said rather than refuse it.

    Raises:
        StoreUnavailable: After ``seconds``.
    """
    try:
        return await call()
    except StoreUnavailable:
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(StoreUnavailable),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=2.0),
            stop=tenacity.stop_after_delay(seconds),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                return await call()
        raise


class SessionEnd(Exception):
    """The stream is over: ``error`` is how, None for a goodbye."""

    def __init__(self, error: TenureError | None) -> None:
        super().__init__(str(error) if error else "goodbye")
        self.error = error


class Session:
    """One open stream.

    Attributes:
        worker_id, instance_id: Who is at the other end.
        held: Leases that were seen on this stream: task id -> (token, epoch).

    Args:
        registration: Its checked hello.
        mode: active, cordoned or draining.
        holders: Task id -> the session that holds it, of all sessions of this master; kept up here.
    """

    def __init__(
        self,
        registration: Registration,
        mode: str,
        store: Store,
        settings: MasterSettings,
        metrics: MasterMetrics,
        matchmaker: Matchmaker,
        retry: RetryPolicy,
        holders: MutableMapping[str, Session],
    ) -> None:
        self.worker_id = registration.worker_id
        self.instance_id = registration.instance_id
        self.held: dict[str, tuple[str, int]] = {}
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._matchmaker = matchmaker
        self._retry = retry
        self._holders = holders
        self._mode = mode
        self._wanted = 0
        self._outgoing: asyncio.Queue[worker_pb2.SessionDown | SessionEnd] = asyncio.Queue()
        self._consumer = Consumer(registration.worker_id, registration.capabilities, self._deliver)
        # The last unfinished work on each task: what a worker says about one task is carried out in its order.
        self._in_order: dict[str, asyncio.Task[None]] = {}
        self._renewed_at: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # ---- downwards ------------------------------------------------------------------------------------------------

    async def outgoing(self) -> AsyncIterator[worker_pb2.SessionDown]:
        """Messages for the worker until the session ends; raises how it ended."""
        while True:
            message = await self._outgoing.get()
            if isinstance(message, SessionEnd):
                if message.error is not None:
                    raise message.error
                return
            yield message

    def end(self, error: TenureError | None) -> None:
        """End the stream from this side."""
        self._outgoing.put_nowait(SessionEnd(error))

    def revoke(self, task_id: str, reason: str) -> None:
        """Tell the worker to stop a run. Unless it is ``cancelled`` (it will release), the lease is forgotten here."""
        held = self.held.get(task_id)
        if held is None:
            return
        if reason != "cancelled":
            self._forget(task_id)
        revocation = worker_pb2.Revocation(task_id=task_id, lease_token=held[0], reason=reason)
        self._send(revocations=worker_pb2.Revocations(revocations=[revocation]))

    def note_event(self, event: TaskEvent) -> None:
        """Something happened to a task that this stream's worker holds, perhaps at another master."""
        held = self.held.get(event.task_id)
        if held is None:
            return
        if event.transition == "cancel":
            self.revoke(event.task_id, "cancelled")
        elif event.transition == "complete" and event.epoch != held[1]:
            self.revoke(event.task_id, "finished_elsewhere")
        elif event.transition in ("claim", "readopt") and event.epoch > held[1]:
            self.revoke(event.task_id, "lost")

    def set_mode(self, mode: str) -> None:
        """active, cordoned or draining."""
        if mode == self._mode:
            return
        self._mode = mode
        self._say_mode()
        self._want(self._wanted)

    def discard(self, urls: list[str]) -> None:
        """Have the worker delete checkpoints that nobody needs."""
        self._send(discard=worker_pb2.Discard(urls=urls))

    def _say_mode(self) -> None:
        self._send(
            drain=worker_pb2.Drain(
                active=self._mode != "active", cordon=self._mode == "cordoned", reason="an operator asked for it"
            )
        )

    def _send(self, **message: Any) -> None:
        self._outgoing.put_nowait(worker_pb2.SessionDown(**message))

    def _deliver(self, grants: list[Grant]) -> None:
        if self._closed:
            self._spawn(self._give_back(grants))
            return
        for grant in grants:
            self._hold(grant.task_id, grant.token, grant.epoch)
            self._renewed_at[grant.task_id] = time.monotonic()
            log.debug("task.claim", task=grant.task_id, worker=self.worker_id, epoch=grant.epoch, search=grant.search)
        self._wanted = max(0, self._wanted - len(grants))
        requests = [evaluate_request(grant, self._settings.lease_ttl_ms) for grant in grants]
        self._send(tasks=worker_pb2.Tasks(tasks=requests))

    # ---- upwards --------------------------------------------------------------------------------------------------

    async def run(self, hello: worker_pb2.Hello, messages: AsyncIterator[worker_pb2.SessionUp], welcome: Any) -> None:
        """Greet, then carry out what the worker says until it leaves. The caller drains :meth:`outgoing` meanwhile."""
        self._send(welcome=welcome)
        await self._renew(hello.held)
        if self._mode != "active":
            self._say_mode()
        try:
            async for message in messages:
                await self._handle(message)
            raise SessionEnd(None)
        except SessionEnd as ended:
            self._outgoing.put_nowait(ended)
        except TenureError as error:
            self.end(error)

    async def close(self, *, cut: bool) -> None:
        """The stream is gone. With ``cut`` its leases are left a short grace, for the worker to come back in."""
        self._closed = True
        self._matchmaker.leave(self._consumer)
        for task_id in self.held:
            self._drop_holder(task_id)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not cut or not self.held:
            return
        leases = [(task_id, token) for task_id, (token, _) in self.held.items()]
        try:
            shorten = self._store.tasks.cut
            await _patiently(lambda: shorten(leases, self._settings.grace_ms), self._settings.lease_ttl_seconds)
        except TenureError as error:
            # The leases then live their whole TTL: later, but nothing is lost.
            log.warning("session.cut_failed", worker=self.worker_id, error=str(error))

    async def _handle(self, message: worker_pb2.SessionUp) -> None:
        kind = message.WhichOneof("message")
        if kind == "outcomes":
            self._take_outcomes(message.outcomes)
        elif kind == "want":
            self._want(_checked_slots(message.want.slots))
        elif kind == "heartbeat":
            self._spawn(self._heartbeat(message.heartbeat))
        elif kind == "renewals":
            self._spawn(self._renew(message.renewals.renewals))
        elif kind == "checkpoint":
            self._ordered([message.checkpoint.task_id], self._register_checkpoint(message.checkpoint))
        elif kind == "goodbye":
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._store.workers.leave(self.worker_id, self.instance_id)
            log.info("session.goodbye", worker=self.worker_id, reason=message.goodbye.reason)
            raise SessionEnd(None)
        else:
            raise InvalidInput(
                "unexpected message", field="session", given=str(kind), expected="hello comes first, and once"
            )

    def _want(self, slots: int) -> None:
        self._wanted = slots
        self._matchmaker.want(self._consumer, slots if self._mode == "active" else 0)

    def _take_outcomes(self, message: worker_pb2.Outcomes) -> None:
        if len(message.outcomes) > limits.BATCH_TASKS_MAX:
            raise InvalidInput(
                f"{len(message.outcomes)} in one message",
                field="outcomes",
                expected=f"at most {limits.BATCH_TASKS_MAX}",
            )
        task_ids = [outcome.task_id for outcome in message.outcomes]
        self._ordered(task_ids, self._carry_out(list(message.outcomes)))
        if message.HasField("want_slots"):
            self._want(_checked_slots(message.want_slots))

    async def _carry_out(self, outcomes: list[worker_pb2.Outcome]) -> None:
        judged = [judge_outcome(outcome, self.worker_id, self._retry) for outcome in outcomes]
        taken = await _patiently(lambda: take_outcomes(self._store, self._metrics, judged))
        for outcome in outcomes:
            self._forget(outcome.task_id, outcome.lease_token)
        verdicts = [
            worker_pb2.OutcomeVerdict(
                task_id=outcome.task_id,
                lease_token=outcome.lease_token,
                verdict=verdict_message(each.verdict),
                delete_urls=each.delete_urls,
                message=each.message,
            )
            for outcome, each in zip(outcomes, taken, strict=True)
        ]
        self._send(outcome_verdicts=worker_pb2.OutcomeVerdicts(verdicts=verdicts))

    async def _register_checkpoint(self, message: worker_pb2.RegisterCheckpoint) -> None:
        record = checkpoint_record(message.checkpoint)
        ids.check_text(record.url, "checkpoint.url", limits.URL_BYTES_MAX)
        register = self._store.tasks.register_checkpoint
        verdict, urls = await _patiently(lambda: register(message.task_id, message.lease_token, self.worker_id, record))
        self._metrics.checkpoints.labels(verdict.value).inc()
        self._send(
            checkpoint_verdict=worker_pb2.CheckpointVerdict(
                task_id=message.task_id,
                lease_token=message.lease_token,
                url=record.url,
                verdict=verdict_message(verdict),
                delete_urls=urls,
            )
        )

    async def _heartbeat(self, message: worker_pb2.HeartbeatRequest) -> None:
        fields = heartbeat_fields(message)
        try:
            verdict, mode = await self._store.workers.heartbeat(self.worker_id, self.instance_id, fields)
        except StoreUnavailable:
            return  # the lease clock stands still meanwhile; the next heartbeat renews
        self._metrics.heartbeats.labels("session", verdict).inc()
        if verdict == "SUPERSEDED":
            self.end(superseded(self.worker_id))
            return
        if verdict == "OK":
            self.set_mode(mode)
        await self._renew(message.renewals)

    async def _renew(self, renewals: Any) -> None:
        """Renew what the worker says it holds, and tell it what it holds no more."""
        rows = [read_renewal(each, self.worker_id) for each in renewals]
        try:
            verdicts = await self._store.tasks.renew_all(rows)
        except StoreUnavailable:
            return
        revocations, renewed, now = [], 0, time.monotonic()
        for row, verdict in zip(rows, verdicts, strict=True):
            self._metrics.renewals.labels(verdict.value).inc()
            if verdict in ("OK", "READOPTED", "CANCEL"):
                renewed += 1
                self._hold(row.task_id, row.token, row.epoch)
                self._observe_renewal(row.task_id, now)
            else:
                self._forget(row.task_id, row.token)
            if verdict in _REVOCATION_REASONS:
                revocations.append(
                    worker_pb2.Revocation(
                        task_id=row.task_id, lease_token=row.token, reason=_REVOCATION_REASONS[verdict]
                    )
                )
        if revocations:
            self._send(revocations=worker_pb2.Revocations(revocations=revocations))
        self._send(renewals_done=worker_pb2.RenewalsDone(renewed=renewed))

    def _observe_renewal(self, task_id: str, now: float) -> None:
        before = self._renewed_at.get(task_id)
        if before is not None:
            self._metrics.renewal_lag_seconds.observe(max(0.0, now - before - self._settings.heartbeat_seconds))
        self._renewed_at[task_id] = now

    def _hold(self, task_id: str, token: str, epoch: int) -> None:
        self.held[task_id] = (token, epoch)
        self._holders[task_id] = self

    def _forget(self, task_id: str, token: str | None = None) -> None:
        held = self.held.get(task_id)
        if held is not None and (token is None or held[0] == token):
            del self.held[task_id]
            self._renewed_at.pop(task_id, None)
            self._drop_holder(task_id)

    def _drop_holder(self, task_id: str) -> None:
        if self._holders.get(task_id) is self:
            del self._holders[task_id]

    async def _give_back(self, grants: list[Grant]) -> None:
        for grant in grants:
            release = Release(grant.task_id, grant.token, self.worker_id)
            await _patiently(functools.partial(self._store.tasks.release, release), GIVE_BACK_SECONDS)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except TenureError as error:
                self.end(error)

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _ordered(self, task_ids: list[str], work: Coroutine[Any, Any, None]) -> None:
        """Start work that waits for what was said before about the same tasks."""
        before = [self._in_order[task_id] for task_id in task_ids if task_id in self._in_order]

        async def in_turn() -> None:
            if before:
                await asyncio.wait(before)
            await work

        task = self._spawn(in_turn())
        for task_id in task_ids:
            self._in_order[task_id] = task
        task.add_done_callback(lambda done: self._end_order(task_ids, done))

    def _end_order(self, task_ids: list[str], done: asyncio.Task[None]) -> None:
        for task_id in task_ids:
            if self._in_order.get(task_id) is done:
                del self._in_order[task_id]


def _checked_slots(slots: int) -> int:
    if not 0 <= slots <= limits.SLOTS_MAX:
        raise InvalidInput("out of range", field="slots", given=slots, expected=f"0 to {limits.SLOTS_MAX}")
    return slots
