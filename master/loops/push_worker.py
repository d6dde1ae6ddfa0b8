"""The loop of one push worker: connects, has tasks claimed for its free slots, and pushes what comes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Collection, MutableMapping
from typing import TYPE_CHECKING

import structlog

from tenure.common.cancelling import cancel_all
from tenure.common.errors import TenureError, UnknownWorker
from tenure.master.loops.matchmaker import Consumer
from tenure.master.loops.push_call import CallEnd, PushCall
from tenure.master.loops.push_connection import PushConnection, connect
from tenure.master.rpc.devices import capabilities_of
from tenure.master.rpc.outcomes import give_back
from tenure.master.rpc.workers import PUSH
from tenure.master.store.records import Grant, Lease, WorkerView

if TYPE_CHECKING:
    from tenure.master.master import Master

log = structlog.get_logger()

PAUSE_SECONDS_MIN = 0.1
PAUSE_SECONDS_MAX = 5.0
# Without a heartbeat for so many lifetimes of a lease the loop ends; the next heartbeat starts it again.
SILENT_TTLS_MAX = 3
# How late a heartbeat may be that was written before a call ended.
ENDED_SECONDS = 5.0


class PushWorker:
    """What this master knows of a worker that it pushes to, and the loop that serves it.

    Args:
        holders: Task id -> the worker that it is being pushed to, of all push workers; kept up here.

    Attributes:
        calls: The open Evaluate calls, by task id.
    """

    def __init__(self, master: Master, worker_id: str, holders: MutableMapping[str, PushWorker]) -> None:
        self.worker_id = worker_id
        self.calls: dict[str, PushCall] = {}
        self._master = master
        self._holders = holders
        self._heard = time.monotonic()
        # What it runs by its own word, maybe since before this master began.
        self._running: frozenset[str] = frozenset()
        # When calls ended: a heartbeat that was written before may still name their tasks.
        self._ended: dict[str, float] = {}
        # Leases from before this master served it, and the tokens it named in its last heartbeat; None: not known yet.
        self._inherited: list[Lease] | None = None
        self._named: frozenset[str] | None = None
        self._changed = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection: PushConnection | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._slots = 0
        self._consumer: Consumer | None = None
        self._pause_seconds = PAUSE_SECONDS_MIN
        self._paused_until = 0.0

    # ---- what is heard of it --------------------------------------------------------------------------------------

    def note_alive(self) -> None:
        """It registered, or it heartbeat."""
        self._heard = time.monotonic()
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._serve(), name=f"push-{self.worker_id}")

    def note_running(self, task_ids: Collection[str], tokens: frozenset[str] | None) -> None:
        """It says in a heartbeat that it runs these tasks; a Tenure worker names all its leases, by their tokens."""
        since = time.monotonic() - ENDED_SECONDS
        self._ended = {task_id: at for task_id, at in self._ended.items() if at > since}
        running = frozenset(task_ids) - self._ended.keys()
        if self._running != running:
            self._running = running
            self._changed.set()
        if tokens is not None:
            self._named = tokens
            self._settle()

    def note_result(self, task_id: str) -> None:
        """The result of a task came by SubmitResult: its slot is free."""
        if task_id in self._running:
            self._running -= {task_id}
            self._changed.set()

    def note_change(self) -> None:
        """Look again: its registration or mode is another."""
        self._paused_until = 0.0
        self._changed.set()

    async def close(self) -> None:
        """End the loop. The worker runs on; its results come by SubmitResult."""
        await cancel_all(task for task in (self._loop, *self._tasks) if task is not None)
        await self._hang_up()

    # ---- the loop -------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            while self._is_heard_of():
                self._changed.clear()
                try:
                    view = await self._master.store.workers.get(self.worker_id)
                    if view.fields.get("dispatch") != PUSH:
                        return
                    await self._inherit(view)
                    await self._want(view)
                except UnknownWorker:
                    return
                except TenureError as error:
                    log.debug("push.interrupted", worker=self.worker_id, error=str(error))
                    self._stop_wanting()
                    self._back_off()
                await self._wait()
        finally:
            self._stop_wanting()
            await self._hang_up()

    async def _inherit(self, view: WorkerView) -> None:
        """Find the leases that it was given before this master served it: some may never have reached it."""
        instance_id = view.fields.get("instance", "")
        if self._inherited is None and instance_id:
            leases = await self._master.census.leases_of(self.worker_id)
            self._inherited = [lease for lease in leases if lease.instance_id == instance_id]
            self._settle()

    def _settle(self) -> None:
        """Give back what it doesn't name: a master that was killed between a claim and its push left that behind."""
        if self._inherited is None or self._named is None:
            return
        unknown = [lease for lease in self._inherited if lease.token not in self._named]
        self._inherited = []
        if unknown:
            log.info("push.settled", worker=self.worker_id, given_back=len(unknown))
            self._master.spawn(give_back(self._master.store, self.worker_id, unknown))

    def _is_heard_of(self) -> bool:
        silence_max = SILENT_TTLS_MAX * self._master.settings.lease_ttl_seconds
        return bool(self.calls) or time.monotonic() - self._heard < silence_max

    async def _want(self, view: WorkerView) -> None:
        """Have as many tasks claimed as it has free slots, if it can be reached."""
        active = view.fields.get("mode", "active") == "active"
        slots = max(1, int(view.number("slots")))
        self._slots = max(0, slots - int(view.number("slots_cordoned"))) if active else 0
        if self._room() > 0 and time.monotonic() >= self._paused_until and await self._connected(view):
            consumer = self._consumer_for(view)
            self._master.matchmaker.want(consumer, self._room())
        else:
            self._stop_wanting()

    def _room(self) -> int:
        strays = self._running - self.calls.keys()
        return self._slots - len(self.calls) - len(strays)

    def _consumer_for(self, view: WorkerView) -> Consumer:
        capabilities = capabilities_of(view)
        instance_id = view.fields.get("instance", "")
        known = self._consumer
        if known is None or (known.capabilities, known.instance_id) != (capabilities, instance_id):
            self._stop_wanting()
            known = self._consumer = Consumer(
                self.worker_id, capabilities, self._deliver, legacy=not instance_id, instance_id=instance_id
            )
        return known

    def _stop_wanting(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            self._master.matchmaker.leave(consumer)

    async def _wait(self) -> None:
        """Until something changes, or it is time to look again."""
        pause = self._paused_until - time.monotonic()
        seconds = pause if pause > 0 else PAUSE_SECONDS_MAX
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def _back_off(self) -> None:
        self._paused_until = time.monotonic() + self._pause_seconds * random.uniform(0.5, 1)
        self._pause_seconds = min(2 * self._pause_seconds, PAUSE_SECONDS_MAX)

    # ---- the connection -------------------------------------------------------------------------------------------

    async def _connected(self, view: WorkerView) -> bool:
        """Whether it can be reached: nothing is claimed for a worker that may be gone."""
        if self._connection is not None and self._connection.is_up and self._connection.leads_to(view):
            return True
        if self.calls:
            # They still ask over the old connection what became of their evaluations.
            return False
        await self._hang_up()
        self._connection = await connect(view)
        if self._connection is None:
            self._back_off()
            return False
        self._watcher = asyncio.create_task(self._watch(self._connection))
        self._keep(self._watcher)
        return True

    async def _watch(self, connection: PushConnection) -> None:
        while True:
            await connection.broken()
            if self._connection is connection:
                self._stop_wanting()
                self._changed.set()
            await connection.up_again()

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if self._watcher is not None:
            self._watcher.cancel()
        if connection is not None:
            await connection.close()

    # ---- the calls ------------------------------------------------------------------------------------------------

    def _deliver(self, grants: list[Grant]) -> None:
        connection = self._connection
        # What was claimed while the worker changed may be too much by now.
        room = self._room() if connection is not None and self._consumer is not None else 0
        for grant in grants[: max(0, room)]:
            assert connection is not None
            call = PushCall(self._master, self.worker_id, connection.stub, grant)
            self.calls[grant.task_id] = call
            self._holders[grant.task_id] = self
            self._keep(asyncio.create_task(self._carry_out(call)))
        if grants[max(0, room) :]:
            self._master.spawn(give_back(self._master.store, self.worker_id, grants[max(0, room) :]))

    async def _carry_out(self, call: PushCall) -> None:
        task_id = call.grant.task_id
        try:
            end = await call.run()
            if end is CallEnd.REFUSED:
                self._back_off()
            elif end is CallEnd.GOES_ON:
                # Until a heartbeat says otherwise: one at a time.
                self._running |= {task_id}
            else:
                self._running -= {task_id}
                self._ended[task_id] = time.monotonic()
                self._pause_seconds = PAUSE_SECONDS_MIN
        finally:
            del self.calls[task_id]
            if self._holders.get(task_id) is self:
                del self._holders[task_id]
            self._changed.set()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
