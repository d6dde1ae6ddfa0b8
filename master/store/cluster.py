"""A store on Redis Cluster: shards are spread over the primaries by their hash tags.

``redis+cluster://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][?option=value…]`` names some of the nodes;
``rediss+cluster`` speaks TLS. redis-py keeps the map of slots; the calls themselves go through one :class:`Pipeline`
for each primary, so that they are gathered and confirmed as on a single server.

All shards or none: while a primary is away and nobody has taken its slots over, the store as a whole counts as away
(the ticker ticks no shard), so no lease expires that its worker couldn't renew.

A script names one key and derives the others (ADR 0009), so a slot must never be torn between two nodes. Atomic slot
migration (Valkey 9) keeps it whole; migration key by key (older ``--cluster reshard``) is for when no master runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import redis.asyncio as redis_asyncio
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from tenure.common.cancelling import cancel_all
from tenure.common.errors import StoreUnavailable, UnsuitableStore
from tenure.master.store.confirmation import Confirmation
from tenure.master.store.pipeline import Encode, ObserveScript, Pipeline, ScriptCalls
from tenure.master.store.sentinel import parse_host
from tenure.master.store.translation import Moved, translate

CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
CLUSTER_PORT = 6379
# How many shards a new store on a cluster has: enough to spread over many nodes, few enough to tick each.
CLUSTER_SHARDS = 16
# A slot that moves twice while a call is under way is rare; one that moves for ever is a broken cluster.
REDIRECTIONS_MAX = 10
# A dead primary makes every call fail: not every one of them asks for the map anew.
_REFRESH_SECONDS_MIN = 0.2

T = TypeVar("T")


class Cluster:
    """The nodes, and who holds what; see Topology.

    Args:
        url: See the module.
        connection_options: For the connections to the nodes, below those of the URL.

    Raises:
        ValueError: What is wrong with the URL.
    """

    together = False

    def __init__(self, url: str, connection_options: dict[str, Any]) -> None:
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        if parts.path.strip("/") not in ("", "0"):
            raise ValueError("a cluster has no databases, so nothing stands after the slash")
        options: dict[str, Any] = {**connection_options, **dict(parse_qsl(parts.query, keep_blank_values=True))}
        if login:
            username, colon, password = login.partition(":")
            options["username"] = unquote(username) or None
            if colon:
                options["password"] = unquote(password)
        self._tls = parts.scheme == "rediss+cluster"
        self._options = options
        self._seeds = [ClusterNode(*parse_host(host, CLUSTER_PORT)) for host in hosts.split(",")]
        self._pools: dict[str, redis_asyncio.ConnectionPool] = {}
        self._clients: dict[str, redis_asyncio.Redis] = {}
        self._refreshing = asyncio.Lock()
        self._refreshed_at = 0.0
        self._refresh: asyncio.Task[None] | None = None
        # Options that no connection has are only found when one is made. Before the map, which would have to be closed.
        self._pool_of(self._seeds[0]).make_connection()  # type: ignore[no-untyped-call]
        self._map: Any = RedisCluster(startup_nodes=self._seeds, require_full_coverage=False, ssl=self._tls, **options)

    async def open(self) -> None:
        """Ask the nodes for the map of slots; raises StoreUnavailable."""
        try:
            await self._map.initialize()
        except (TimeoutError, RedisError, RedisClusterException, OSError) as error:
            if "Cluster mode is not enabled" in str(error):
                raise UnsuitableStore(
                    "is no node of a cluster", field="store", expected="use redis://HOST:PORT for a single server"
                ) from error
            raise translate(error) from error
        except LookupError:  # redis-py's answer to a cluster whose nodes hold nothing
            pass
        if not self._map.get_primaries():
            raise StoreUnavailable("no node of the cluster holds any slots", expected="assign its slots first")
        self._refreshed_at = time.monotonic()

    async def refresh(self) -> None:
        """Ask for the map anew, but not more often than that; returns when it is newer than the call. A cluster that
        doesn't answer leaves the old one."""
        called_at = time.monotonic()
        async with self._refreshing:
            if self._refreshed_at > called_at:
                return
            await asyncio.sleep(max(0.0, self._refreshed_at + _REFRESH_SECONDS_MIN - called_at))
            try:
                await self._map.nodes_manager.initialize()
            except (TimeoutError, RedisError, RedisClusterException, OSError):
                return
            finally:
                # Nodes learn of a move from one another: what one says now may be outdated, and is asked for again.
                self._refreshed_at = time.monotonic()

    def refresh_soon(self) -> None:
        """Refresh beside the caller, unless that is under way."""
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self.refresh())

    def node_of(self, key: str) -> Any:
        """The primary that holds the key as far as is known; raises StoreUnavailable if nobody is known to."""
        try:
            return self._map.get_node_from_key(key)
        except RedisClusterException:
            raise StoreUnavailable(f"no node of the cluster holds the slot of {key}") from None

    def client_for(self, key: str) -> redis_asyncio.Redis:
        """See Topology."""
        return self._client_of(self.node_of(key))

    def primaries(self) -> list[redis_asyncio.Redis]:
        """See Topology."""
        return [self._client_of(node) for node in self._map.get_primaries()]

    def calls(self, confirmation: Confirmation | None, observe: ObserveScript) -> ScriptCalls:
        """See Topology."""
        return _ClusterCalls(
            self, lambda node: Pipeline(self._pool_of(node), confirmation=confirmation, observe=observe)
        )

    async def close(self) -> None:
        """See Topology."""
        if self._refresh is not None:
            await cancel_all([self._refresh])
        for client in self._clients.values():
            await client.aclose()
        for pool in self._pools.values():
            await pool.aclose()
        await self._map.aclose()
        # redis-py leaves those open to which it spoke before it gave a cluster up.
        await asyncio.gather(*(seed.disconnect() for seed in self._seeds))

    def _client_of(self, node: Any) -> redis_asyncio.Redis:
        if node.name not in self._clients:
            self._clients[node.name] = redis_asyncio.Redis(connection_pool=self._pool_of(node))
        return self._clients[node.name]

    def _pool_of(self, node: Any) -> redis_asyncio.ConnectionPool:
        if node.name not in self._pools:
            kind = redis_asyncio.SSLConnection if self._tls else redis_asyncio.Connection
            self._pools[node.name] = redis_asyncio.ConnectionPool(
                connection_class=kind, host=node.host, port=node.port, **self._options
            )
        return self._pools[node.name]


