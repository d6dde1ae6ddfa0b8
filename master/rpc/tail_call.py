"""One client's ``TailTask``: what a task's evaluation prints, over all of its runs, until the task has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from tenure.common import ids
from tenure.common.errors import Unavailable, UnknownWorker
from tenure.common.states import TaskState
from tenure.master.rpc.messages import attempt_message, task_message
from tenure.master.rpc.tails import RunKey, Tail, Tails
from tenure.master.rpc.worker_service import unknown_task
from tenure.master.store import Store
from tenure.master.store.records import TaskView
from tenure.proto import tenure_pb2

# Shows that the call is alive, and is when the task is looked at even if no event was heard.
KEEPALIVE_SECONDS = 5.0
# For the worker's first answer, when only that is wanted.
ANSWER_SECONDS = 5.0
# For the end of a run's output once the run is over for the store: it was sent before the outcome.
END_SECONDS = 1.0
OUTPUT_BYTES_MAX = 32 * 1024

Response = tenure_pb2.TailTaskResponse


class TailCall:
    """One call; :meth:`run` it once."""

    def __init__(self, store: Store, tails: Tails, request: tenure_pb2.TailTaskRequest, context: Any) -> None:
        self._store = store
        self._tails = tails
        self._task_id = ids.check_id(request.task_id, "task_id")
        self._follow = request.follow
        self._context = context
        # The run whose output the client has, as far as it has it.
        self._epoch = request.epoch
        self._place = request.place
        # Runs that there is nothing more to ask of; and those of which the client has had everything.
        self._passed: set[int] = set()
        self._done: set[int] = set()
        self._noted = ""

    async def run(self) -> None:
        """Until the task has ended, or without ``follow`` until the last output was sent.

        Raises:
            UnknownTask: There is no such task.
            Overloaded: Too many do this at this master.
            Unavailable: The master stops: go on at another, by epoch and place.
        """
        with self._tails.following(self._task_id) as news:
            await self._context.write(Response())
            while True:
                news.clear()
                view = await self._view()
                if view.state is TaskState.LEASED:
                    await self._tail_run(view, news)
                elif view.state.terminal or not self._follow:
                    await self._show_last()
                else:
                    await self._note(f"the task is {view.state.value}")
                if view.state.terminal or not self._follow:
                    await self._end(view)
                    return
                await self._wait(news, KEEPALIVE_SECONDS)

    # ---- a run that goes on -----------------------------------------------------------------------------------------

    async def _tail_run(self, view: TaskView, news: asyncio.Event) -> None:
        """Send what the present run prints, to its end or, without ``follow``, to what there is now."""
        epoch, worker_id = view.number("epoch"), view.fields.get("worker", "")
        if epoch in self._passed:
            return
        await self._announce(epoch, worker_id, view.number("attempts") + 1)
        if not await self._can_tail(worker_id):
            await self._note(f"worker {worker_id} can't tail its evaluations: it is pushed to, or of an older version")
            self._passed.add(epoch)
            return
        came = asyncio.Event()
        with self._tails.reading((self._task_id, epoch), worker_id, came) as tail:
            if self._follow:
                await self._follow_tail(tail, came, news)
            elif not await self._read_once(tail, came, ANSWER_SECONDS):
                await self._note(f"worker {worker_id} has not answered within {ANSWER_SECONDS:g} s")

    async def _follow_tail(self, tail: Tail, came: asyncio.Event, news: asyncio.Event) -> None:
        over_at: float | None = None
        looked_at = time.monotonic()
        while True:
            came.clear()
            await self._send_new(tail)
            if tail.last:
                self._passed.add(tail.key[1])
                if not tail.trouble:
                    self._done.add(tail.key[1])
                await self._note(tail.trouble)
                return
            if over_at is not None and time.monotonic() >= over_at:
                return
            if over_at is None and (news.is_set() or time.monotonic() - looked_at >= KEEPALIVE_SECONDS):
                news.clear()
                looked_at = time.monotonic()
                view = await self._view()
                if view.state is not TaskState.LEASED or view.number("epoch") != tail.key[1]:
                    over_at = time.monotonic() + END_SECONDS
            left = KEEPALIVE_SECONDS if over_at is None else max(0.0, over_at - time.monotonic())
            await self._wait_for_either(came, news, left)

    async def _read_once(self, tail: Tail, came: asyncio.Event, seconds: float) -> bool:
        """Send what there is now; False if nobody says what there is."""
        end = time.monotonic() + seconds
        while not tail.caught_up:
            came.clear()
            if not await self._wait(came, end - time.monotonic()):
                await self._send_new(tail)
                return False
        await self._send_new(tail)
        await self._note(tail.trouble)
        return True

    async def _send_new(self, tail: Tail) -> None:
        while True:
            place, data = tail.ring.read(self._place, OUTPUT_BYTES_MAX)
            left_out, self._place = max(0, place - self._place), max(place + len(data), self._place)
            if not data and not left_out:
                return
            output = tenure_pb2.TailOutput(epoch=tail.key[1], place=self._place, data=data, left_out_bytes=left_out)
            await self._context.write(Response(output=output))

    async def _can_tail(self, worker_id: str) -> bool:
        try:
            return (await self._store.workers.get(worker_id)).fields.get("tails") == "1"
        except UnknownWorker:
            return False

    # ---- a task that nobody holds -----------------------------------------------------------------------------------

    async def _show_last(self) -> None:
        """The last output that is left, unless the client has had all of it."""
        view = await self._view(full=True)
        records = [attempt_message(record) for record in view.attempt_records]
        if not records:
            await self._note("the task has not run yet")
        if not records or records[-1].epoch in self._done:
            return
        newest = records[-1]
        # Where a broken stream goes on, only the worker can tell what comes next.
        if (newest.outcome == "success" or newest.epoch == self._epoch) and await self._show_kept(newest):
            return
        for record in reversed(records):
            if record.log_tail:
                break
        else:
            await self._note("no output of this task is kept")
            return
        await self._announce(record.epoch, record.worker_id, 0)
        data = record.log_tail.encode()
        await self._context.write(
            Response(output=tenure_pb2.TailOutput(epoch=record.epoch, place=self._place, data=data, recorded=True))
        )

    async def _show_kept(self, record: tenure_pb2.AttemptRecord) -> bool:
        """Of a success the store keeps no output, but its worker may still have it."""
        if not await self._can_tail(record.worker_id):
            return False
        key: RunKey = (self._task_id, record.epoch)
        came = asyncio.Event()
        with self._tails.reading(key, record.worker_id, came) as tail:
            await self._announce(record.epoch, record.worker_id, 0)
            return await self._read_once(tail, came, END_SECONDS) and not tail.trouble

    # ---- messages ---------------------------------------------------------------------------------------------------

    async def _announce(self, epoch: int, worker_id: str, attempt: int) -> None:
        if epoch != self._epoch:
            self._epoch, self._place, self._noted = epoch, 0, ""
            run = tenure_pb2.TailRun(epoch=epoch, worker_id=worker_id, attempt=attempt)
            await self._context.write(Response(run=run))

    async def _note(self, text: str) -> None:
        """Said once, until something else is said."""
        if text and text != self._noted:
            self._noted = text
            await self._context.write(Response(note=text))

    async def _end(self, view: TaskView) -> None:
        end = tenure_pb2.TailEnd(state=view.state.value)
        task = task_message(await self._view(full=True))
        if task.HasField("failure"):
            end.failure.CopyFrom(task.failure)
        if task.attempt_records:
            last = task.attempt_records[-1]
            end.exit_signal, end.exit_code = last.exit_signal, last.exit_code
        await self._context.write(Response(end=end))

    # ---- waiting ----------------------------------------------------------------------------------------------------

    async def _view(self, *, full: bool = False) -> TaskView:
        views: Mapping[str, TaskView] = await self._store.tasks.show([self._task_id], full=full)
        if self._task_id not in views:
            raise unknown_task(self._task_id)
        return views[self._task_id]

    async def _wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Whether the event is set before the time is over; a keep-alive is sent behind it if not."""
        return await self._wait_for_either(event, event, seconds)

    async def _wait_for_either(self, one: asyncio.Event, other: asyncio.Event, seconds: float) -> bool:
        waits = [asyncio.create_task(event.wait()) for event in {one, other, self._tails.stopping}]
        try:
            await asyncio.wait(waits, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if self._tails.stopping.is_set():
            raise Unavailable("this master is stopping", expected="go on at another, from where you are")
        if one.is_set() or other.is_set():
            return True
        await self._context.write(Response())
        return False
