"""Where the store's servers are: one server (perhaps found by sentinels), or the nodes of a Redis Cluster."""

from __future__ import annotations

from typing import Protocol

import redis.asyncio as redis_asyncio

from tenure.master.store.confirmation import Confirmation
from tenure.master.store.pipeline import ObserveScript, Pipeline, ScriptCalls
from tenure.master.store.sentinel import close_sentinels


class Topology(Protocol):
    """What a store needs to know of its servers.

    Attributes:
        together: Whether one command may name keys of several shards.
    """

    together: bool

    async def open(self) -> None:
        """Find the servers; raises StoreUnavailable or UnsuitableStore."""

    def client_for(self, key: str) -> redis_asyncio.Redis:
        """For single commands on a key: of the server that holds it as far as is known now."""

    def primaries(self) -> list[redis_asyncio.Redis]:
        """One client for each server that is written to."""

    def calls(self, confirmation: Confirmation | None, observe: ObserveScript) -> ScriptCalls:
        """What carries script calls; close it before :meth:`close`."""

    async def close(self) -> None:
        """Give all connections back."""


class OneServer:
    """A single primary: the pool dials the same address, or asks the sentinels each time."""

    together = True

    def __init__(self, pool: redis_asyncio.ConnectionPool) -> None:
        self._pool = pool
        self._client = redis_asyncio.Redis(connection_pool=pool)

    async def open(self) -> None:
        """See Topology."""

    def client_for(self, key: str) -> redis_asyncio.Redis:
        """See Topology."""
        return self._client

    def primaries(self) -> list[redis_asyncio.Redis]:
        """See Topology."""
        return [self._client]

    def calls(self, confirmation: Confirmation | None, observe: ObserveScript) -> ScriptCalls:
        """See Topology."""
        return Pipeline(self._pool, confirmation=confirmation, observe=observe)

    async def close(self) -> None:
        """See Topology."""
        await self._client.aclose()
        await self._pool.aclose()
        await close_sentinels(self._pool)
