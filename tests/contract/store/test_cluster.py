"""A store on a real Redis Cluster of three nodes, with searches spread over shards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from processes import eventually
from store_cluster import PRIMARIES, ClusterStore
from store_scene import Scene

from tenure.common.errors import InvalidSetting, StoreUnavailable, UnsuitableStore
from tenure.master.store import Store, StoreOptions, open_store
from tenure.master.store.cluster import CLUSTER_SHARDS, Cluster
from tenure.master.store.records import Verdict
from tenure.master.store.server import make_topology

SEARCHES = [f"search-{number}" for number in range(12)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStore]:
    made = ClusterStore(tmp_path_factory.mktemp("cluster"))
    try:
        yield made.start()
    finally:
        made.remove()


@pytest.fixture
async def store(nodes: ClusterStore, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    opened = await open_store(StoreOptions(url=nodes.url, prefix=f"t{abs(hash(request.node.name))}"))
    yield opened
    checked, violations = await opened.fsck.run()
    assert violations == []
    assert checked > 0
    await opened.close()


async def _lives(store: Store, nodes: ClusterStore) -> None:
    """Tasks of many searches through every kind of end."""
    with nodes.primaries[0].client() as client:
        scene = Scene(store, client)
        ids = [task for search in SEARCHES for task in await scene.submit(3, search)]
        grants = await scene.claim("w1", 100)
        assert {grant.task_id for grant in grants} == set(ids), "one claim is served from every shard"
        for number, grant in enumerate(grants):
            match number % 4:
                case 0 | 1:
                    assert await scene.complete(grant) is Verdict.OK
                case 2:
                    assert (await scene.fail(grant))[0] is Verdict.OK
                case 3:
                    assert await scene.release(grant) is Verdict.OK
        views = await store.tasks.show(ids)
        assert len(views) == len(ids)


async def test_searches_are_spread_over_the_nodes(store: Store, nodes: ClusterStore) -> None:
    await _lives(store, nodes)
    held = nodes.keys_by_node(store.keys.prefix)
    assert len(held) == PRIMARIES
    assert all(held.values()), f"a node has nothing to do: { {port: len(keys) for port, keys in held.items()} }"
    assert store.keys.shards == CLUSTER_SHARDS
    assert {each.name for overview in await store.searches.overview() for each in overview.searches} == set(SEARCHES)


async def test_the_figures_of_all_nodes_are_put_together(store: Store, nodes: ClusterStore) -> None:
    await _lives(store, nodes)
    figures = await store.server_figures()
    assert (figures.server, figures.aof_healthy, figures.replicas) == ("valkey", True, 0)
    sizes = []
    for node in nodes.primaries:
        with node.client() as client:
            sizes.append(client.info("persistence")["aof_current_size"])
    # Each node writes a file of its own, and only adds to it.
    assert max(sizes) < figures.aof_bytes <= sum(sizes)
    assert figures.clients >= PRIMARIES


async def test_events_of_all_nodes_are_followed(store: Store, nodes: ClusterStore) -> None:
    start = await store.events.now()
    await _lives(store, nodes)
    seen: list[str] = []
    cursor = start
    async with asyncio.timeout(30):
        async for reached, events in store.events.follow(start):
            cursor = reached
            seen += [event.search for event in events if event.transition == "submit"]
            if len(seen) == 3 * len(SEARCHES):
                break
    assert set(seen) == set(SEARCHES)
    assert cursor != start
    assert await store.events.check(cursor)
    assert not await store.events.lost(cursor)


async def test_scripts_are_loaded_again_on_every_node(store: Store, nodes: ClusterStore) -> None:
    await _lives(store, nodes)
    for node in nodes.primaries:
        with node.client() as client:
            client.script_flush()
    with nodes.primaries[0].client() as client:
        assert len(await Scene(store, client).submit(2, SEARCHES[0], key="again")) == 2


async def test_a_slot_that_moves_whole_is_followed(store: Store, nodes: ClusterStore) -> None:
    """Valkey's atomic migration, while tasks of that shard are submitted all the time."""
    with nodes.primaries[0].client() as client:
        scene = Scene(store, client)
        search = SEARCHES[0]
        await scene.submit(1, search)
        key = store.keys.events(store.keys.shard_of_search(search))
        slot = int(client.execute_command("CLUSTER KEYSLOT", key))
        source = next(node for node in nodes.primaries if key in nodes.keys_by_node(store.keys.prefix)[node.port])
        target = next(node for node in nodes.primaries if node is not source)
        moved = asyncio.Event()
        submitted: list[str] = []

        async def submit() -> None:
            while not moved.is_set() or len(submitted) < 20:
                submitted.extend(await scene.submit(1, search))

        submitting = asyncio.create_task(submit())
        with source.client() as giver:
            giver.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", nodes.id_of(target))
        await eventually(lambda: key in nodes.keys_by_node(store.keys.prefix)[target.port], what="the slot's move")
        moved.set()
        await submitting
        views = await store.tasks.show(submitted)
        assert len(views) == len(submitted)


