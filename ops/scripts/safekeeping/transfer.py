"""Puts a backup's keys into a store that runs: any server, or any cluster, that reads what the backup's server wrote.

Until all keys are there, the schema key says ``restoring``, which no master serves, and a second run starts over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from safekeeping.console import Failed, Refused
from safekeeping.looks import with_topology
from tenure.common.passwords import without_password
from tenure.master.store.keys import Keys
from tenure.master.store.topology import Topology

RESTORING = "restoring"
_BATCH = 200

OnKeys = Callable[[int], None]


def check_empty(url: str, prefix: str, *, clear: bool) -> str:
    """See that the target holds nothing; returns what must be said, or ''.

    Args:
        url, prefix: Of the target.
        clear: Delete what a restore has left that was broken off.

    Raises:
        Refused: It holds a store.
    """
    told: str = asyncio.run(with_topology(url, lambda topology: _check_empty(topology, url, prefix, clear)))
    return told


async def _check_empty(topology: Topology, url: str, prefix: str, clear: bool) -> str:
    schema = Keys(prefix).schema
    client: Any = topology.client_for(schema)
    unfinished = await client.hget(schema, "version") == RESTORING.encode()
    for primary in topology.primaries():
        async for key in primary.scan_iter(match=f"{prefix}:*", count=1000):
            if not unfinished:
                raise Refused(
                    f"{without_password(url)} holds keys already ({key.decode(errors='replace')}): stop its masters "
                    "and empty it, or restore into another server or under another key prefix's server"
                )
            if clear and key.decode() != schema:
                await primary.unlink(key)
    return "a restore was broken off there; starting over" if unfinished else ""


def transfer(servers: list[redis.Redis], url: str, prefix: str, on_keys: OnKeys) -> int:
    """Copy all keys under a prefix; returns how many.

    Args:
        servers: Throw-away servers that hold the backup's nodes.
        url: The target; holds nothing, see :func:`check_empty`.
        prefix: First part of every key.
        on_keys: Told how many have been copied.

    Raises:
        Failed: The target refuses a key.
    """
    try:
        count: int = asyncio.run(with_topology(url, lambda topology: _transfer(topology, servers, prefix, on_keys)))
    except (ResponseError, RedisError) as error:
        raise Failed(f"{without_password(url)}: {error}") from None
    return count


async def _transfer(topology: Topology, servers: list[redis.Redis], prefix: str, on_keys: OnKeys) -> int:
    schema = Keys(prefix).schema
    held: bytes | None = None
    target: Any = topology.client_for(schema)
    await target.hset(schema, mapping={"version": RESTORING})
    copied = 0
    for server in servers:
        batch: list[bytes] = []
        seen: set[bytes] = set()  # a scan may name a key twice
        for key in server.scan_iter(match=f"{prefix}:*", count=1000):
            if key in seen:
                continue
            seen.add(key)
            if key.decode() == schema:
                held = server.dump(key)
                continue
            batch.append(key)
            if len(batch) == _BATCH:
                copied += await _copy(topology, server, batch)
                on_keys(copied)
                batch = []
        copied += await _copy(topology, server, batch)
        on_keys(copied)
    if held is None:
        raise Failed(f"the backup has no key {schema}: it is not of a store of Tenure's under this prefix")
    await target.restore(schema, 0, held, replace=True)
    return copied + 1


async def _copy(topology: Topology, server: redis.Redis, keys: list[bytes]) -> int:
    if not keys:
        return 0
    reading = server.pipeline(transaction=False)
    for key in keys:
        reading.dump(key)
        reading.pttl(key)
    replies: list[Any] = reading.execute()
    writing: dict[int, Any] = {}
    for key, value, left_ms in zip(keys, replies[::2], replies[1::2], strict=True):
        if value is None:  # it had a time to live, and that is over
            continue
        client = topology.client_for(key.decode())
        pipeline = writing.setdefault(id(client), client.pipeline(transaction=False))
        # Not replacing: a master that was started meanwhile has written something, and must be noticed.
        pipeline.restore(key, max(0, int(left_ms)), value)
    for pipeline in writing.values():
        for reply in await pipeline.execute(raise_on_error=False):
            if isinstance(reply, ResponseError) and "BUSYKEY" in str(reply):
                raise Failed("somebody writes to the target: stop its masters, empty it, and run this again")
            if isinstance(reply, Exception):
                raise Failed(f"the target refuses a key: {reply}")
    return len(keys)
