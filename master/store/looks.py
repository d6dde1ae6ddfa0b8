"""What people look at, in the console: small, bounded reads by which nothing is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tenure.common.states import TaskState
from tenure.master.store.codec import text
from tenure.master.store.keys import Keys
from tenure.master.store.pipeline import ScriptCalls
from tenure.master.store.tasks import TaskStore


@dataclass(frozen=True)
class Ended:
    """A task that ended. ``fitness`` None: it wasn't asked for, or its evaluator gave none."""

    task_id: str
    ended_unix_ms: int
    fitness: float | None


class Piece(NamedTuple):
    """Tasks that ended, by time; ``more``: whether there may be others behind the last of them."""

    rows: list[Ended]
    more: bool


class Pace(NamedTuple):
    """How many tasks of a search ended of late: by ``unix_ms``, the store's wall time, within each length of time."""

    unix_ms: int
    ended: list[int]


@dataclass(frozen=True)
class Queue:
    """The ready tasks of one search that have the same requirements; ``requirement_class`` is their class."""

    search: str
    requirement_class: str
    tasks: int
    oldest_wait_ms: int


class Looks:
    """Of all shards.

    Args:
        pipeline: Carries the calls.
        keys: Names the keys.
        tasks: For what the scripts leave out.
    """

    def __init__(self, pipeline: ScriptCalls, keys: Keys, tasks: TaskStore) -> None:
        self._pipeline = pipeline
        self._keys = keys
        self._tasks = tasks

    async def ended(
        self,
        search: str,
        state: TaskState,
        *,
        start_unix_ms: int,
        skip: int,
        count: int,
        backwards: bool = False,
        with_fitness: bool = False,
    ) -> Piece:
        """At most ``count`` tasks that ended in ``state``, from ``start_unix_ms`` on, or before it and ``backwards``;
        ``with_fitness`` fewer, though never none, where their outcomes are long.

        Several can end in one millisecond: whoever reads on names the last one's and how many of it he has had as
        ``skip``. A search that doesn't exist has none.
        """
        key = self._keys.clocks[self._keys.shard_of_search(search)]
        arguments = (search, state.value, start_unix_ms, skip, count, int(backwards), int(with_fitness))
        rows, more = await self._pipeline.call("ended", key, *arguments)
        unread = [text(task_id) for task_id, _, fitness in rows if fitness == b"?"]
        views = await self._tasks.show(unread) if unread else {}
        found = []
        for task_id, at, fitness in rows:
            name = text(task_id)
            value: float | None = None
            if name in views:
                value = (views[name].outcome or {}).get("metrics", {}).get("fitness")
            elif fitness not in (b"", b"?"):
                value = float(fitness)
            found.append(Ended(name, int(float(at)), value))
        return Piece(found, more == b"1")

    async def pace(self, search: str, windows_ms: Sequence[int]) -> Pace:
        """How many tasks of the search ended within each of these lengths of time before now, in whatever way."""
        key = self._keys.clocks[self._keys.shard_of_search(search)]
        now, *counts = await self._pipeline.call("pace", key, search, *windows_ms)
        return Pace(int(now), [int(count) for count in counts])

    async def expiring(self, count: int) -> tuple[int, list[str]]:
        """(leases in all, ids of at most ``count`` tasks of each shard whose leases have the least time left)."""
        total, task_ids = 0, []
        for key in self._keys.clocks:
            live, ids = await self._pipeline.call("expiring", key, count)
            total += int(live)
            task_ids += [text(task_id) for task_id in ids]
        return total, task_ids

    async def queues(self) -> list[Queue]:
        """What waits, by search and requirement class; at most 64 classes of each search."""
        found: list[Queue] = []
        for key in self._keys.clocks:
            offset: str = "0"
            while offset:
                rows, cursor = await self._pipeline.call("queues", key, offset)
                found += [Queue(text(name), text(kind), int(tasks), int(wait)) for name, kind, tasks, wait in rows]
                offset = text(cursor)
        return found