async def test_without_one_node_the_store_is_away_and_then_whole_again(store: Store, nodes: ClusterStore) -> None:
    with nodes.primaries[0].client() as client:
        scene = Scene(store, client)
        for search in SEARCHES:
            await scene.submit(1, search)
        victim = nodes.primaries[1]
        victim.kill()
        away = 0
        for search in SEARCHES:
            try:
                await scene.submit(1, search, key="during")
            except StoreUnavailable:
                away += 1
        assert 0 < away < len(SEARCHES), "exactly the searches of that node wait"
        with pytest.raises(StoreUnavailable):
            await store.searches.overview()
        victim.start()
        nodes.until_whole()

        async def all_shards() -> bool:
            try:
                return len(await store.searches.overview()) == CLUSTER_SHARDS
            except StoreUnavailable:
                return False

        await eventually(all_shards)
        for search in SEARCHES:
            (task,) = await scene.submit(1, search, key="during")
            assert task


async def test_another_number_of_shards_is_refused(store: Store, nodes: ClusterStore) -> None:
    await _lives(store, nodes)
    with pytest.raises(UnsuitableStore, match="16 shards"):
        await open_store(StoreOptions(url=nodes.url, prefix=store.keys.prefix, shards=4))


async def test_a_single_server_is_no_cluster(store_server_url: str) -> None:
    with pytest.raises(UnsuitableStore, match="is no node of a cluster") as caught:
        await open_store(StoreOptions(url=store_server_url))
    assert caught.value.given == store_server_url


async def test_a_node_of_a_cluster_is_no_single_server(nodes: ClusterStore) -> None:
    with pytest.raises(UnsuitableStore, match="is a node of a cluster"):
        await open_store(StoreOptions(url=f"redis://127.0.0.1:{nodes.nodes[0].port}"))


async def test_a_cluster_without_slots(tmp_path: Path) -> None:
    made = ClusterStore(tmp_path)
    try:
        made.nodes[0].start()
        with pytest.raises(StoreUnavailable, match="holds any slots"):
            await open_store(StoreOptions(url=f"redis+cluster://127.0.0.1:{made.nodes[0].port}"))
    finally:
        made.remove()


async def test_nodes_that_do_not_answer() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await open_store(StoreOptions(url="redis+cluster://127.0.0.1:1"))
    assert (caught.value.field, caught.value.given) == ("store", "redis+cluster://127.0.0.1:1")


@pytest.fixture
def store_server_url(tmp_path: Path) -> Iterator[str]:
    from sentinel import _free_ports, _Server

    (port,) = _free_ports(1)
    server = _Server(tmp_path / "single", port, "--port", str(port), "--appendonly", "yes", "--save", "")
    server.start()
    try:
        yield f"redis+cluster://127.0.0.1:{port}"
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+cluster://", "no address"),
        ("redis+cluster://h:x", "no address"),
        ("redis+cluster://h/3", "no databases"),
        ("redis+cluster://h?colour=red", "colour"),
    ],
)
async def test_what_is_no_url_is_refused(url: str, why: str) -> None:
    with pytest.raises(InvalidSetting, match=why):
        make_topology(url)


async def test_a_url_gives_login_and_tls() -> None:
    topology = make_topology("rediss+cluster://user:p%40ss@a,[::1]:7001")
    assert isinstance(topology, Cluster)
    await topology.close()
