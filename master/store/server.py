"""Connects to a Redis or Valkey server and refuses one that must not be used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

import redis.asyncio as redis_asyncio
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from tenure.common.errors import InvalidSetting, StoreUnavailable, TenureError, UnsuitableStore
from tenure.common.passwords import without_password
from tenure.master.store.cluster import CLUSTER_SCHEMES, Cluster
from tenure.master.store.confirmation import Confirmation
from tenure.master.store.keys import SCHEMA_VERSION, Keys
from tenure.master.store.sentinel import SENTINEL_SCHEMES, make_sentinel_pool
from tenure.master.store.topology import OneServer, Topology
from tenure.master.store.translation import translate

VERSION_MIN = (7, 0)
VERSIONS = "7.0 or newer, or Valkey"
SCHEMES = ("redis", "rediss", "unix", *SENTINEL_SCHEMES, *CLUSTER_SCHEMES)
# Behind these the server that is written to may be another tomorrow.
_CHANGING_SCHEMES = (*SENTINEL_SCHEMES, *CLUSTER_SCHEMES)
EVICTION_FREE_POLICY = "noeviction"
Durability = Literal["strict", "relaxed"]

# Above every block and every script; a server that is silent for longer is given up and dialled anew.
SOCKET_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class ServerFacts:
    """What the server says of itself.

    Attributes:
        version: Its Redis-compatible version, for example ``7.2.4``.
        name: ``redis`` or ``valkey`` with its own version.
        aof: Whether an append-only file is written.
        fsync: ``always``, ``everysec``, ``no``, or empty when the server won't tell.
        eviction: Its maxmemory policy.
        wait_aof: Whether WAITAOF confirms writes.
    """

    version: str
    name: str
    aof: bool
    fsync: str
    eviction: str
    wait_aof: bool


def make_topology(url: str) -> Topology:
    """What a store URL names; connects to nobody. Raises InvalidSetting for a URL that can't be right."""
    if not url.startswith(CLUSTER_SCHEMES):
        return OneServer(make_pool(url))
    options: dict[str, Any] = {
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_connect_timeout": 5.0,
        "socket_keepalive": True,
    }
    try:
        return Cluster(url, options)
    except (ValueError, TypeError, LookupError, RedisError, RedisClusterException) as error:
        raise _not_a_url(url, f": {error}") from None


async def open_topology(topology: Topology, url: str) -> None:
    """Find the servers.

    Raises:
        StoreUnavailable: Nobody answers; the message names the URL.
        UnsuitableStore: What answers is something else than the URL says.
    """
    try:
        await topology.open()
    except TenureError as error:
        raise _at(without_password(url), error) from error


def make_pool(url: str) -> redis_asyncio.ConnectionPool:
    """A connection pool for the URL of one server; raises InvalidSetting for one that can't be right."""
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in SCHEMES:
        raise _not_a_url(url, "")
    options: dict[str, Any] = {"socket_timeout": SOCKET_TIMEOUT_SECONDS, "socket_connect_timeout": 5.0}
    if scheme == "unix":
        del options["socket_connect_timeout"]
    else:
        options["socket_keepalive"] = True
    try:
        parts = urlsplit(url)
        pool: redis_asyncio.ConnectionPool
        if scheme in SENTINEL_SCHEMES:
            pool = make_sentinel_pool(url, options)
        else:
            pool = redis_asyncio.ConnectionPool.from_url(url, **options)
        # Options that no connection has are only found when one is made.
        pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, LookupError, RedisError) as error:
        raise _not_a_url(url, f": {error}") from None
    if scheme == "unix" and not parts.path:
        raise _not_a_url(url, ": it has no path")
    if scheme in ("redis", "rediss") and parts.path not in ("", "/") and not re.fullmatch(r"/[0-9]+", parts.path):
        raise _not_a_url(url, ": the part after the slash is the number of a database")
    if pool.connection_kwargs.get("decode_responses"):
        raise _not_a_url(url, ": decode_responses can't be used")
    return pool


def _not_a_url(url: str, why: str) -> InvalidSetting:
    # What redis-py says of an option in the URL that none of its classes has.
    unknown = re.search(r"unexpected keyword argument '(\w+)'", why)
    if unknown:
        why = f": it has an unknown option {unknown[1]!r}"
    return InvalidSetting(
        f"is not a store URL{why}",
        field="store",
        given=without_password(url),
        expected="give `embedded`, redis://HOST:PORT/DB, rediss://…, unix:///PATH/TO/SOCKET, "
        "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or redis+cluster://HOST:PORT,HOST:PORT",
    )


async def examine(client: redis_asyncio.Redis, url: str) -> ServerFacts:
    """The server's facts, if it may be used.

    Raises:
        StoreUnavailable: It doesn't answer.
        UnsuitableStore: It is too old, evicts keys, or is a read-only replica.
    """
    shown = without_password(url)
    try:
        info: dict[str, Any] = await client.info("everything")
    except (TimeoutError, RedisError, OSError) as error:
        raise _at(shown, translate(error)) from error
    if "redis_version" not in info:
        raise UnsuitableStore("is no Redis or Valkey server", field="store", given=shown, expected=f"Redis {VERSIONS}")
    version = str(info["redis_version"])
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < VERSION_MIN:
        raise UnsuitableStore(f"runs version {version}", field="store", given=shown, expected=f"Redis {VERSIONS}")
    if info.get("role") not in (None, "master"):
        raise UnsuitableStore(
            "is a read-only replica", field="store", given=shown, expected="give the URL of its primary"
        )
    if int(info.get("cluster_enabled", 0)) and not url.startswith(CLUSTER_SCHEMES):
        raise UnsuitableStore(
            "is a node of a cluster", field="store", given=shown, expected="give redis+cluster://HOST:PORT[,HOST:PORT…]"
        )
    eviction = str(info.get("maxmemory_policy", EVICTION_FREE_POLICY))
    if eviction != EVICTION_FREE_POLICY:
        raise UnsuitableStore(
            f"evicts keys when memory is short (maxmemory-policy {eviction}), which would lose tasks",
            field="store",
            given=shown,
            expected="set maxmemory-policy noeviction",
        )
    aof = bool(int(info.get("aof_enabled", 0)))
    return ServerFacts(
        version=version,
        name=f"{info.get('server_name', 'redis')} {info.get('valkey_version', version)}",
        aof=aof,
        fsync=await _fsync_policy(client) if aof else "",
        eviction=eviction,
        wait_aof=aof and numbers >= (7, 2),
    )


