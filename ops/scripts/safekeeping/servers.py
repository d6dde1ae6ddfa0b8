"""Finds the servers that a store consists of, and says how each is best copied."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import redis.asyncio as redis_asyncio
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from scripting.store_kinds import kind_of

from safekeeping.appendonly import FOLDER, MANIFEST
from safekeeping.console import Failed, NoAnswer, Refused
from tenure.common.passwords import without_password
from tenure.master.store.embedded import find_socket
from tenure.master.store.server import make_pool, make_topology, open_topology

EMBEDDED = "embedded"
METHODS = ("auto", "files", "replication")
_CATCH_UP_SECONDS = 30.0
_POLL_SECONDS = 0.05
# Of redis-py's asynchronous pools; everything else of their options is a blocking connection's, too.
_ASYNC_ONLY = ("connection_pool", "retry")


@dataclass
class Server:
    """One server whose data is a part of the store.

    Attributes:
        name: ``node-0``, …: its folder in a backup.
        place: For people; without password.
        client: A connection to it.
        folder: Its append-only folder, where this process can read it; then its files are copied.
        manifest: The name of the manifest in there.
        size_bytes: About what its copy will have.
        memory_bytes: What its data need in memory.
        primary: Whose replica it is; None: it is written to itself.
    """

    name: str
    place: str
    client: redis.Redis
    folder: Path | None
    manifest: str
    size_bytes: int
    memory_bytes: int
    primary: redis.Redis | None = None

    @property
    def method(self) -> str:
        """How it is copied."""
        return "files" if self.folder is not None else "replication"

    def wait_until_written(self) -> None:
        """Return when what the store has answered so far is here, and in the file.

        A replica may be behind its primary, and with ``everysec`` a server may keep back what it writes for a moment.

        Raises:
            Failed: The replica doesn't catch up.
        """
        if self.primary is not None:
            target = int(self.primary.info("replication")["master_repl_offset"])
            if not _has_caught_up(self.client, target):
                raise Failed(f"{self.place} has not what its primary had {_CATCH_UP_SECONDS:g} s ago")
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        while int(self.client.info("persistence").get("aof_buffer_length", 0)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


@dataclass
class Source:
    """A store that is to be backed up.

    Attributes:
        kind: ``embedded``, ``server``, ``sentinel`` or ``cluster``.
        place: For people; without password.
        url: Where the store's own code connects to.
        servers: All of them.
    """

    kind: str
    place: str
    url: str
    servers: list[Server]

    @property
    def size_bytes(self) -> int:
        """About what a copy will have."""
        return sum(server.size_bytes for server in self.servers)


@contextlib.contextmanager
def source(store: str, data_dir: Path, method: str = "auto") -> Iterator[Source]:
    """The servers of a store; nothing is changed there.

    Raises:
        InvalidSetting: It is no store's URL.
        NoAnswer: A server doesn't answer.
        Refused: It can't be copied by this method.
    """
    kind, place, url = _described(store, data_dir)
    found: list[_Found] = []
    try:
        found += asyncio.run(_servers(kind, url, place))
        own = data_dir / "store" if kind == "embedded" else None
        servers = [_examine(f"node-{number}", each, method, own) for number, each in enumerate(found)]
        yield Source(kind, place, url, servers)
    finally:
        for each in found:
            for client in filter(None, (each.client, each.primary)):
                client.close()


def _described(store: str, data_dir: Path) -> tuple[str, str, str]:
    """(kind, place, URL)."""
    if store != EMBEDDED:
        make_topology(store)  # refuses what is no URL
        return kind_of(store), without_password(store), store
    socket = find_socket(data_dir)
    if not socket.exists():
        raise NoAnswer(
            f"no master runs on {data_dir}: {socket} is not there. Start it or give the right --data-dir; of a store "
            f"that nobody runs on, {data_dir / 'store'} may be copied as it is"
        )
    return "embedded", str(data_dir.absolute()), f"unix://{socket}"


@dataclass(frozen=True)
class _Found:
    """A blocking connection to a server, where that is, and one to its primary if it is a replica."""

    client: redis.Redis
    place: str
    primary: redis.Redis | None = None


async def _servers(kind: str, url: str, place: str) -> list[_Found]:
    if kind == "cluster":
        topology = make_topology(url)
        try:
            await open_topology(topology, url)
            pools = [client.connection_pool for client in topology.primaries()]
            return [_Found(_blocking(pool), _address(pool.connection_kwargs)) for pool in pools]
        finally:
            await topology.close()
    pool = make_pool(url)
    if isinstance(pool, SentinelConnectionPool):
        try:
            return [await _behind_sentinels(pool)]
        except (RedisError, OSError) as error:
            raise NoAnswer(f"{place}: {error}") from None
        finally:
            await pool.aclose()
            for sentinel in pool.sentinel_manager.sentinels:
                await sentinel.aclose()
    return [_Found(_blocking(pool), place)]


def _blocking(pool: redis_asyncio.ConnectionPool, **changed: Any) -> redis.Redis:
    """The same connection, for code that waits for its answers."""
    options = {name: value for name, value in pool.connection_kwargs.items() if name not in _ASYNC_ONLY}
    kinds: list[tuple[type, type]] = [
        (redis_asyncio.SSLConnection, redis.SSLConnection),
        (redis_asyncio.UnixDomainSocketConnection, redis.UnixDomainSocketConnection),
    ]
    kind = next((sync for other, sync in kinds if issubclass(pool.connection_class, other)), redis.Connection)
    options |= {"socket_timeout": 30.0, "retry": Retry(NoBackoff(), 0), **changed}
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=kind, **options))


def _address(options: dict[str, Any]) -> str:
    return f"{options['host']}:{options['port']}"


async def _behind_sentinels(pool: SentinelConnectionPool) -> _Found:
    """A replica that has what the primary has now, so that the primary need not fork; else the primary."""
    service = pool.service_name
    host, port = await pool.sentinel_manager.discover_master(service)
    primary = _blocking(pool, host=host, port=port)
    with contextlib.suppress(RedisError, OSError):
        target = int(primary.info("replication")["master_repl_offset"])
        for replica_host, replica_port in await pool.sentinel_manager.discover_slaves(service):
            replica = _blocking(pool, host=replica_host, port=replica_port)
            if _has_caught_up(replica, target):
                return _Found(replica, f"{replica_host}:{replica_port}, a replica of {service}", primary)
            replica.close()
    return _Found(primary, f"{host}:{port}, the primary of {service}")


def _has_caught_up(replica: redis.Redis, target: int) -> bool:
    deadline = time.monotonic() + _CATCH_UP_SECONDS
    while time.monotonic() < deadline:
        try:
            info = replica.info("replication")
        except (RedisError, OSError):
            return False
        if info.get("role") != "slave" or info.get("master_link_status") != "up":
            return False
        if int(info.get("slave_repl_offset", -1)) >= target:
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _examine(name: str, found: _Found, method: str, own: Path | None) -> Server:
    client, place = found.client, found.place
    try:
        info: dict[str, Any] = client.info("everything")
    except (RedisError, OSError) as error:
        raise NoAnswer(f"{place} doesn't answer: {error}") from None
    folder, manifest = _readable_folder(client, info, own) if method != "replication" else (None, MANIFEST)
    if method == "files" and folder is None:
        raise Refused(
            f"{place}: its append-only folder can't be read from here; run this on its machine as its user, "
            "or use --method replication"
        )
    memory = int(info.get("used_memory", 0))
    size = int(info.get("aof_current_size", 0)) if folder is not None else memory
    return Server(name, place, client, folder, manifest, size, memory, found.primary)


def _readable_folder(client: redis.Redis, info: dict[str, Any], own: Path | None) -> tuple[Path | None, str]:
    """The server's append-only folder if it is on this machine, is written, and may be read.

    ``own``: where an embedded store's server works, as far as the data directory says.
    """
    if not int(info.get("aof_enabled", 0)):
        return None, MANIFEST
    told: dict[str, str] = {}
    try:
        for name in ("dir", "appenddirname", "appendfilename"):
            told |= {str(key): str(value) for key, value in client.config_get(name).items()}
    except RedisError:  # managed services refuse CONFIG
        return None, MANIFEST
    folder = Path(told.get("dir", "/")) / told.get("appenddirname", FOLDER)
    manifest = f"{told.get('appendfilename', 'appendonly.aof')}.manifest"
    # Another machine may have the same path: the process must be here, and work in that directory. Of a master's own
    # server the socket proves it, and its unit may hide the process.
    try:
        here = os.path.samefile(own or f"/proc/{int(info['process_id'])}/cwd", told["dir"])
    except (OSError, KeyError):
        here = False
    return (folder if here and os.access(folder / manifest, os.R_OK) else None), manifest
