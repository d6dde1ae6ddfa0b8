"""Long polls: calls of RequestTask that wait for a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tenure.master.loops.matchmaker import Consumer, Matchmaker
from tenure.master.rpc.devices import capabilities_of
from tenure.master.rpc.outcomes import give_back
from tenure.master.store import Store
from tenure.master.store.records import Grant, WorkerView


@dataclass(eq=False)
class _Poll:
    """One waiting call; it wants ``count`` tasks, once."""

    consumer: Consumer
    count: int
    arrived: asyncio.Future[list[Grant]]


class LongPolls:
    """The waiting calls of this master.

    Args:
        spawn: Runs something beside the call that caused it.
    """

    def __init__(
        self, store: Store, matchmaker: Matchmaker, spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._store = store
        self._matchmaker = matchmaker
        self._spawn = spawn
        self._by_worker: dict[str, set[_Poll]] = {}

    async def wait(self, worker: WorkerView, count: int, seconds: float) -> list[Grant]:
        """Tasks for a worker, at most ``count``; none after ``seconds``.

        A worker that is drained or cordoned waits too: it may be served again meanwhile. What comes when the caller is
        gone is given back.
        """
        poll = self._open(worker, count)
        polls = self._by_worker.setdefault(worker.worker_id, set())
        polls.add(poll)
        self._serve(poll, worker.fields.get("mode", "active"))
        try:
            # wait_for would lose a cancellation that comes in the same turn as the grants.
            async with asyncio.timeout(seconds):
                return await asyncio.shield(poll.arrived)
        except TimeoutError:
            return poll.arrived.result() if poll.arrived.done() else []
        except asyncio.CancelledError:
            if poll.arrived.done():
                self._give_back(worker.worker_id, poll.arrived.result())
            raise
        finally:
            self._matchmaker.leave(poll.consumer)
            polls.discard(poll)
            if not polls:
                self._by_worker.pop(worker.worker_id, None)
            if not poll.arrived.done():
                poll.arrived.cancel()

    def note_mode(self, worker_id: str, mode: str) -> None:
        """The worker was drained, cordoned or uncordoned."""
        for poll in self._by_worker.get(worker_id, ()):
            self._serve(poll, mode)

    def end_all(self) -> None:
        """Answer every call that waits: there is no task."""
        for polls in self._by_worker.values():
            for poll in polls:
                self._matchmaker.leave(poll.consumer)
                if not poll.arrived.done():
                    poll.arrived.set_result([])

    def _open(self, worker: WorkerView, count: int) -> _Poll:
        def deliver(grants: list[Grant]) -> None:
            if arrived.done():
                self._give_back(worker.worker_id, grants)
            else:
                arrived.set_result(grants)
                self._matchmaker.leave(consumer)

        arrived: asyncio.Future[list[Grant]] = asyncio.get_running_loop().create_future()
        instance_id = worker.fields.get("instance", "")
        consumer = Consumer(
            worker.worker_id,
            capabilities_of(worker),
            deliver,
            legacy=not instance_id,
            instance_id=instance_id,
        )
        return _Poll(consumer, count, arrived)

    def _serve(self, poll: _Poll, mode: str) -> None:
        if not poll.arrived.done():
            self._matchmaker.want(poll.consumer, poll.count if mode == "active" else 0)

    def _give_back(self, worker_id: str, grants: list[Grant]) -> None:
        self._spawn(give_back(self._store, worker_id, grants))
