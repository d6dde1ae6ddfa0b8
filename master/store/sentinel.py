"""Stores behind Redis Sentinel: the URL, and the pool that finds the primary anew for each connection.

``redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/SERVICE[/DB][?option=value…]``; ``rediss+sentinel`` speaks
TLS to the sentinels and to the servers. Options: ``sentinel_username``, ``sentinel_password`` for the sentinels; any
other is one of the server's connections, as in a ``redis://`` URL.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis.asyncio as redis_asyncio
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
SENTINEL_PORT = 26379
# A sentinel that hangs must not keep the others from being asked.
_SENTINEL_TIMEOUT_SECONDS = 1.0
_HOST = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(?::(?P<port>\d{1,5}))?$")


def make_sentinel_pool(url: str, connection_options: dict[str, Any]) -> SentinelConnectionPool:
    """A pool whose connections go to the primary that the sentinels name when they connect.

    After a failover an old connection answers READONLY, or breaks; its successor asks the sentinels again.

    Args:
        url: See the module.
        connection_options: For the connections to the primary, below those of the URL.

    Raises:
        ValueError: What is wrong with the URL.
    """
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, database = unquote(parts.path).strip("/").partition("/")
    if not service:
        raise ValueError("it names no service after the slash")
    if database and not database.isdecimal():
        raise ValueError("the part after the service is the number of a database")
    options: dict[str, Any] = {**connection_options, **dict(parse_qsl(parts.query, keep_blank_values=True))}
    sentinel_options: dict[str, Any] = {
        "socket_timeout": _SENTINEL_TIMEOUT_SECONDS,
        "socket_connect_timeout": _SENTINEL_TIMEOUT_SECONDS,
    }
    for name in ("username", "password"):
        if f"sentinel_{name}" in options:
            sentinel_options[name] = options.pop(f"sentinel_{name}")
    if login:
        username, colon, password = login.partition(":")
        options["username"] = unquote(username) or None
        if colon:
            options["password"] = unquote(password)
    if database:
        options["db"] = int(database)
    if parts.scheme == "rediss+sentinel":
        sentinel_options["ssl"] = options["ssl"] = True
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        [parse_host(host, SENTINEL_PORT) for host in hosts.split(",")], sentinel_kwargs=sentinel_options
    )
    return SentinelConnectionPool(service, sentinels, **options)  # type: ignore[no-untyped-call]


def parse_host(text: str, port: int) -> tuple[str, int]:
    """``HOST[:PORT]``; raises ValueError."""
    match = _HOST.match(text)
    if match is None or int(match["port"] or 0) > 65535:
        raise ValueError(f"{text!r} is no address")
    return match["host"].strip("[]"), int(match["port"] or port)


async def close_sentinels(pool: redis_asyncio.ConnectionPool) -> None:
    """Close the connections to the sentinels, if the pool has any."""
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()
