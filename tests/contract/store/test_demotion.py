"""A server that becomes a replica while masters are connected to it: nothing that it says counts from then on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from processes import eventually
from sentinel import _free_ports, _Server
from store_scene import Scene

from tenure.common.errors import StoreUnavailable
from tenure.master.store import StoreOptions, open_store


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[_Server]]:
    """Two primaries on TCP ports, strangers to each other."""
    made = []
    for port in _free_ports(2):
        folder = tmp_path / str(port)
        options = {"port": str(port), "dir": str(folder), "save": "", "appendonly": "yes", "appendfsync": "always"}
        made.append(_Server(folder, port, *(part for name, value in options.items() for part in (f"--{name}", value))))
    try:
        for server in made:
            server.start()
        yield made
    finally:
        for server in made:
            server.kill()


def demote(server: _Server, primary: _Server) -> None:
    """As a failover that cuts no connection does (FAILOVER, SENTINEL FAILOVER … COORDINATED, an operator)."""
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", primary.port)


def follows(server: _Server) -> bool:
    with server.client() as client:
        try:
            return str(client.info("replication").get("master_link_status")) == "up"
        except redis.RedisError:
            return False


async def test_a_task_is_not_unknown_because_a_replica_has_not_got_it_yet(servers: list[_Server]) -> None:
    """Its connection stays open, and it answers whoever only reads."""
    demoted, other = servers
    store = await open_store(StoreOptions(url=f"redis://127.0.0.1:{demoted.port}"))
    try:
        scene = Scene(store, demoted.client())
        task_ids = await scene.submit(2)
        assert (await store.tasks.show(task_ids)).keys() == set(task_ids)
        cursor = await store.events.now()
        assert not await store.events.lost(cursor)

        await asyncio.to_thread(demote, demoted, other)
        await eventually(lambda: follows(demoted), what="a replica that has what its new primary has: nothing")
        with pytest.raises(StoreUnavailable):
            await store.tasks.show(task_ids)
        with pytest.raises(StoreUnavailable):
            await store.events.lost(cursor)
        with pytest.raises(StoreUnavailable):
            await store.events.check(cursor)
    finally:
        await store.close()