class _ClusterCalls:
    """Sends each call to the primary that holds its key, and after a redirection to the one that holds it now."""

    def __init__(self, cluster: Cluster, make_pipeline: Callable[[Any], Pipeline]) -> None:
        self._cluster = cluster
        self._make_pipeline = make_pipeline
        self._pipelines: dict[str, Pipeline] = {}
        self._closed = False

    async def item(self, script: str, key: str, item: Any, encode: Encode) -> Any:
        """See Pipeline."""
        return await self._sent(key, lambda pipeline: pipeline.item(script, key, item, encode))

    async def items(self, script: str, key: str, items: Sequence[Any], encode: Encode) -> list[Any]:
        """See Pipeline."""
        return await self._sent(key, lambda pipeline: pipeline.items(script, key, items, encode))

    async def call(self, script: str, key: str, *arguments: bytes | str | int) -> Any:
        """See Pipeline."""
        return await self._sent(key, lambda pipeline: pipeline.call(script, key, *arguments))

    async def close(self) -> None:
        """See Pipeline."""
        self._closed = True
        for pipeline in self._pipelines.values():
            await pipeline.close()

    async def _sent(self, key: str, send: Callable[[Pipeline], Awaitable[T]]) -> T:
        for _ in range(REDIRECTIONS_MAX):
            try:
                return await send(self._pipeline_of(key))
            except Moved:
                # Nothing was carried out.
                await self._cluster.refresh()
            except StoreUnavailable:
                # Its node may be gone for good, and its slots with another. The caller decides about trying again.
                self._cluster.refresh_soon()
                raise
        raise StoreUnavailable(f"the slot of {key} is moved again and again")

    def _pipeline_of(self, key: str) -> Pipeline:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        node = self._cluster.node_of(key)
        if node.name not in self._pipelines:
            self._pipelines[node.name] = self._make_pipeline(node)
        return self._pipelines[node.name]


def shards_for(url: str) -> int:
    """How many shards a store at this URL has unless somebody says otherwise."""
    return CLUSTER_SHARDS if url.startswith(CLUSTER_SCHEMES) else 1
