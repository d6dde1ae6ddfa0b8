"""One bidirectional stream to a master (docs/protocol-session.md says what its messages mean).

One task reads, one writes; whatever is to be told is looked up in the holdings when the writer wakes, so that what
happens together is told together, and in the order that matters: checkpoints, outcomes (with the slots that they
free), free slots, renewals.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import grpc
import grpc.aio
import structlog

from tenure.proto import worker_pb2, worker_pb2_grpc
from tenure.worker.channels import MasterHealth, ask_health
from tenure.worker.holdings import Holdings
from tenure.worker.leases import LeaseKey, key_of
from tenure.worker.link import Contact, Unreachable
from tenure.worker.tails import RunKey, Tails

log = structlog.get_logger()

Up = worker_pb2.SessionUp

DEFAULT_TTL_SECONDS = 30.0
_DEFAULT_HEARTBEAT_SECONDS = 10.0
_RENEWALS_INTERVAL_SECONDS = 1.0
_GOODBYE_SECONDS = 2.0
_OUTCOMES_BYTES_MAX = 4 * 1024 * 1024
_OUTCOMES_MAX = 100


class SessionStream:
    """One stream: :meth:`open` it, :meth:`serve` until it ends.

    Args:
        holdings: What is told, and told about.
        metrics: Looks the machine's figures up; blocks a little.
        on_drain: Called with each Drain.
        contact: Kept up to date.
        find_better_master: Whether another master serves, asked (with a timeout) when this one is silent.

    Attributes:
        ttl_seconds: Of leases, as the welcome says.
        master_id: As the welcome says.
    """

    def __init__(
        self,
        holdings: Holdings,
        metrics: Callable[[], worker_pb2.WorkerMetrics],
        on_drain: Callable[[worker_pb2.Drain], None],
        contact: Contact,
        find_better_master: Callable[[float], Awaitable[bool]],
    ) -> None:
        self.ttl_seconds = DEFAULT_TTL_SECONDS
        self.master_id = ""
        self._holdings = holdings
        self._metrics = metrics
        self._on_drain = on_drain
        self._contact = contact
        self._find_better_master = find_better_master
        self._silence_checked_at = 0.0
        self._heartbeat_seconds = _DEFAULT_HEARTBEAT_SECONDS
        self._woken = asyncio.Event()
        # The number of tasks that the master may still send; None: it was never told.
        self._credit: int | None = None
        self._sent: set[LeaseKey] = set()
        self._goodbye: str | None = None
        self._said_goodbye = asyncio.Event()
        self._heartbeat_due = 0.0
        self._renewals_due = 0.0
        self._tails = Tails(holdings.logs, self._holds, self.wake)

    async def open(
        self, channel: grpc.aio.Channel, registration: worker_pb2.RegisterRequest, timeout_seconds: float
    ) -> None:
        """Say hello and hear the welcome.

        Raises:
            grpc.aio.AioRpcError: The master is not there, or refuses.
            Unreachable: It doesn't answer in time, or not by a welcome.
        """
        self._channel = channel
        self._call = worker_pb2_grpc.MasterServiceStub(channel).Session()
        self._worker_id = registration.worker_id
        self._instance_id = registration.instance_id
        hello = worker_pb2.Hello(worker=registration, held=self._holdings.renewals())
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._write(Up(hello=hello))
                down = await self._read()
        except TimeoutError:
            self._call.cancel()
            raise Unreachable(f"no welcome within {timeout_seconds:g} s") from None
        if down.WhichOneof("message") != "welcome":
            self._call.cancel()
            raise Unreachable(f"the master began with {down.WhichOneof('message')} instead of a welcome")
        welcome = down.welcome
        self.master_id = welcome.master_id
        self.ttl_seconds = welcome.lease_ttl_ms / 1000 or DEFAULT_TTL_SECONDS
        self._heartbeat_seconds = welcome.heartbeat_interval_ms / 1000 or self.ttl_seconds / 3
        self._heartbeat_due = time.monotonic() + self._heartbeat_seconds

    def wake(self) -> None:
        """There is something to tell."""
        self._woken.set()

    async def leave(self, reason: str) -> None:
        """Say goodbye; returns once it is said."""
        self._goodbye = reason
        self.wake()
        await self._said_goodbye.wait()

    def close(self) -> None:
        """The session is over."""
        self._said_goodbye.set()

    async def serve(self) -> None:
        """Read and write until the stream ends; raises what ended it, returns after a goodbye."""
        reader = asyncio.create_task(self._read_all())
        writer = asyncio.create_task(self._write_all())
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if writer.done() and writer.exception() is None:
                # Goodbye was said. Hanging up before the master has read it would look like a break.
                await asyncio.wait((reader,), timeout=_GOODBYE_SECONDS)
                return
            # The reader's error carries the stream's status; the writer's often only says that it is over, unless it
            # was the writer that gave up.
            await asyncio.wait((reader,), timeout=0.1)
            for task in (writer, reader) if self._call.cancelled() else (reader, writer):
                if task.done():
                    task.result()
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            self._call.cancel()

    # -- down -----------------------------------------------------------------------------------------------------

    async def _read_all(self) -> None:
        while True:
            down = await self._read()
            self._contact.heard()
            self._take(down)

    async def _read(self) -> worker_pb2.SessionDown:
        try:
            down = await self._call.read()
        except asyncio.CancelledError:
            raise _own_cancellation("the stream was given up") from None
        if down is grpc.aio.EOF:
            code = await self._call.code()
            if code is grpc.StatusCode.OK:
                raise Unreachable("the master closed the stream")
            raise grpc.aio.AioRpcError(
                code,
                await self._call.initial_metadata(),
                await self._call.trailing_metadata(),
                await self._call.details(),
            )
        return cast(worker_pb2.SessionDown, down)

    def _take(self, down: worker_pb2.SessionDown) -> None:
        holdings = self._holdings
        match down.WhichOneof("message"):
            case "tasks":
                for request in down.tasks.tasks:
                    self._credit = max(0, (self._credit or 0) - 1)
                    if holdings.accept(request) is None:
                        holdings.refuse(request, "the worker takes no tasks now")
                self.wake()
            case "outcome_verdicts":
                for verdict in down.outcome_verdicts.verdicts:
                    holdings.take_outcome_verdict(
                        key_of(verdict), verdict.verdict, verdict.delete_urls, verdict.message
                    )
            case "checkpoint_verdict":
                holdings.take_checkpoint_verdict(down.checkpoint_verdict)
            case "revocations":
                for revocation in down.revocations.revocations:
                    holdings.revoke(revocation)
            case "drain":
                self._on_drain(down.drain)
            case "discard":
                holdings.discard(down.discard.urls)
            case "tail":
                self._tails.ask(down.tail)
            case "renewals_done" | "welcome" | None:
                # None: a message that a newer master may send.
                pass

    # -- up -------------------------------------------------------------------------------------------------------

    async def _write_all(self) -> None:
        for checkpoint in self._holdings.announcements.to_send(again=True):
            await self._write(Up(checkpoint=checkpoint))
        while True:
            self._woken.clear()
            for up in self._due():
                await self._write(up)
            if time.monotonic() >= self._heartbeat_due:
                await self._write(Up(heartbeat=await self._heartbeat()))
            if self._goodbye is not None:
                await self._write(Up(goodbye=worker_pb2.Goodbye(reason=self._goodbye)))
                await self._call.done_writing()
                return
            if time.monotonic() >= self._silence_begins_at():
                await self._ask_why_silent()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._wake_at() - time.monotonic())):
                    await self._woken.wait()

    def _due(self) -> Iterator[worker_pb2.SessionUp]:
        """What is to be told now, in order. What runs print comes last, but for the end of it."""
        for piece in self._tails.ends():
            yield Up(tail=piece)
        for checkpoint in self._holdings.announcements.to_send(again=False):
            yield Up(checkpoint=checkpoint)
        batches = list(self._outcome_batches())
        wanted = self._wanted()
        for number, batch in enumerate(batches):
            if number == len(batches) - 1 and wanted is not None:
                batch.want_slots = self._credit = wanted
                wanted = None
            yield Up(outcomes=batch)
        if wanted is not None:
            self._credit = wanted
            yield Up(want=worker_pb2.Want(slots=wanted))
        now = time.monotonic()
        if now >= self._renewals_due and (news := self._holdings.news()):
            self._renewals_due = now + _RENEWALS_INTERVAL_SECONDS
            yield Up(renewals=worker_pb2.Renewals(renewals=news))
        for piece in self._tails.pieces():
            yield Up(tail=piece)

    def _outcome_batches(self) -> Iterator[worker_pb2.Outcomes]:
        """Outcomes that this session has not carried yet, in messages of bounded size."""
        batch, size = worker_pb2.Outcomes(), 0
        for outcome in self._holdings.spool.pending():
            key = key_of(outcome)
            if key in self._sent or not key.token:
                continue
            self._sent.add(key)
            length = outcome.ByteSize()
            if batch.outcomes and (size + length > _OUTCOMES_BYTES_MAX or len(batch.outcomes) == _OUTCOMES_MAX):
                yield batch
                batch, size = worker_pb2.Outcomes(), 0
            batch.outcomes.append(outcome)
            size += length
        if batch.outcomes:
            yield batch

    def _wanted(self) -> int | None:
        """The number to tell, None if the master's own count is right."""
        claimable = self._holdings.claimable()
        return None if claimable == (self._credit or 0) else claimable

    async def _heartbeat(self) -> worker_pb2.HeartbeatRequest:
        self._heartbeat_due = time.monotonic() + self._heartbeat_seconds
        metrics = await asyncio.to_thread(self._metrics)
        runs = list(self._holdings.runs.values())
        return worker_pb2.HeartbeatRequest(
            worker_id=self._worker_id,
            instance_id=self._instance_id,
            status="busy" if runs else "idle",
            current_task_id=runs[0].key.task_id if runs else "",
            metrics=metrics,
            renewals=self._holdings.renewals(),
        )

    async def _write(self, up: worker_pb2.SessionUp) -> None:
        try:
            async with asyncio.timeout(self._silence_seconds()):
                try:
                    await self._call.write(up)
                except asyncio.CancelledError:
                    raise _own_cancellation("the stream was given up") from None
        except TimeoutError:
            raise Unreachable("the master doesn't read what is sent") from None
        except asyncio.InvalidStateError as error:
            # The stream is over; why, the reader hears.
            raise Unreachable("the stream is closed") from error

    def _holds(self, key: RunKey) -> bool:
        return any((run.key.task_id, run.request.epoch) == key for run in self._holdings.runs.values())

    def _wake_at(self) -> float:
        at = min(self._heartbeat_due, self._silence_begins_at(), self._tails.look_up_at())
        if any(run.progress.sequence > run.progress_sent for run in self._holdings.runs.values()):
            at = min(at, self._renewals_due)
        return at

    def _silence_seconds(self) -> float:
        """Every heartbeat is answered; a master that says nothing for so long is in trouble."""
        return min(2 * self._heartbeat_seconds, 0.6 * self.ttl_seconds) + 0.5

    def _silence_begins_at(self) -> float:
        heard_at = time.monotonic() - self._contact.age_seconds()
        return max(heard_at, self._silence_checked_at) + self._silence_seconds()

    async def _ask_why_silent(self) -> None:
        """Leave a master that doesn't answer at all, or that is worse than another.

        One that answers, but has no store, can't answer heartbeats. Leaving it would gain nothing while its store is
        away (the lease clock stands still), and would cost leases: a broken stream cuts them to the grace.

        Raises:
            Unreachable: Leave it.
        """
        self._silence_checked_at = time.monotonic()
        silence = f"the master has said nothing for {self._contact.age_seconds():.1f} s"
        health = await ask_health(self._channel, self._silence_seconds())
        if health is MasterHealth.SILENT:
            raise Unreachable(f"{silence}, nor does it answer when asked")
        if await self._find_better_master(self._silence_seconds()):
            raise Unreachable(f"{silence}, and another one serves")
        log.warning("session.silent", health=health.value, seconds=round(self._contact.age_seconds(), 1))


def _own_cancellation(what: str) -> BaseException:
    """What a CancelledError out of a call's read or write means.

    gRPC raises it for this task's own cancellation, and also when the call was cancelled by another of our tasks: a
    write that takes too long, say, cancels the whole call under the reader. That only ends the stream.
    """
    task = asyncio.current_task()
    return asyncio.CancelledError() if task is not None and task.cancelling() else Unreachable(what)
