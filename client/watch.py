"""Watching a search: one resumable stream of events, shared by everybody in the process who waits.

Nothing here polls. A stream that breaks is opened again where it ended, at any master, however long that
takes; if the events in between are trimmed meanwhile (``CursorExpired``), those who wait are told to look
once themselves.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import grpc

from tenure.client.connection import Connection, Deadline
from tenure.client.records import EventBatch, TaskEvent
from tenure.common.errors import CursorExpired, TenureError
from tenure.proto import tenure_pb2

log = logging.getLogger("tenure.client")

# A stream that breaks sooner is opened again after a pause only, so that a master that answers and dies isn't
# hammered.
_SHORT_STREAM_SECONDS = 1.0

Notify = Callable[[tuple[TaskEvent, ...] | None], None]
"""Called in the watcher's thread with events, or with None: some may have been missed, look yourself."""


def watch_events(connection: Connection, search: str, cursor: str = "") -> Iterator[EventBatch]:
    """Events after ``cursor`` as they come, for ever; without a cursor, from now on.

    The first batch carries no events, only the cursor from which they count: what is read from the master
    after it has arrived misses nothing. Broken streams are resumed. Close the generator to end the watch.

    Raises:
        CursorExpired: The events after ``cursor`` are trimmed.
        TenureError: What else a master answered that trying again can't change; or the client was closed.
    """
    while True:
        opened = time.monotonic()
        request_cursor = cursor
        call, message, master = connection.open_stream(
            "Watch",
            lambda: tenure_pb2.WatchRequest(search=search, cursor=request_cursor),  # noqa: B023 - used at once
            Deadline.after(None),
        )
        try:
            while True:
                batch = EventBatch.from_message(message)
                cursor = batch.cursor or cursor
                yield batch
                message = next(call)
        except StopIteration:
            log.info("the watch of %s ended at %s; resuming", search or "all searches", master.address)
        except grpc.RpcError as error:
            failure = connection.stream_error(master, error)
            if not failure.retry_helps:
                raise failure from None
            log.info("the watch of %s broke: %s; resuming", search or "all searches", failure)
        finally:
            call.cancel()
        if time.monotonic() - opened < _SHORT_STREAM_SECONDS:
            connection.pause(random.uniform(0, _SHORT_STREAM_SECONDS))


class Subscription:
    """Somebody's interest in the ends of some tasks, or in everything. End it with
    :meth:`Watcher.unsubscribe`.
    """

    def __init__(self, task_ids: Iterable[str] | None, notify: Notify) -> None:
        self.task_ids = None if task_ids is None else frozenset(task_ids)
        self.notify = notify


class Watcher:
    """One watch of one search for a whole process. Thread-safe.

    The stream is opened when the first one subscribes, and stays open until the client is closed. Its thread
    is a daemon: a program that ends without closing the client ends all the same.
    """

    def __init__(self, connection: Connection, search: str) -> None:
        self._connection = connection
        self._search = search
        self._lock = threading.Lock()
        self._by_task: dict[str, list[Subscription]] = {}
        self._whole: list[Subscription] = []
        self._thread: threading.Thread | None = None
        # Set while a cursor is held: whatever happens from now on is seen.
        self._live = threading.Event()
        self._broken: TenureError | None = None

    def subscribe(self, subscription: Subscription, deadline: Deadline) -> bool:
        """Have its ``notify`` called for every task of it that ends, or, if it names none, for every event.

        Holds on return of True: no later event is missed. So: subscribe first, then look at the tasks once.

        Returns:
            Whether a master answered before ``deadline``. Unsubscribe in either case.

        Raises:
            TenureError: The watch can't work (a master that doesn't know it, the client was closed).
        """
        with self._lock:
            if subscription.task_ids is None:
                self._whole.append(subscription)
            else:
                for task_id in subscription.task_ids:
                    self._by_task.setdefault(task_id, []).append(subscription)
            if self._thread is None or not self._thread.is_alive():
                self._broken = None
                self._live.clear()
                self._thread = threading.Thread(target=self._run, name=f"tenure-watch-{self._search}", daemon=True)
                self._thread.start()
        live = self._live.wait(deadline.left)
        self.check()
        return live

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription. Its ``notify`` may still be running in the watcher's thread once."""
        with self._lock:
            if subscription.task_ids is None:
                self._whole = [other for other in self._whole if other is not subscription]
                return
            for task_id in subscription.task_ids:
                left = [other for other in self._by_task.get(task_id, ()) if other is not subscription]
                if left:
                    self._by_task[task_id] = left
                else:
                    self._by_task.pop(task_id, None)

    def check(self) -> None:
        """Raise what ended the watch, if anything did."""
        if self._broken is not None:
            raise self._broken

    # ---- the watcher's thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                try:
                    self._follow()
                except CursorExpired:
                    self._live.clear()
        except TenureError as error:
            self._broken = error
            self._live.set()
            self._tell_all()

    def _follow(self) -> None:
        """Pass events on until the cursor expires, from now on."""
        first = True
        for batch in watch_events(self._connection, self._search):
            if first:
                self._live.set()
                self._tell_all()
                first = False
            if batch.events:
                self._pass_on(batch.events)

    def _pass_on(self, events: tuple[TaskEvent, ...]) -> None:
        with self._lock:
            whole = list(self._whole)
            wanted: dict[int, tuple[Subscription, list[TaskEvent]]] = {}
            for event in events:
                if event.state is not None and event.state.terminal:
                    for subscription in self._by_task.get(event.task_id, ()):
                        wanted.setdefault(id(subscription), (subscription, []))[1].append(event)
        for subscription in whole:
            _notify(subscription, events)
        for subscription, its_events in wanted.values():
            _notify(subscription, tuple(its_events))

    def _tell_all(self) -> None:
        with self._lock:
            everybody = {id(sub): sub for subs in self._by_task.values() for sub in subs}
            everybody.update((id(sub), sub) for sub in self._whole)
        for subscription in everybody.values():
            _notify(subscription, None)


def _notify(subscription: Subscription, events: tuple[TaskEvent, ...] | None) -> None:
    try:
        subscription.notify(events)
    except Exception:
        # One waiter's trouble must not end the watch of all others.
        log.exception("a waiter for tasks failed")
