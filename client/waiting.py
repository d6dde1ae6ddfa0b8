"""Waiting for tasks to end, on top of the watch: one task, many as they end, futures, a whole search.

Every wait goes the same way: subscribe to the watch, then look at the tasks once, then sleep until events say
that there is something to look at. It outlives masters: a wait without a timeout ends only with the tasks.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Collection, Iterable, Iterator

from tenure.client import calls
from tenure.client.broker_records import SearchStatus
from tenure.client.connection import Connection, Deadline
from tenure.client.records import TaskEvent, TaskRecord
from tenure.client.watch import Subscription, Watcher
from tenure.common.errors import TenureError, Unavailable
from tenure.common.states import TaskState
from tenure.proto import tenure_pb2

# While events pour in, a search's numbers are asked for at most this often.
_STATUS_SECONDS_MIN = 0.2

Inbox = queue.SimpleQueue[tuple[TaskEvent, ...] | None]


class Waiting:
    """The waits for tasks of one search. Thread-safe."""

    def __init__(self, connection: Connection, search: str) -> None:
        self._connection = connection
        self._search = search
        self._watcher = Watcher(connection, search)

    def end_of(self, task_id: str, deadline: Deadline) -> TaskRecord:
        """The record of a task that ended.

        Raises:
            TimeoutError: It has not ended at ``deadline``.
            UnknownTask: The broker doesn't know it.
        """
        with _in_time():
            record = calls.get_task(self._connection, task_id, deadline=deadline)
            if record.state.terminal:
                return record
        for ended_id, ended in self.ends([task_id], deadline):
            if ended is None:
                raise calls.unknown_task(ended_id)
            record = ended
        return record

    def ends(self, task_ids: Iterable[str], deadline: Deadline) -> Iterator[tuple[str, TaskRecord | None]]:
        """(id, record) of each task as it ends, each once; None for those that the broker doesn't know.

        Raises:
            TimeoutError: Some have not ended at ``deadline``.
        """
        pending = dict.fromkeys(task_ids)
        if not pending:
            return
        with self._subscribed(pending, deadline) as inbox:
            look = list(pending)
            while True:
                for batch in calls.batches(look):
                    with _in_time():
                        records = self._look_at(batch, deadline)
                    for task_id in batch:
                        record = records.get(task_id)
                        if record is None or record.state.terminal:
                            del pending[task_id]
                            yield task_id, record
                if not pending:
                    return
                self._watcher.check()
                events = _next_events(inbox, deadline, f"{len(pending)} tasks had not ended")
                if events is None:
                    look = list(pending)
                else:
                    look = list(dict.fromkeys(event.task_id for event in events if event.task_id in pending))

    def all_ends(self, deadline: Deadline) -> Iterator[TaskRecord]:
        """Records of the search's tasks as they end: first those that have ended, last when none is open.

        Tasks submitted meanwhile are included; one that is requeued and ends again comes again.

        Raises:
            TimeoutError: Some have not ended at ``deadline``.
        """
        with self._subscribed(None, deadline) as inbox:
            pending: set[str] = set()
            reported: set[str] = set()

            def listed() -> Iterator[TaskRecord]:
                listed_ids = set()
                with _in_time():
                    for record in calls.list_tasks(self._connection, self._search, deadline=deadline):
                        listed_ids.add(record.task_id)
                        if not record.state.terminal:
                            pending.add(record.task_id)
                        elif record.task_id in pending or record.task_id not in reported:
                            pending.discard(record.task_id)
                            reported.add(record.task_id)
                            yield record
                # What is not listed any more, retention has forgotten.
                pending.intersection_update(listed_ids)

            yield from listed()
            while pending:
                self._watcher.check()
                events = _next_events(inbox, deadline, f"{len(pending)} tasks had not ended")
                if events is None:
                    yield from listed()
                    continue
                for event in events:
                    ended = event.state is None or event.state.terminal
                    if not ended or event.task_id not in reported:
                        pending.add(event.task_id)
                maybe = {event.task_id for event in events if event.task_id in pending}
                with _in_time():
                    records = self._look_at(maybe, deadline)
                for task_id in maybe:
                    record = records.get(task_id)
                    if record is None:
                        pending.discard(task_id)
                    elif record.state.terminal:
                        pending.discard(task_id)
                        reported.add(task_id)
                        yield record

    def until_idle(self, deadline: Deadline, progress: Callable[[SearchStatus], None] | None = None) -> SearchStatus:
        """The search's status once no task is open; ``progress`` is given each status on the way.

        Raises:
            TimeoutError: Some are open at ``deadline``.
            UnknownSearch: There is no such search.
        """
        request = tenure_pb2.SearchName(name=self._search)
        with self._subscribed(None, deadline) as inbox:
            while True:
                with _in_time():
                    message = self._connection.call("GetSearch", request, deadline=deadline)
                status = SearchStatus.from_message(message)
                if progress is not None:
                    progress(status)
                if not status.open:
                    return status
                self._watcher.check()
                _next_events(inbox, deadline, f"{status.open} tasks had not ended")
                self._connection.pause(deadline.at_most(_STATUS_SECONDS_MIN))
                if deadline.passed:
                    raise TimeoutError(f"{status.open} tasks had not ended")
                _drain(inbox)

    def when_ended(self, task_ids: Iterable[str], then: Callable[[str, TaskRecord | TenureError], None]) -> None:
        """Have ``then`` called once for each task, with its record once it ended, or with why that can't be
        known.

        It is called in the watcher's thread or, for tasks that ended before, in this one.
        """
        pending = set(task_ids)
        lock = threading.Lock()

        def take(task_id: str) -> bool:
            with lock:
                mine = task_id in pending
                pending.discard(task_id)
                return mine

        def look(events: tuple[TaskEvent, ...] | None) -> None:
            with lock:
                wanted = list(pending if events is None else pending.intersection(e.task_id for e in events))
            try:
                for batch in calls.batches(wanted):
                    records = self._look_at(batch, Deadline.after(None))
                    for task_id in batch:
                        record = records.get(task_id)
                        if (record is None or record.state.terminal) and take(task_id):
                            then(task_id, record or calls.unknown_task(task_id))
                self._watcher.check()
            except TenureError as error:
                for task_id in wanted:
                    if take(task_id):
                        then(task_id, error)
            if not pending:
                self._watcher.unsubscribe(subscription)

        subscription = Subscription(pending, look)
        self._watcher.subscribe(subscription, Deadline.after(None))
        look(None)

    def _look_at(self, task_ids: Collection[str], deadline: Deadline) -> dict[str, TaskRecord]:
        """Records by id; those of tasks that ended without a result in full, because somebody will ask why."""
        records = calls.get_tasks(self._connection, task_ids, deadline=deadline)
        without_result = [
            record.task_id
            for record in records.values()
            if record.state.terminal and record.state is not TaskState.SUCCEEDED
        ]
        records.update(calls.get_tasks(self._connection, without_result, full=True, deadline=deadline))
        return records

    @contextlib.contextmanager
    def _subscribed(self, task_ids: Iterable[str] | None, deadline: Deadline) -> Iterator[Inbox]:
        inbox: Inbox = queue.SimpleQueue()
        subscription = Subscription(task_ids, inbox.put)
        try:
            if not self._watcher.subscribe(subscription, deadline):
                raise TimeoutError("no master answered in time")
            yield inbox
        finally:
            self._watcher.unsubscribe(subscription)


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """A call is tried until the wait's deadline: that nobody answered means that the time is over."""
    try:
        yield
    except Unavailable as error:
        raise TimeoutError("the time was over before a master answered") from error


def _next_events(inbox: Inbox, deadline: Deadline, unfinished: str) -> tuple[TaskEvent, ...] | None:
    """Everything that has come, at least one; None if some were missed."""
    try:
        batches = [inbox.get(timeout=deadline.left)]
    except queue.Empty:
        raise TimeoutError(unfinished) from None
    batches += _drain(inbox)
    events: list[TaskEvent] = []
    for batch in batches:
        if batch is None:
            return None
        events += batch
    return tuple(events)


def _drain(inbox: Inbox) -> list[tuple[TaskEvent, ...] | None]:
    found: list[tuple[TaskEvent, ...] | None] = []
    with contextlib.suppress(queue.Empty):
        while True:
            found.append(inbox.get_nowait())
    return found
