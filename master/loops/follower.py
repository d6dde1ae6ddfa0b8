"""The follower: reads the store's event stream once for the whole master and hands it to whoever listens.

That is how a master hears what clients and workers did at the other masters, without polling, and what feeds watches.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from tenure.common.errors import CursorExpired, TenureError
from tenure.master.store import Store
from tenure.master.store.records import TaskEvent

log = structlog.get_logger()

# Events that a slow listener may be behind before it is cut off (a watch resumes by its cursor).
BEHIND_EVENTS_MAX = 20_000

Batch = tuple[str, list[TaskEvent]]


class Subscription:
    """One listener's batches, in order."""

    def __init__(self, start: str) -> None:
        self.start = start
        self._queue: asyncio.Queue[Batch | None] = asyncio.Queue()
        self._behind = 0

    def offer(self, batch: Batch) -> bool:
        """False when the listener is too far behind."""
        if self._behind >= BEHIND_EVENTS_MAX:
            return False
        self._behind += len(batch[1])
        self._queue.put_nowait(batch)
        return True

    def end(self) -> None:
        """Nothing comes any more."""
        self._queue.put_nowait(None)

    async def next(self) -> Batch | None:
        """(cursor behind them, events); None at the end: the listener fell behind, or events were lost, or the master
        stops, and it must resume by its cursor."""
        batch = await self._queue.get()
        if batch is not None:
            self._behind -= len(batch[1])
        return batch


class Follower:
    """See the module. ``run`` until cancelled.

    Args:
        store: Whose events.
        handle: Called with each event, in order; must not block.
        missed: Called when events may have been missed (a start, a store that was away).
        rolled_back: Called, with why, when events that were read are gone from the store.
    """

    def __init__(
        self,
        store: Store,
        handle: Callable[[TaskEvent], None],
        missed: Callable[[], None],
        rolled_back: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._store = store
        self._handle = handle
        self._missed = missed
        self._rolled_back = rolled_back
        self._cursor = ""
        self._subscriptions: set[Subscription] = set()
        self._started = asyncio.Event()

    async def subscribe(self) -> Subscription:
        """Everything after ``subscription.start``."""
        await self._started.wait()
        subscription = Subscription(self._cursor)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop listening."""
        self._subscriptions.discard(subscription)

    def end_all(self) -> None:
        """End every subscription: its listener resumes elsewhere."""
        for subscription in list(self._subscriptions):
            self._end(subscription)

    async def run(self) -> None:
        """Follow for ever; after an interruption from where it was."""
        while True:
            try:
                if not self._cursor:
                    self._cursor = await self._store.events.now()
                else:
                    await self._check_cursor()
                self._started.set()
                self._missed()
                async for batch in self._store.events.follow(self._cursor):
                    if not self._cursor:
                        break  # it was to start over
                    self._take(batch)
            except CursorExpired:
                self.start_over()
            except TenureError as error:
                log.debug("follower.interrupted", error=str(error))
                await asyncio.sleep(random.uniform(0.05, 0.5))

    def _take(self, batch: Batch) -> None:
        self._cursor, events = batch
        if not events:
            return
        for event in events:
            self._handle(event)
        for subscription in [each for each in self._subscriptions if not each.offer(batch)]:
            log.warning("watch.cut_off", why=f"more than {BEHIND_EVENTS_MAX} events behind")
            self._end(subscription)

    async def _check_cursor(self) -> None:
        """Before every following but the first: a store that came back with less than it had goes on as if nothing
        were missing."""
        if await self._store.events.lost(self._cursor):
            self._rolled_back("events that were read are gone from the stream")
            raise CursorExpired("events that were read are gone from the stream")
        await self._store.events.check(self._cursor)

    def start_over(self) -> None:
        """What was read counts no more: go on from now, and have every listener look for itself."""
        log.warning("follower.started_over", why="events after the cursor are trimmed or lost")
        self._cursor = ""
        self._started.clear()
        self.end_all()

    def _end(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        subscription.end()
