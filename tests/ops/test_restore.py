"""ops/scripts/restore: what it refuses, what it puts where, what it says has changed, and how it is undone."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kept_store import KeptStore, run_here
from ops_scripts import Scripts
from processes import eventually, start_master
from safekeeping import making, placing, restoring
from safekeeping.choosing import choose
from store_server import StoreServer

from tenure.client import Client
from tenure.master.store import StoreOptions, open_store

DONE, NO, USAGE, UNAVAILABLE, REFUSED, FAILED = 0, 1, 2, 3, 5, 6
ARCHITECTURE = {"nodes": [{"id": "out", "operation": "flatten"}], "edges": []}


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[KeptStore]:
    """A store of 40 tasks, backed up in ``backups``."""
    made = await KeptStore.start(tmp_path / "server")
    said = await run_here(making.main, "--store", made.server.url, "--to", tmp_path / "backups")
    assert said.code == DONE, said
    yield made
    await made.close()


async def shell(command: str) -> None:
    """As the operator would paste it."""
    process = await asyncio.create_subprocess_shell(command)
    assert await process.wait() == 0, command


async def states_of(url: str, shards: int = 1) -> dict[str, int]:
    store = await open_store(StoreOptions(url=url, shards=shards))
    try:
        (overview,) = await store.searches.overview()
        return {state.value: number for each in overview.searches for state, number in each.counts.items() if number}
    finally:
        await store.close()


async def test_a_masters_store_comes_back_and_what_changed_is_said(tmp_path: Path) -> None:
    """Backed up, gone on with, restored, and undone."""
    master = await asyncio.to_thread(start_master, tmp_path / "master")
    data, backups = master.data_dir, tmp_path / "backups"

    def submit(search: str, *keys: str) -> None:
        with Client(master.address) as client:
            client.search(search).submit_many({"architecture": ARCHITECTURE, "key": key} for key in keys)

    def known() -> dict[str, int]:
        with Client(master.address) as client:
            return {search.name: sum(search.tasks.values()) for search in client.searches()}

    try:
        await asyncio.to_thread(submit, "old", "a", "b")
        assert (await run_here(making.main, "--data-dir", data, "--to", backups)).code == DONE
        await asyncio.to_thread(submit, "old", "c")
        await asyncio.to_thread(submit, "new", "d")

        for words in ([], ["--dry-run"]):
            said = await run_here(restoring.main, backups, "--data-dir", data, *words)
            assert said.code == REFUSED, said
            assert f"a master (pid {master.pid}) runs on it" in said.err

        await asyncio.to_thread(master.terminate)
        before = sorted(path.name for path in data.iterdir())
        said = await run_here(restoring.main, backups, "--data-dir", data, "--dry-run")
        assert said.code == DONE, said
        assert "2 tasks stay as they are" in said.out
        assert sorted(path.name for path in data.iterdir()) == before

        said = await run_here(restoring.main, backups, "--data-dir", data, "--output", "json")
        assert said.code == DONE, said
        changes = said.report["changes"]
        assert (changes["unchanged"], len(changes["gone"]), changes["searches_gone"]) == (2, 2, ["new"])
        assert changes["back"] == changes["undone"] == []
        await asyncio.to_thread(master.restart)
        assert await asyncio.to_thread(known) == {"old": 2}
        # The search program runs again, and everything is as if nothing had happened.
        await asyncio.to_thread(submit, "old", "a", "b", "c")
        assert await asyncio.to_thread(known) == {"old": 3}

        await asyncio.to_thread(master.terminate)
        (undo,) = said.report["undo"]
        await shell(undo)
        await asyncio.to_thread(master.restart)
        assert await asyncio.to_thread(known) == {"old": 3, "new": 1}
    finally:
        master.remove()


async def test_results_that_are_lost_and_tasks_that_come_back_are_counted(kept: KeptStore, tmp_path: Path) -> None:
    await kept.evaluate(4)
    await kept.store.tasks.forget("s", keep=6, age_ms=10**12)
    after = await kept.states()
    assert after["SUCCEEDED"] == 6
    await asyncio.to_thread(kept.server.kill)
    target = tmp_path / "data"
    target.mkdir()
    (tmp_path / "server").rename(target / "store")
    said = await run_here(restoring.main, tmp_path / "backups", "--data-dir", target, "--output", "json")
    assert said.code == DONE, said
    changes = said.report["changes"]
    assert (len(changes["undone"]), changes["moved"]) == (4, {"SUCCEEDED to QUEUED": 4})
    assert (len(changes["back"]), len(changes["gone"])) == (3, 0)
    assert "4 tasks lose their result and are evaluated again" in said.err
    assert "docs/operations.md#what-a-rollback-costs" in said.err


async def test_of_a_backup_that_is_the_newer_one_nothing_false_is_said(kept: KeptStore, tmp_path: Path) -> None:
    """As after an old one was restored by mistake."""
    data = tmp_path / "data"
    assert (await run_here(restoring.main, tmp_path / "backups", "--data-dir", data)).code == DONE
    await kept.evaluate(2)
    await kept.scene.submit(3)
    assert (await run_here(making.main, "--store", kept.server.url, "--to", tmp_path / "newer")).code == DONE
    said = await run_here(restoring.main, tmp_path / "newer", "--data-dir", data, "--dry-run")
    assert said.code == DONE, said
    assert "2 tasks go from QUEUED to SUCCEEDED\n" in said.out
    assert "3 tasks come back, which what stands there hasn't (any more, or yet): " in said.out
    assert "retention has deleted" not in said.out
    # And the other way round.
    assert (await run_here(restoring.main, tmp_path / "newer", "--data-dir", data)).code == DONE
    said = await run_here(restoring.main, tmp_path / "backups", "--data-dir", data, "--dry-run")
    assert "3 tasks will be gone, which the backup hasn't (run their search programs again): " in said.out
    assert "2 tasks go from SUCCEEDED to QUEUED\n" in said.out


async def test_a_store_that_cannot_be_read_any_more_is_moved_aside_all_the_same(
    kept: KeptStore, tmp_path: Path
) -> None:
    increments = tmp_path / "data" / "store" / "appendonlydir"
    increments.mkdir(parents=True)
    (increments / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i\n")
    (increments / "appendonly.aof.1.incr.aof").write_text("*1\r\nnonsense\r\n" * 100)
    said = await run_here(restoring.main, tmp_path / "backups", "--data-dir", tmp_path / "data")
    assert said.code == DONE, said
    assert "what stands there can't be read" in said.out
    assert len(list((tmp_path / "data").glob("store.before-restore-*/appendonlydir/*"))) == 2


async def test_a_server_that_somebody_left_running_is_noticed(kept: KeptStore, tmp_path: Path) -> None:
    """The master is gone and its store is not; or the directory is another server's."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "store").symlink_to(tmp_path / "server")
    said = await run_here(restoring.main, tmp_path / "backups", "--data-dir", data)
    assert said.code == REFUSED
    assert f"(pid {kept.server.pid})" in said.err
    said = await run_here(restoring.main, tmp_path / "backups", "--files-into", tmp_path / "server")
    assert said.code == REFUSED
    assert f"(pid {kept.server.pid})" in said.err
    assert kept.scene.client.ping()