def weakest(facts: Sequence[ServerFacts]) -> ServerFacts:
    """What holds for all primaries of a store."""
    fsyncs = {each.fsync for each in facts}
    return replace(
        facts[0],
        aof=all(each.aof for each in facts),
        fsync=facts[0].fsync if len(fsyncs) == 1 else "",
        wait_aof=all(each.wait_aof for each in facts),
    )


async def _fsync_policy(client: redis_asyncio.Redis) -> str:
    try:
        return str((await client.config_get("appendfsync")).get("appendfsync", ""))
    except ResponseError:
        return ""  # managed services refuse CONFIG; WAITAOF then decides


def settle_durability(facts: ServerFacts, wanted: Durability | None, url: str) -> tuple[Durability, bool, str]:
    """What durability this store gives: (durability, whether to send WAITAOF, a warning or '').

    Raises:
        UnsuitableStore: ``strict`` was asked for and the server can't give it.
    """
    always = facts.fsync == "always"
    strict_possible = always or facts.wait_aof
    if wanted == "relaxed":
        return (
            "relaxed",
            False,
            "" if facts.aof else "the store writes no append-only file: its restart loses everything",
        )
    if strict_possible:
        return "strict", not always, ""
    remedy = "set `appendonly yes` and `appendfsync always` (or use Redis 7.2 or newer), or ask for `relaxed`"
    if wanted == "strict":
        raise UnsuitableStore(
            f"can't confirm that writes are on disk (append-only file {'on' if facts.aof else 'off'}"
            f"{', appendfsync ' + facts.fsync if facts.fsync else ''})",
            field="durability",
            given=without_password(url),
            expected=remedy,
        )
    return "relaxed", False, f"acknowledged writes can be lost when the store restarts: {remedy}"


def settle_confirmation(
    facts: ServerFacts, durability: Durability, wait_aof: bool, replicas: int, url: str
) -> Confirmation | None:
    """What must confirm each write before it is acknowledged, beyond the server's own answer.

    Args:
        facts: Of the primary.
        durability: The one that is settled.
        wait_aof: As :func:`settle_durability` says.
        replicas: How many replicas must have the write: on their disks where the server can tell (WAITAOF) and
            durability is ``strict``, else in their memory (WAIT).
        url: Where the primary may be another tomorrow, with other settings, each write is confirmed.
    """
    if replicas and not (facts.wait_aof and durability == "strict"):
        return Confirmation("WAIT", 0, replicas)
    changes = url.startswith(_CHANGING_SCHEMES) and facts.wait_aof and durability == "strict"
    return Confirmation("WAITAOF", 1, replicas) if wait_aof or replicas or changes else None


async def check_schema(client: redis_asyncio.Redis, keys: Keys, url: str) -> None:
    """Make or check the schema key.

    Raises:
        UnsuitableStore: The store holds a schema that this version can't read, or another number of shards.
    """
    try:
        found: Any = await client.hgetall(keys.schema)
        if not found:  # written only then: a master must start on a full store
            # At once: masters that start together on a new store must not see half of it.
            async with client.pipeline(transaction=True) as step:
                step.hsetnx(keys.schema, "version", str(SCHEMA_VERSION))
                step.hsetnx(keys.schema, "shards", str(keys.shards))
                step.hgetall(keys.schema)
                *_, found = await step.execute()
    except (TimeoutError, RedisError, OSError) as error:
        raise _schema_failure(error, keys, url) from error
    version, shards = (bytes(found.get(name, b"")).decode("utf-8", "replace") for name in (b"version", b"shards"))
    if version != str(SCHEMA_VERSION):
        raise UnsuitableStore(
            f"holds schema version {version or 'none'}; this Tenure reads version {SCHEMA_VERSION}",
            field="store",
            given=without_password(url),
            expected="run the Tenure version that wrote it, or use another store or key prefix",
        )
    if shards != str(keys.shards):
        raise UnsuitableStore(
            f"was made with {shards} shards, not {keys.shards}",
            field="shards",
            given=keys.shards,
            expected=f"set shards to {shards}",
        )


def _schema_failure(error: BaseException, keys: Keys, url: str) -> TenureError:
    if "WRONGTYPE" in str(error):
        return UnsuitableStore(
            f"the key {keys.schema} is somebody else's",
            field="store",
            given=without_password(url),
            expected="use another key prefix",
        )
    return _at(without_password(url), translate(error))


def _at(shown: str, failure: TenureError) -> TenureError:
    """The failure with the URL it happened at."""
    if isinstance(failure, StoreUnavailable):
        return StoreUnavailable(
            failure.message.removeprefix("the store "),
            field="store",
            given=shown,
            expected=failure.expected or "start the server, or correct the URL",
        )
    return type(failure)(failure.message, field=failure.field, given=shown, expected=failure.expected)
