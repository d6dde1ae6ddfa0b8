"""ops/scripts/backup on real stores that are in use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis
from cluster import Cluster
from kept_store import KeptStore, run_here
from ops_scripts import Scripts
from processes import eventually
from safekeeping import making, restoring
from safekeeping.folder import held
from safekeeping.looks import Look, between, look_at

DONE, NO, USAGE, UNAVAILABLE, REFUSED, FAILED = 0, 1, 2, 3, 5, 6


def backups(folder: Path) -> list[Path]:
    return sorted(folder.glob("tenure-*"))


def samples(textfile: Path) -> dict[str, float]:
    lines = [line.split() for line in textfile.read_text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def test_it_is_taken_while_a_search_runs_and_is_of_one_moment(
    cluster: Cluster, scripts: Scripts, tmp_path: Path
) -> None:
    """Again and again, under rewrites of the append-only file; no lease is lost, no setting changed."""
    await cluster.add_worker("w1", slots=2)
    to, textfiles = tmp_path / "backups", tmp_path / "textfiles"
    textfiles.mkdir()
    data = cluster.master.data_dir
    over = asyncio.Event()

    async def load() -> int:
        number = 0
        while not over.is_set():
            await cluster.submit("first", [f"{number}-{each}" for each in range(3)], {})
            number += 3
            with contextlib.suppress(redis.ResponseError):  # one is under way
                client.bgrewriteaof()
        return number

    with redis.Redis(unix_socket_path=str(data / "store.sock")) as client:
        settings = client.config_get()
        loading = asyncio.create_task(load())
        said = [
            await scripts(
                "backup", "--data-dir", data, "--to", to, "--keep", "2", "--textfile-dir", textfiles, "--output", "json"
            )
            for _ in range(3)
        ]
        over.set()
        submitted = await loading
        assert client.config_get() == settings
    for each in said:
        assert each.code == DONE, each
        assert each.report["verified"], each.report["violations"]
        assert each.report["violations"] == []
    counts = [sum(each.report["states"].values()) for each in said]
    assert counts == sorted(counts)
    assert 0 < counts[0] <= counts[-1] <= submitted
    assert len(backups(to)) == 2, "--keep 2"
    assert all(path.stat().st_mode & 0o777 == 0o700 for path in (to, *backups(to)))

    figures = samples(textfiles / "tenure_backup.prom")
    assert figures["tenure_backup_verified"] == figures["tenure_backup_run_succeeded"] == 1
    newest = said[-1].report
    assert figures["tenure_backup_timestamp_seconds"] == pytest.approx(newest["nodes"][0]["moment_unix"])
    assert figures["tenure_backup_tasks"] == counts[-1]
    assert figures["tenure_backup_bytes"] == sum(file["bytes"] for file in newest["nodes"][0]["files"])
    assert figures["tenure_backup_seconds"] > 0

    listed = await scripts("backup", "--list", "--to", to)
    assert listed.code == DONE
    assert listed.out.count(" verified\n") == 2
    await asyncio.to_thread(cluster.client.search("first").cancel_search)
    assert (await cluster.counters()).get("leases_expired", 0) == 0
    assert await cluster.fsck() == []


@pytest.mark.parametrize("point", ["while it copies", "while it verifies", "when it has been named"])
async def test_killed_at_any_moment_it_leaves_no_half_backup_and_the_next_run_is_whole(
    scripts: Scripts, tmp_path: Path, point: str
) -> None:
    kept = await KeptStore.start(tmp_path / "server", ballast_mb=32)
    to = tmp_path / "backups"
    reached: dict[str, Callable[[], bool]] = {
        "while it copies": lambda: bool(list(to.glob(".partial-*/node-0/appendonlydir/*"))),
        "while it verifies": lambda: bool(list(to.glob(".partial-*/.view-*/server.log"))),
        "when it has been named": lambda: bool(backups(to)),
    }
    try:
        settings = kept.scene.client.config_get()
        process = await scripts.start("backup", "--store", kept.server.url, "--to", to)
        await eventually(reached[point], what=point)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
        assert kept.scene.client.config_get() == settings
        await eventually(lambda: not servers_below(to), what="the end of the throw-away server")
        for whole in backups(to):
            assert (await scripts("backup", "--check", whole)).code == DONE
        said = await scripts("backup", "--store", kept.server.url, "--to", to, "--output", "json")
        assert said.code == DONE, said
        assert said.report["states"] == await kept.states()
        assert [path for path in to.iterdir() if path.name.startswith(".")] == []
        assert list(Path(tempfile.gettempdir()).glob(f"tenure-check-{process.pid}-*")) == []
    finally:
        await kept.close()


def servers_below(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in part for part in process.cmdline()):
                found.append(process.pid)
    return found


async def test_what_cannot_be_done_is_said_and_changes_nothing(kept: KeptStore, tmp_path: Path) -> None:
    to = tmp_path / "backups"
    said = await run_here(making.main, "--store", kept.server.url, "--to", to, "--dry-run")
    assert said.code == DONE
    assert "by files" in said.out
    assert not to.exists()

    said = await run_here(making.main, "--store", kept.server.url)
    assert (said.code, said.err) == (USAGE, "error: say where to: --to DIR\n")
    said = await run_here(making.main, "--store", "redis:/typo", "--to", to)
    assert said.code == USAGE
    assert "is not a store URL" in said.err
    said = await run_here(making.main, "--data-dir", tmp_path / "nobody", "--to", to)
    assert said.code == UNAVAILABLE
    assert "no master runs on" in said.err
    said = await run_here(making.main, "--store", "redis://127.0.0.1:1", "--to", to)
    assert said.code == UNAVAILABLE
    said = await run_here(making.main, "--store", kept.server.url, "--key-prefix", "other", "--to", to)
    assert said.code == REFUSED
    assert "holds no Tenure under the prefix 'other'" in said.err
    assert kept.scene.client.keys("other:*") == []
    assert not to.exists()


async def test_two_at_once_are_refused(kept: KeptStore, tmp_path: Path) -> None:
    with held(tmp_path / "backups"):
        said = await run_here(making.main, "--store", kept.server.url, "--to", tmp_path / "backups")
    assert said.code == REFUSED
    assert "another backup" in said.err


async def test_violations_are_found_and_the_last_good_one_is_kept(kept: KeptStore, tmp_path: Path) -> None:
    """Whatever --keep says: a store that went bad must not push the last good backup out."""
    to, textfiles = tmp_path / "backups", tmp_path / "textfiles"
    textfiles.mkdir()
    words: list[str | Path] = ["--store", kept.server.url, "--to", to, "--keep", "1", "--textfile-dir", textfiles]
    assert (await run_here(making.main, *words)).code == DONE
    (good,) = backups(to)
    verified_at = samples(textfiles / "tenure_backup.prom")["tenure_backup_timestamp_seconds"]
    queued = kept.scene.client.keys(kept.scene.key("ready:*"))[0]
    kept.scene.client.zremrangebyrank(queued, 0, 0)
    for _ in range(2):
        said = await run_here(making.main, *words)
        assert said.code == NO, said
        assert "NO: " in said.out
    assert good in backups(to)
    assert len(backups(to)) == 3
    figures = samples(textfiles / "tenure_backup.prom")
    assert figures["tenure_backup_verified"] == figures["tenure_backup_run_succeeded"] == 0
    assert figures["tenure_backup_timestamp_seconds"] == verified_at


async def test_one_that_was_only_copied_can_be_verified_later(kept: KeptStore, tmp_path: Path) -> None:
    to, telling = tmp_path / "b", ("--textfile-dir", tmp_path)
    said = await run_here(making.main, "--store", kept.server.url, "--to", to, "--skip-verify", *telling)
    assert said.code == DONE, said
    (made,) = backups(to)
    assert not json.loads((made / "manifest.json").read_text())["verified"]
    figures = samples(tmp_path / "tenure_backup.prom")
    assert (figures["tenure_backup_run_succeeded"], figures["tenure_backup_verified"]) == (1, 0)
    assert "tenure_backup_timestamp_seconds" not in figures
    assert (await run_here(restoring.main, to, "--data-dir", tmp_path / "d")).code == USAGE
    said = await run_here(making.main, "--check", made, *telling)
    assert said.code == DONE, said
    assert json.loads((made / "manifest.json").read_text())["verified"]
    assert samples(tmp_path / "tenure_backup.prom")["tenure_backup_verified"] == 1


def flipped(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "manifest changed": lambda path: flipped(path / "manifest.json"),
    "manifest gone": lambda path: (path / "manifest.json").unlink(),
    "base changed": lambda path: flipped(next(path.glob("node-0/*/*.base.rdb"))),
    "increment changed": lambda path: flipped(next(path.glob("node-0/*/*.incr.aof"))),
    "increment cut": lambda path: os.truncate(next(path.glob("node-0/*/*.incr.aof")), 100),
    "increment gone": lambda path: next(path.glob("node-0/*/*.incr.aof")).unlink(),
    "order changed": lambda path: flipped(next(path.glob("node-0/*/*.manifest"))),
    "something added": lambda path: (path / "node-0" / "appendonlydir" / "more").write_text("x"),
}


async def test_damage_of_every_kind_of_file_is_noticed_and_not_restored(kept: KeptStore, tmp_path: Path) -> None:
    assert (await run_here(making.main, "--store", kept.server.url, "--to", tmp_path / "b")).code == DONE
    (made,) = backups(tmp_path / "b")

    for name, damage in DAMAGES.items():
        copy = tmp_path / name.replace(" ", "-")
        shutil.copytree(made, copy)
        damage(copy)
        gone = name == "manifest gone"
        target = tmp_path / f"{copy.name}-target"
        assert (await run_here(making.main, "--check", copy)).code == (USAGE if gone else NO), name
        said = await run_here(restoring.main, copy, "--data-dir", target)
        assert said.code == (USAGE if gone else FAILED), (name, said)
        assert not (target / "store").exists(), name


async def test_a_copy_that_is_of_no_moment_between_the_looks_is_not_verified(kept: KeptStore) -> None:
    def look() -> Look:
        return look_at(kept.server.url, "tenure", 1)

    first = await asyncio.to_thread(look)
    await kept.scene.submit(3)
    second = await asyncio.to_thread(look)
    await kept.evaluate(2)
    third = await asyncio.to_thread(look)
    assert between(first, second, third) == []
    assert between(first, first, first) == []
    assert "less than before" in between(second, first, third)[0]
    assert "more than after" in between(first, third, second)[0]
    # Tasks that are gone without an event: the marks alone would not show it.
    lost = await asyncio.to_thread(look)
    lost.shards[0].counts["s", "QUEUED"] -= 1
    assert "explain at most 0" in between(third, lost, third)[0]


async def test_half_a_record_at_the_end_is_left_out(kept: KeptStore, tmp_path: Path) -> None:
    """What was being written when the files were opened was not acknowledged."""
    increment = next((tmp_path / "server").glob("appendonlydir/*.incr.aof"))
    whole = increment.stat().st_size
    with increment.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nhalf")
    said = await run_here(making.main, "--store", kept.server.url, "--to", tmp_path / "b", "--output", "json")
    assert said.code == DONE, said
    (size,) = [file["bytes"] for file in said.report["nodes"][0]["files"] if file["path"].endswith(".incr.aof")]
    assert size == whole
    assert (await run_here(making.main, "--check", tmp_path / "b")).code == DONE


async def test_ctrl_c_ends_it_with_its_server(scripts: Scripts, tmp_path: Path) -> None:
    # So much that what verifies it is there for long enough to be seen.
    kept = await KeptStore.start(tmp_path / "server", ballast_mb=160)
    try:
        process = await scripts.start("backup", "--store", kept.server.url, "--to", tmp_path / "b")

        def hold_what_verifies() -> bool:
            """So that it can't be over before the signal."""
            held_up = False
            for pid in servers_below(tmp_path / "b"):
                with contextlib.suppress(ProcessLookupError):
                    if pid != process.pid:
                        os.kill(pid, signal.SIGSTOP)
                        held_up = True
            return held_up

        await eventually(hold_what_verifies, what="the verification")
        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert process.returncode == 130
        assert servers_below(tmp_path / "b") == []
        assert list((tmp_path / "b").iterdir()) == []
    finally:
        await kept.close()