async def test_a_running_server_that_is_empty_takes_it_and_one_that_is_not_keeps_what_it_has(
    kept: KeptStore, tmp_path: Path
) -> None:
    expected = await kept.states()
    said = await run_here(restoring.main, tmp_path / "backups", "--into", kept.server.url)
    assert said.code == REFUSED
    assert "holds keys already" in said.err
    assert await kept.states() == expected

    target = StoreServer(tmp_path / "target").start()
    try:
        with target.client() as client:
            assert (
                await run_here(restoring.main, tmp_path / "backups", "--into", target.url, "--dry-run")
            ).code == DONE
            assert client.dbsize() == 0
            # A run that was killed half-way: no master serves that, and the next run starts over.
            client.hset("tenure:{meta}:schema", mapping={"version": "restoring"})
            client.set("tenure:{0}:seq", 99999)
            with pytest.raises(Exception, match="restoring"):
                await open_store(StoreOptions(url=target.url))
            said = await run_here(restoring.main, tmp_path / "backups", "--into", target.url)
            assert said.code == DONE, said
            assert "starting over" in said.out
            assert client.get("tenure:{0}:seq") == kept.scene.client.get("tenure:{0}:seq")
            assert client.dbsize() == kept.scene.client.dbsize()
        assert await states_of(target.url) == expected
    finally:
        target.remove()


async def test_files_are_laid_for_a_server_that_is_stopped(kept: KeptStore, tmp_path: Path) -> None:
    expected = await kept.states()
    target = StoreServer(tmp_path / "target").start()
    with target.client() as client:
        client.set("mine", "1")
    target.kill()
    try:
        said = await run_here(
            restoring.main, tmp_path / "backups", "--files-into", tmp_path / "target", "--output", "json"
        )
        assert said.code == DONE, said
        target.start()
        with target.client() as client:
            assert client.get("mine") is None
        assert await states_of(target.url) == expected
        target.kill()
        await shell(said.report["undo"][0])
        target.start()
        with target.client() as client:
            assert client.get("mine") == b"1"
    finally:
        target.remove()


