"""One worker's session stream: see docs/protocol-session.md for what the messages mean."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from typing import Any

import structlog

from tenure.common import limits
from tenure.common.errors import InvalidInput, StoreUnavailable, TenureError, Unavailable, UnknownWorker
from tenure.master.loops.matchmaker import Consumer, Matchmaker
from tenure.master.loops.rollback import RollbackAlarm
from tenure.master.metrics import MasterMetrics
from tenure.master.rpc.census import LeaseCensus
from tenure.master.rpc.leases import Holders, StreamLeases
from tenure.master.rpc.messages import evaluate_request
from tenure.master.rpc.ordering import InOrder
from tenure.master.rpc.outcomes import give_back
from tenure.master.rpc.sessions import superseded
from tenure.master.rpc.stream_ends import MessagesEnded, PeerGone
from tenure.master.rpc.tails import Tails
from tenure.master.rpc.workers import Registration, heartbeat_fields
from tenure.master.settings import MasterSettings
from tenure.master.store import Store
from tenure.master.store.records import Grant, RetryPolicy
from tenure.proto import worker_pb2

log = structlog.get_logger()


class SessionEnd(Exception):
    """The stream is over: ``error`` is how, None for a goodbye."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__(str(error) if error else "goodbye")
        self.error = error


class Session:
    """One open stream.

    Attributes:
        worker_id, instance_id: Who is at the other end.
        session_id: Tells this stream from others of the same process, in the registry.
        leases: Those that were seen on this stream.
        can_tail: Whether it can be asked for what its runs print.

    Args:
        registration: Its checked hello.
        mode: active, cordoned or draining.
        holders: Kept up here, for all sessions of this master.
        census: Says what the store thinks the worker holds.
        rollback: Hears of leases that are newer than the store.
        tails: Hears what its runs print.
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
        holders: Holders,
        census: LeaseCensus,
        rollback: RollbackAlarm,
        tails: Tails,
    ) -> None:
        self.worker_id = registration.worker_id
        self.instance_id = registration.instance_id
        self.session_id = registration.fields["session"]
        self.can_tail = registration.fields["tails"] == "1"
        self.leases = StreamLeases(
            self.worker_id, self.instance_id, store, settings, metrics, retry, holders, census, self._send
        )
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._matchmaker = matchmaker
        self._rollback = rollback
        self._tails = tails
        self._mode = mode
        self._wanted = 0
        self._outgoing: asyncio.Queue[worker_pb2.SessionDown | SessionEnd] = asyncio.Queue()
        self._consumer = Consumer(
            registration.worker_id, registration.capabilities, self._deliver, instance_id=registration.instance_id
        )
        self._in_order = InOrder(self._spawn)
        self._tasks: set[asyncio.Task[None]] = set()
        self._returning: set[asyncio.Task[None]] = set()
        self._settling: asyncio.Task[None] | None = None
        self._closed = False
        self._replaced = False
        self._asked_again = False

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

    def end(self, error: BaseException | None) -> None:
        """End the stream from this side: :meth:`outgoing` raises ``error``, or returns. It is given nothing more."""
        self._closed = True
        self._matchmaker.leave(self._consumer)
        self._outgoing.put_nowait(SessionEnd(error))

    def end_if_failed(self, work: asyncio.Task[None]) -> None:
        """End the stream if something that was done for it has ended by an error that nobody foresaw: its worker
        would be given tasks, and wait for answers, on a stream that nobody reads."""
        if not work.cancelled() and (error := work.exception()) is not None:
            self.end(error)

    def ask_again(self, error: TenureError) -> None:
        """End the stream because its worker is to say hello again. It isn't gone, so its leases are not cut."""
        self._asked_again = True
        self.end(error)

    def replace(self, held: Iterable[worker_pb2.Renewal]) -> None:
        """The same process has a new stream at this master, before this one was seen to break. What it names there
        lives on there; what else was seen here was lost on its way to the worker."""
        for renewal in held:
            self.leases.forget(renewal.task_id, renewal.lease_token)
        self._replaced = True
        self.end(PeerGone("its worker has another stream"))

    async def check_registration(self) -> None:
        """Somebody has registered this worker id: end this stream if that wasn't the one at its other end."""
        fields = await self._registered()
        if self._closed or not fields or fields.get("session") == self.session_id:
            return
        moved_on = fields.get("instance") == self.instance_id
        self.end(PeerGone("its worker has another stream") if moved_on else superseded(self.worker_id))

    def set_mode(self, mode: str, *, asked: bool = False) -> None:
        """active, cordoned or draining. ``asked``: an operator said so just now.

        One who uncordons a worker may mean slots that it has cordoned itself, so it hears of that in any mode.
        """
        if mode == self._mode and not (asked and mode == "active"):
            return
        self._mode = mode
        self._say_mode()
        self._want(self._wanted)

    def discard(self, urls: list[str]) -> None:
        """Have the worker delete checkpoints that nobody needs."""
        self._send(discard=worker_pb2.Discard(urls=urls))

    def tail(self, request: worker_pb2.TailRequest) -> None:
        """Have the worker send what a run prints; only if :attr:`can_tail`."""
        self._send(tail=request)

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
            self._give_back(grants)
            return
        self.leases.note_grants(grants)
        for grant in grants:
            log.debug("task.claim", **grant.log_fields, worker=self.worker_id)
        self._wanted = max(0, self._wanted - len(grants))
        requests = [evaluate_request(grant, self._settings.lease_ttl_ms) for grant in grants]
        self._send(tasks=worker_pb2.Tasks(tasks=requests))

    def _give_back(self, grants: list[Grant]) -> None:
        """Apart from what closing ends: a claim that was under way is answered just then."""
        task = asyncio.create_task(self._released(grants))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _released(self, grants: list[Grant]) -> None:
        try:
            await give_back(self._store, self.worker_id, grants)
        except TenureError as error:
            # The leases run out by themselves.
            log.warning("session.give_back_failed", worker=self.worker_id, error=str(error))

    # ---- upwards --------------------------------------------------------------------------------------------------

    async def run(self, hello: worker_pb2.Hello, messages: AsyncIterator[worker_pb2.SessionUp], welcome: Any) -> None:
        """Greet, then carry out what the worker says until it leaves. The caller drains :meth:`outgoing` meanwhile."""
        self._send(welcome=welcome)
        try:
            await self._store.patience.repeat(lambda: self._greet(hello), self._settings.lease_ttl_seconds)
            # Apart from the tasks that a goodbye waits for.
            self._settling = asyncio.create_task(self._settle_late())
            if self._mode != "active":
                self._say_mode()
            async for message in messages:
                await self._handle(message)
            raise SessionEnd(MessagesEnded())
        except SessionEnd as ended:
            self.end(ended.error)
        except TenureError as error:
            self.end(error)

    async def _greet(self, hello: worker_pb2.Hello) -> None:
        await self.leases.settle(hello.held)
        if await self.leases.renew(hello.held):
            # This master may be too young to have seen the rollback itself.
            self._rollback.suspected(f"worker {self.worker_id} has leases that are newer than the store")

    async def _settle_late(self) -> None:
        try:
            await self.leases.settle_late()
        except TenureError as error:
            log.warning("session.settle_failed", worker=self.worker_id, error=str(error))

    async def close(self, *, cut: bool) -> None:
        """The stream is gone. With ``cut`` its leases are left a short grace, for the worker to come back in."""
        self._closed = True
        self._matchmaker.leave(self._consumer)
        self.leases.close()
        unfinished = [*self._tasks, *([self._settling] if self._settling else [])]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, *self._returning, return_exceptions=True)
        if not cut or self._asked_again or not self.leases:
            return
        patience_seconds = self._settings.lease_ttl_seconds
        try:
            if not self._replaced and await self._store.patience.repeat(self._has_moved_on, patience_seconds):
                log.info("session.moved_on", worker=self.worker_id)
            else:
                await self.leases.cut(patience_seconds)
        except TenureError as error:
            # The leases then live their whole TTL: later, but nothing is lost.
            log.warning("session.cut_failed", worker=self.worker_id, error=str(error))

    async def _has_moved_on(self) -> bool:
        """Whether this very process has said hello to another master since: there its leases are renewed, so what this
        one hears of the old stream's end, maybe much later, must not cut them."""
        fields = await self._registered()
        return fields.get("instance") == self.instance_id and fields.get("session") != self.session_id

    async def _registered(self) -> Mapping[str, str]:
        try:
            return (await self._store.workers.get(self.worker_id)).fields
        except UnknownWorker:
            return {}

    async def _handle(self, message: worker_pb2.SessionUp) -> None:
        kind = message.WhichOneof("message")
        if kind == "outcomes":
            self._take_outcomes(message.outcomes)
        elif kind == "want":
            self._want(_checked_slots(message.want.slots))
        elif kind == "heartbeat":
            self._in_order.start(_task_ids(message.heartbeat.renewals), self._heartbeat(message.heartbeat))
        elif kind == "renewals":
            renewals = message.renewals.renewals
            self._in_order.start(_task_ids(renewals), self._renew_if_possible(renewals))
        elif kind == "checkpoint":
            self._in_order.start([message.checkpoint.task_id], self.leases.register_checkpoint(message.checkpoint))
        elif kind == "tail":
            self._tails.take_piece(self.worker_id, message.tail)
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
        if not self._closed:
            self._matchmaker.want(self._consumer, slots if self._mode == "active" else 0)

    def _take_outcomes(self, message: worker_pb2.Outcomes) -> None:
        if len(message.outcomes) > limits.BATCH_TASKS_MAX:
            raise InvalidInput(
                f"{len(message.outcomes)} in one message",
                field="outcomes",
                expected=f"at most {limits.BATCH_TASKS_MAX}",
            )
        self._in_order.start(_task_ids(message.outcomes), self.leases.end(message.outcomes))
        if message.HasField("want_slots"):
            self._want(_checked_slots(message.want_slots))

    async def _heartbeat(self, message: worker_pb2.HeartbeatRequest) -> None:
        fields = heartbeat_fields(message)
        try:
            verdict, mode = await self._store.workers.heartbeat(self.worker_id, self.instance_id, fields)
        except StoreUnavailable:
            return  # the lease clock stands still meanwhile; the next heartbeat renews
        self._metrics.heartbeats.labels("session", verdict).inc()
        if verdict == "SUPERSEDED":
            self.end(superseded(self.worker_id))
        elif verdict == "UNKNOWN":
            self.ask_again(Unavailable("the store has lost this worker's registration", expected="say hello again"))
        else:
            self.set_mode(mode)
            await self._renew_if_possible(message.renewals)

    async def _renew_if_possible(self, messages: Iterable[worker_pb2.Renewal]) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self.leases.renew(messages)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except TenureError as error:
                self.end(error)

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self.end_if_failed)
        return task


def _task_ids(messages: Iterable[Any]) -> list[str]:
    return [message.task_id for message in messages]


def _checked_slots(slots: int) -> int:
    if not 0 <= slots <= limits.SLOTS_MAX:
        raise InvalidInput("out of range", field="slots", given=slots, expected=f"0 to {limits.SLOTS_MAX}")
    return slots
