"""Follows the event streams: how a master hears what the others did, and how watchers hear anything.

Blocking reads go over connections of their own with a client timeout above the block, so a connection that died in
silence is noticed and dialled anew.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import redis.asyncio as redis_asyncio
import structlog
from redis.exceptions import RedisError, ResponseError

from tenure.common.errors import CursorExpired, InvalidInput, StoreUnavailable
from tenure.master.store.codec import pairs, task_event, text
from tenure.master.store.keys import Keys
from tenure.master.store.records import TaskEvent
from tenure.master.store.translation import translate

log = structlog.get_logger()

BLOCK_MS = 2_000
READ_COUNT = 1_000
# The cursor before every event.
BEGINNING = "0-0"
STREAM_ID_PART_MAX = 2**64 - 1


class EventLog:
    """Reads the shards' event streams and the workers' one.

    A cursor names a place in every shard's stream: ``<id>[,<id>…]``.
    """

    def __init__(self, client_for: Callable[[str], redis_asyncio.Redis], keys: Keys, *, together: bool) -> None:
        self._client_for = client_for
        self._together = together
        self._keys = keys

    async def now(self) -> str:
        """The cursor after the last event so far."""
        ids = []
        for shard in range(self._keys.shards):
            try:
                info = await self._client(shard).xrevrange(self._keys.events(shard), count=1)
            except (TimeoutError, RedisError, OSError) as error:
                raise translate(error) from error
            ids.append(text(info[0][0]) if info else BEGINNING)
        return ",".join(ids)

    async def latest(self, count: int) -> list[TaskEvent]:
        """The last events, the newest first; ``count`` in all, whatever their shards."""
        found: list[TaskEvent] = []
        for shard in range(self._keys.shards):
            try:
                rows = await self._client(shard).xrevrange(self._keys.events(shard), count=count)
            except (TimeoutError, RedisError, OSError) as error:
                raise translate(error) from error
            found += [_event(stream_id, fields) for stream_id, fields in rows or ()]
        return sorted(found, key=lambda event: event.at_unix_ms, reverse=True)[:count]

    async def check(self, cursor: str) -> list[str]:
        """The cursor's ids, one a shard.

        Raises:
            InvalidInput: It is no cursor of this store.
            CursorExpired: Events after it are trimmed already, or it is of a time that the store has lost.
            StoreUnavailable: Nobody can tell now.
        """
        ids = cursor.split(",")
        if len(ids) != self._keys.shards or not all(_is_stream_id(part) for part in ids):
            raise InvalidInput(
                "is not a cursor of this store",
                field="cursor",
                given=cursor,
                expected="use one that a watch returned",
            )
        for shard, stream_id in enumerate(ids):
            oldest, whole = await self._oldest(shard)
            if not whole and _order(stream_id) < _order(oldest):
                raise CursorExpired(
                    "the events after it are trimmed",
                    field="cursor",
                    given=cursor,
                    expected="list the tasks, then watch without a cursor",
                )
            if not await self._holds(shard, stream_id):
                raise CursorExpired(
                    "the event that it names is lost: the store came back older than it was",
                    field="cursor",
                    given=cursor,
                    expected="list the tasks, then watch without a cursor",
                )
        return ids

    async def lost(self, cursor: str) -> bool:
        """Whether the store came back older than it was when it gave out this cursor, as far as that can be told."""
        for shard, stream_id in enumerate(cursor.split(",")):
            oldest, whole = await self._oldest(shard)
            trimmed = not whole and _order(stream_id) < _order(oldest)
            if not trimmed and not await self._holds(shard, stream_id):
                return True
        return False

    async def _holds(self, shard: int, stream_id: str) -> bool:
        """Whether the stream has this very entry. Ids carry times, so a rolled-back store makes none of them again."""
        if stream_id == BEGINNING:
            return True
        client = self._client(shard)
        try:
            if await client.xrange(self._keys.events(shard), min=stream_id, max=stream_id):
                return True
            # On one connection: who has it not, and whether that is for want of it yet.
            async with client.pipeline(transaction=False) as pipe:
                pipe.xrange(self._keys.events(shard), min=stream_id, max=stream_id)
                pipe.info("replication")
                found, replication = await pipe.execute()
            if found:
                return True
            if replication.get("role") != "master":
                # The connections of before a failover, which nobody has cut.
                await client.connection_pool.disconnect(inuse_connections=False)
                raise StoreUnavailable("the store's server has become a replica", expected="ask its new primary")
        except (TimeoutError, RedisError, OSError) as error:
            raise translate(error) from error
        return False

    async def _oldest(self, shard: int) -> tuple[str, bool]:
        """(oldest id, whether nothing was trimmed yet) of a shard's stream."""
        try:
            info: dict[str, Any] = await self._client(shard).xinfo_stream(self._keys.events(shard))
        except ResponseError as error:
            if "no such key" in str(error):
                return BEGINNING, True
            raise translate(error) from error
        except (TimeoutError, RedisError, OSError) as error:
            raise translate(error) from error
        oldest = text(info["first-entry"][0]) if info["first-entry"] else BEGINNING
        return oldest, info["entries-added"] == info["length"]

    async def follow(self, cursor: str) -> AsyncIterator[tuple[str, list[TaskEvent]]]:
        """Batches of events after ``cursor`` with the cursor behind them, for ever; empty batches show it is alive.

        Raises:
            StoreUnavailable: The store stopped answering; resume with the last cursor.
        """
        ids = cursor.split(",")
        # Several reads may be under way; what one of them has doesn't wait for the others.
        reads: dict[asyncio.Task[list[tuple[int, Any, Any]]], list[int]] = {}
        try:
            while True:
                _heed_cancellation()
                busy = {shard for shards in reads.values() for shard in shards}
                for shards in self._reads([shard for shard in range(self._keys.shards) if shard not in busy]):
                    reads[asyncio.create_task(self._read(shards, ids))] = shards
                done, _ = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
                events: list[TaskEvent] = []
                for read in done:
                    del reads[read]
                    for shard, stream_id, fields in read.result():
                        events.append(_event(stream_id, fields))
                        ids[shard] = text(stream_id)
                yield ",".join(ids), events
        finally:
            for read in reads:
                read.cancel()
            await asyncio.gather(*reads, return_exceptions=True)

    def _client(self, shard: int) -> redis_asyncio.Redis:
        return self._client_for(self._keys.events(shard))

    def _reads(self, shards: list[int]) -> list[list[int]]:
        """Shards that one command can read: all, or on a cluster one, since each has a slot of its own."""
        if self._together:
            return [shards] if shards else []
        return [[shard] for shard in shards]

    async def _read(self, shards: Sequence[int], ids: Sequence[str]) -> list[tuple[int, Any, Any]]:
        """(shard, stream id, fields) of what comes next for these shards; [] when nothing did."""
        names = {self._keys.events(shard): shard for shard in shards}
        streams: dict[Any, Any] = {name: ids[shard] for name, shard in names.items()}
        try:
            reply = await self._client(shards[0]).xread(streams, count=READ_COUNT, block=BLOCK_MS)
        except (TimeoutError, RedisError, OSError) as error:
            raise translate(error) from error
        return [(names[text(name)], stream_id, fields) for name, rows in _rows(reply) for stream_id, fields in rows]

    async def between(self, cursor: str, until: str) -> AsyncIterator[tuple[str, list[TaskEvent]]]:
        """Batches of events after ``cursor`` up to and with ``until``, with the cursor behind them."""
        ids, ends = cursor.split(","), until.split(",")
        for shard in range(self._keys.shards):
            while _order(ids[shard]) < _order(ends[shard]):
                try:
                    rows = await self._client(shard).xrange(
                        self._keys.events(shard), min=f"({ids[shard]}", max=ends[shard], count=READ_COUNT
                    )
                except (TimeoutError, RedisError, OSError) as error:
                    raise translate(error) from error
                if not rows:
                    break
                ids[shard] = text(rows[-1][0])
                yield ",".join(ids), [_event(stream_id, fields) for stream_id, fields in rows]

    async def follow_workers(self, handle: Callable[[dict[str, str]], None]) -> None:
        """Call ``handle`` with each registration and mode change from now on, until cancelled."""
        last = "$"
        while True:
            _heed_cancellation()
            try:
                client = self._client_for(self._keys.worker_events)
                reply = await client.xread({self._keys.worker_events: last}, count=100, block=BLOCK_MS)
            except (TimeoutError, RedisError, OSError, StoreUnavailable) as error:
                log.debug("store.worker_events_interrupted", error=str(error))
                await asyncio.sleep(random.uniform(0.05, 0.5))
                continue
            for _, rows in _rows(reply):
                for stream_id, fields in rows:
                    last = text(stream_id)
                    handle(pairs([part for pair in fields.items() for part in pair]))


def _heed_cancellation() -> None:
    """Raise CancelledError once more where this task was cancelled: redis-py before 5.1 swallows one that comes just
    as it looks whether its connection is still good."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _event(stream_id: Any, fields: Any) -> TaskEvent:
    return task_event(stream_id, [part for pair in fields.items() for part in pair])


def _rows(reply: Any) -> list[tuple[bytes, list[Any]]]:
    """XREAD's reply: a list of pairs, or with RESP3 a mapping of lists of lists."""
    if not reply:
        return []
    if isinstance(reply, dict):
        return [(name, [row for part in parts for row in part]) for name, parts in reply.items()]
    return list(reply)


def _is_stream_id(part: str) -> bool:
    milliseconds, separator, number = part.partition("-")
    digits = all(len(each) <= 20 and each.isascii() and each.isdigit() for each in (milliseconds, number))
    return bool(separator) and digits and max(_order(part)) <= STREAM_ID_PART_MAX


def _order(stream_id: str) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)