async def test_violations_are_restored_only_if_that_is_wanted(kept: KeptStore, tmp_path: Path) -> None:
    queued = kept.scene.client.keys(kept.scene.key("ready:*"))[0]
    kept.scene.client.zremrangebyrank(queued, 0, 0)
    await run_here(making.main, "--store", kept.server.url, "--to", tmp_path / "bad")
    (bad,) = (tmp_path / "bad").glob("tenure-*")
    said = await run_here(restoring.main, bad, "--data-dir", tmp_path / "data")
    assert said.code == REFUSED
    assert "violation: " in said.out
    assert not (tmp_path / "data" / "store").exists()
    said = await run_here(restoring.main, bad, "--data-dir", tmp_path / "data", "--accept-violations")
    assert said.code == DONE, said


async def test_what_undoes_it_can_be_pasted_whatever_the_folder_is_called(kept: KeptStore, tmp_path: Path) -> None:
    data = tmp_path / "a b; touch $(echo pasted) 'c'"
    undone = []
    for _ in range(2):
        said = await run_here(restoring.main, tmp_path / "backups", "--data-dir", data, "--output", "json")
        assert said.code == DONE, said
        undone.append(said.report["undo"][0])
    await shell(f"cd {shlex.quote(str(tmp_path))} && {undone[1]}")
    assert sorted(path.name for path in data.iterdir() if path.is_dir()) == ["store", "store.restored"]
    await shell(f"cd {shlex.quote(str(tmp_path))} && {undone[0]}")
    assert sorted(path.name for path in data.iterdir() if path.is_dir()) == ["store.restored"]
    assert not (tmp_path / "pasted").exists()


async def test_violations_in_what_was_placed_come_with_what_undoes_it(
    kept: KeptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start_check(data_dir: Path, store: object) -> tuple[int, list[str]]:
        return 1, ["made up"]

    data = tmp_path / "data"
    (data / "store").mkdir(parents=True)
    (data / "store" / "old").write_text("")
    monkeypatch.setattr(restoring, "_start_check", start_check)
    said = await run_here(restoring.main, tmp_path / "backups", "--data-dir", data)
    assert said.code == FAILED, "5 would say that nothing was changed"
    assert "violation: made up" in said.out
    assert f"fsck finds 1 violations in what is now at {data / 'store'}" in said.err
    (undo,) = [line for line in said.out.splitlines() if line.startswith("to undo it, with no master running: ")]
    await shell(undo.partition(": ")[2])
    assert (data / "store" / "old").exists()


async def test_killed_between_any_two_steps_neither_store_is_lost(kept: KeptStore, tmp_path: Path) -> None:
    """Every state that a killed run can leave, and what the next run makes of it."""
    backup = choose(tmp_path / "backups").backup
    node = backup.facts["nodes"][0]
    data = tmp_path / "data"
    (data / "store").mkdir(parents=True)
    (data / "store" / "old").write_text("")

    placing.stage(backup, node, data, "store", lambda _: None)
    (told,) = placing.clear_away(data, "store")
    assert "the copy of a restore that was broken off" in told
    assert [path.name for path in data.iterdir()] == ["store"]

    staging = placing.stage(backup, node, data, "store", lambda _: None)
    assert placing._exchanged(staging, data / "store"), "this file system exchanges"
    (told,) = placing.clear_away(data, "store")
    assert "what stood there before is" in told
    (aside,) = data.glob("store.before-restore-*")
    assert (aside / "old").exists()
    assert (data / "store" / "appendonlydir").is_dir()
    assert placing.clear_away(data, "store") == []


async def test_where_names_cannot_be_exchanged_they_are_renamed_in_turn(
    kept: KeptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "_exchanged", lambda one, other: False)
    (tmp_path / "data" / "store").mkdir(parents=True)
    said = await run_here(restoring.main, tmp_path / "backups", "--data-dir", tmp_path / "data")
    assert said.code == DONE, said
    assert len(list((tmp_path / "data").glob("store.before-restore-*"))) == 1


async def test_a_whole_restore_that_is_killed_can_be_run_again(
    kept: KeptStore, scripts: Scripts, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    process = await scripts.start("restore", tmp_path / "backups", "--data-dir", data)
    await eventually(lambda: list(data.glob(".restoring-store-*")), what="the copy")
    process.kill()
    await process.communicate()
    said = await scripts("restore", tmp_path / "backups", "--data-dir", data)
    assert said.code == DONE, said
    assert sorted(path.name for path in data.iterdir() if path.name.startswith(".")) == []
    store = await open_store(StoreOptions(data_dir=data))
    try:
        assert (await store.fsck.run())[1] == []
    finally:
        await store.close()
