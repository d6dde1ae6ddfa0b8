"""ops/scripts/backup on every kind of store: a server that sends a snapshot, replicas behind sentinels, a cluster."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from kept_store import run_here
from ops_scripts import Scripts
from safekeeping import making, restoring
from sentinel import SERVICE, SentinelStore
from store_cluster import ClusterStore
from store_server import StoreServer

from tenure.common.spec import TaskSpec
from tenure.master.store import StoreOptions, open_store

DONE, REFUSED = 0, 5


async def test_a_server_whose_files_cannot_be_read_sends_a_snapshot(tmp_path: Path) -> None:
    settings = {"appendonly": "no", "requirepass": "geheim", "repl-diskless-sync-delay": "0"}
    server = StoreServer(tmp_path / "server", **settings).start()
    url = f"{server.url}?password=geheim"
    store = await open_store(StoreOptions(url=url))
    try:
        await store.searches.put("s", {})
        said = await run_here(making.main, "--store", url, "--to", tmp_path / "b", "--method", "files")
        assert said.code == REFUSED, said
        for diskless in ("yes", "no"):
            with server.client() as client:
                client.config_set("repl-diskless-sync", diskless)
            said = await run_here(making.main, "--store", url, "--to", tmp_path / "b", "--output", "json")
            assert said.code == DONE, said
            assert said.report["nodes"][0]["method"] == "replication"
            assert list(said.report["searches"]) == ["s"]
        assert "geheim" not in said.out + said.err
        assert "geheim" not in "".join(path.read_text() for path in (tmp_path / "b").glob("*/manifest.json"))
    finally:
        await store.close()
        server.remove()


async def test_behind_sentinels_a_replica_is_copied_that_has_everything(tmp_path: Path) -> None:
    servers = await asyncio.to_thread(SentinelStore(tmp_path / "sentinel", replicas=1).start)
    store = await open_store(StoreOptions(url=servers.url))
    over = asyncio.Event()

    async def load() -> int:
        for number in itertools.count():
            await store.tasks.submit("s", [TaskSpec("{}", key=str(number))])
            if over.is_set():
                return number + 1
        raise AssertionError("unreachable")

    try:
        loading = asyncio.create_task(load())
        for _ in range(3):
            said = await run_here(making.main, "--store", servers.url, "--to", tmp_path / "b", "--output", "json")
            assert said.code == DONE, said
            assert said.report["nodes"][0]["place"].endswith(f"a replica of {SERVICE}")
        over.set()
        assert 0 < said.report["states"]["QUEUED"] <= await loading
    finally:
        await store.close()
        await asyncio.to_thread(servers.remove)


async def test_of_a_cluster_every_primary_is_copied_and_all_come_back_on_one_server(
    scripts: Scripts, tmp_path: Path
) -> None:
    servers = await asyncio.to_thread(ClusterStore(tmp_path / "cluster").start)
    names = sorted(f"search-{number}" for number in range(12))
    single = StoreServer(tmp_path / "single")
    try:
        store = await open_store(StoreOptions(url=servers.url))
        for name in names:
            await store.searches.put(name, {})
        await store.close()
        said = await run_here(making.main, "--store", servers.url, "--to", tmp_path / "b", "--output", "json")
        assert said.code == DONE, said
        assert len(said.report["nodes"]) == 3
        assert list(said.report["searches"]) == names

        single.start()
        restored = await run_here(restoring.main, tmp_path / "b", "--into", single.url)
        assert restored.code == DONE, restored
        store = await open_store(StoreOptions(url=single.url, shards=16))
        found = [search.name for overview in await store.searches.overview() for search in overview.searches]
        assert sorted(found) == names
        await store.close()
        drilled = await scripts("disaster-drill", "--from", tmp_path / "b", "--scratch", tmp_path)
        assert drilled.code == DONE, drilled
    finally:
        single.remove()
        await asyncio.to_thread(servers.remove)
