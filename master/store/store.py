"""Opens a store: starts the embedded server if that is wanted, checks the server, and puts the parts together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from redis.exceptions import RedisError

from tenure.common.passwords import without_password
from tenure.master.store.cluster import shards_for
from tenure.master.store.code import CodeStore
from tenure.master.store.embedded import DataDirectory, EmbeddedServer
from tenure.master.store.events import EventLog
from tenure.master.store.fsck import Fsck
from tenure.master.store.keys import Keys
from tenure.master.store.looks import Looks
from tenure.master.store.patience import Patience
from tenure.master.store.pipeline import ObserveScript
from tenure.master.store.relay import Relay
from tenure.master.store.searches import SearchStore
from tenure.master.store.server import (
    Durability,
    ServerFacts,
    check_schema,
    examine,
    make_topology,
    open_topology,
    settle_confirmation,
    settle_durability,
    weakest,
)
from tenure.master.store.server_figures import ServerFigures
from tenure.master.store.tasks import TaskStore
from tenure.master.store.topology import Topology
from tenure.master.store.translation import translate
from tenure.master.store.workers import WorkerRegistry

log = structlog.get_logger()

EMBEDDED = "embedded"


@dataclass(frozen=True)
class StoreOptions:
    """How to open a store.

    Attributes:
        url: ``embedded``, or a ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or
            ``redis+cluster://`` URL.
        data_dir: The embedded store's directory; unused otherwise.
        durability: ``strict``, ``relaxed``, or None for the best that the server gives.
        lease_ttl_ms: How long a lease lives without renewal.
        prefix: First part of every key.
        shards: Hash tags that searches are spread over; fixed when a store is made. 0: 16 on a cluster, else 1.
        memory_bytes_max: The embedded server's maxmemory; 0 = none.
        replicas: How many replicas must have a write before it is acknowledged.
    """

    url: str = EMBEDDED
    data_dir: Path | None = None
    durability: Durability | None = None
    lease_ttl_ms: int = 30_000
    prefix: str = "tenure"
    shards: int = 0
    memory_bytes_max: int = 0
    replicas: int = 0


class Store:
    """An open store. Made by :func:`open_store`.

    Attributes:
        tasks, searches, code, workers, events, fsck, looks: Its parts.
        patience: Tries again what it could not do because it was away.
        durability: What an acknowledgement means: ``strict`` (on disk) or ``relaxed``.
        description: Server and place, for people; without password.
        embedded: The embedded server, or None.
    """

    def __init__(
        self,
        options: StoreOptions,
        keys: Keys,
        topology: Topology,
        facts: ServerFacts,
        settled: tuple[Durability, bool, str],
        embedded: tuple[EmbeddedServer, DataDirectory] | None,
        observe: ObserveScript,
    ) -> None:
        self.options = options
        self.keys = keys
        self.facts = facts
        self.durability, wait_aof, self.durability_warning = settled
        self.embedded = embedded[0] if embedded else None
        self._data = embedded[1] if embedded else None
        self._topology = topology
        confirmation = settle_confirmation(facts, self.durability, wait_aof, options.replicas, options.url)
        self._pipeline = topology.calls(confirmation, observe)
        self.tasks = TaskStore(self._pipeline, keys, options.lease_ttl_ms)
        self.searches = SearchStore(self._pipeline, keys)
        self.code = CodeStore(self._pipeline, keys)
        self.workers = WorkerRegistry(self._pipeline, keys)
        self.relay = Relay(topology.client_for, keys)
        self.events = EventLog(topology.client_for, keys, together=topology.together)
        self.fsck = Fsck(self._pipeline, keys, self.searches)
        self.looks = Looks(self._pipeline, keys, self.tasks)
        self.patience = Patience()
        place = EMBEDDED if embedded else without_password(options.url)
        self.description = f"{facts.name} ({place})"

    async def server_figures(self) -> ServerFigures:
        """What the store's servers say of themselves now; raises StoreUnavailable."""
        try:
            infos = [await client.info() for client in self._topology.primaries()]
        except (TimeoutError, RedisError, OSError) as error:
            raise translate(error) from error
        return ServerFigures.together([ServerFigures.of(info) for info in infos])

    async def close(self) -> None:
        """Give everything back; an embedded server is shut down in order."""
        await self._pipeline.close()
        await self._topology.close()
        if self.embedded is not None and self._data is not None:
            await self.embedded.stop()
            self._data.release()


def _ignore(script: str, seconds: float, items: int) -> None:
    """No metrics are wanted."""


async def open_store(
    options: StoreOptions, observe: ObserveScript = _ignore, on_loading: Callable[[], None] = lambda: None
) -> Store:
    """Open a store and check that it may be used.

    Args:
        options: Which one, and how.
        observe: Called for every script call with (script, seconds of its round trip, items).
        on_loading: Called each time that the embedded server says it is still loading its data, which may take long.
            To give up meanwhile, cancel: the server is ended.

    Raises:
        InvalidSetting: The URL can't be right.
        DataDirectoryInUse, StartupError: The embedded server can't be started.
        StoreUnavailable: Nobody answers at the URL.
        UnsuitableStore: The server must not be used; the message says why.
    """
    keys = Keys(options.prefix, options.shards or shards_for(options.url))
    embedded: tuple[EmbeddedServer, DataDirectory] | None = None
    url = options.url
    if url == EMBEDDED:
        embedded = await _start_embedded(options, on_loading)
        url = embedded[0].url
    topology = make_topology(url)
    try:
        await open_topology(topology, url)
        facts = weakest([await examine(client, url) for client in topology.primaries()])
        settled = settle_durability(facts, options.durability, url)
        await check_schema(topology.client_for(keys.schema), keys, url)
    except BaseException:
        await topology.close()
        if embedded is not None:
            await embedded[0].stop()
            embedded[1].release()
        raise
    store = Store(options, keys, topology, facts, settled, embedded, observe)
    if store.durability_warning:
        log.warning("store.not_durable", store=store.description, warning=store.durability_warning)
    return store


async def _start_embedded(
    options: StoreOptions, on_loading: Callable[[], None]
) -> tuple[EmbeddedServer, DataDirectory]:
    assert options.data_dir is not None, "the embedded store needs a data directory"
    data = DataDirectory(options.data_dir)
    server = EmbeddedServer(data, memory_bytes_max=options.memory_bytes_max, on_loading=on_loading)
    try:
        await server.start()
    except BaseException:
        await server.stop()
        data.release()
        raise
    return server, data
