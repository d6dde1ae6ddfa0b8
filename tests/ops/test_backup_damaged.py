"""Backups that went bad where they lie: noted, told, not counted, passed over."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from kept_store import KeptStore, run_here
from ops_scripts import Said, Scripts
from safekeeping import drilling, folder, making, restoring

DONE, NO, USAGE, FAILED = 0, 1, 2, 6


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[KeptStore]:
    """A store of 40 tasks, backed up in ``backups`` twice."""
    made = await KeptStore.start(tmp_path / "server")
    for _ in range(2):
        said = await run_here(making.main, "--store", made.server.url, "--to", tmp_path / "backups")
        assert said.code == DONE, said
    yield made
    await made.close()


@pytest.fixture
def older(kept: KeptStore, tmp_path: Path) -> Path:
    return folder.backups_in(tmp_path / "backups")[0][1].path


@pytest.fixture
def newest(kept: KeptStore, tmp_path: Path) -> Path:
    return folder.backups_in(tmp_path / "backups")[0][0].path


def damage(backup: Path, name: str = "node-0/*/*.incr.aof") -> None:
    """Change one bit in the middle of a file."""
    (path,) = backup.glob(name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def samples(textfiles: Path) -> dict[str, float]:
    lines = (textfiles / "tenure_backup.prom").read_text().splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}


async def check(backup: Path, textfiles: Path, *more: str) -> Said:
    return await run_here(making.main, "--check", backup, "--textfile-dir", textfiles, *more)


async def test_a_check_that_finds_damage_is_noted_and_told(newest: Path, older: Path, tmp_path: Path) -> None:
    backups = newest.parent
    damage(newest)
    untouched = (newest / "manifest.json").read_bytes()
    said = await run_here(making.main, "--check", backups, "--dry-run")
    assert said.code == NO
    assert (newest / "manifest.json").read_bytes() == untouched

    said = await check(backups, tmp_path, "--output", "json")
    assert said.code == NO, said
    assert not said.report["verified"]
    assert "its content has changed" in said.report["violations"][0]
    assert folder.read(newest).facts["violations"] == said.report["violations"]
    figures = samples(tmp_path)
    assert figures["tenure_backup_verified"] == figures["tenure_backup_run_succeeded"] == 0
    assert figures["tenure_backup_timestamp_seconds"] == folder.read(older).moment_unix

    said = await run_here(making.main, "--list", "--to", backups)
    assert f"NOT VERIFIED: {newest}" in said.out
    assert [each.path for each in folder.surplus(backups, 1)] == []
    # Asked again, it is damaged all the same; and good again once the file is.
    assert (await check(newest, tmp_path)).code == NO
    damage(newest)
    assert (await check(newest, tmp_path)).code == DONE
    assert samples(tmp_path)["tenure_backup_verified"] == 1
    assert [each.path for each in folder.surplus(backups, 1)] == [older]


async def test_one_that_is_marked_is_passed_over_aloud(
    newest: Path, older: Path, scripts: Scripts, tmp_path: Path
) -> None:
    damage(newest)
    assert (await check(newest, tmp_path)).code == NO
    said = await run_here(restoring.main, newest.parent, "--data-dir", tmp_path / "data")
    assert said.code == DONE, said
    assert f"note: passed over {newest}: it is NOT VERIFIED: {newest}" in said.out
    assert f"{older}: " in said.out
    said = await scripts("disaster-drill", "--from", newest.parent, "--scratch", tmp_path, "--dry-run")
    assert said.code == DONE, said
    assert f"note: passed over {newest}" in said.out
    assert f"would take {older}" in said.out


async def test_one_whose_manifest_is_damaged_is_passed_over_aloud(newest: Path, older: Path, tmp_path: Path) -> None:
    damage(newest, "manifest.json")
    said = await run_here(restoring.main, newest.parent, "--data-dir", tmp_path / "data", "--dry-run")
    assert said.code == DONE, said
    assert f"note: passed over {newest / 'manifest.json'} is damaged" in said.out
    assert f"{older}: " in said.out
    # The older one is good; that the newest is not must be heard of all the same.
    said = await check(newest.parent, tmp_path)
    assert said.code == NO, said
    assert samples(tmp_path)["tenure_backup_verified"] == 0
    said = await check(newest, tmp_path)
    assert said.code == NO, said
    assert "manifest.json is damaged" in said.out
    (newest / "manifest.json").unlink()
    said = await check(newest, tmp_path)
    assert said.code == NO, said
    assert samples(tmp_path)["tenure_backup_run_succeeded"] == 0


def directory_in_place_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


def loop_in_place_of(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("spoil", [directory_in_place_of, loop_in_place_of])
async def test_one_that_cannot_be_read_at_all_blocks_none_beside_it(
    newest: Path, older: Path, scripts: Scripts, kept: KeptStore, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """The operating system's refusals, of which a missing permission is one, are no reason to give up the folder."""
    backups, manifest = newest.parent, older / "manifest.json"
    spoil(manifest)
    told = f"{manifest} can't be read: "
    said = await run_here(making.main, "--list", "--to", backups)
    assert said.code == NO, said
    assert newest.name in said.out
    assert f"note: {told}" in said.out
    said = await run_here(making.main, "--store", kept.server.url, "--to", backups, "--keep", "1")
    assert said.code == DONE, said
    assert f"note: {told}" in said.out
    assert older.exists(), "nobody knows what it is, so retention leaves it"
    said = await run_here(restoring.main, backups, "--data-dir", tmp_path / "data")
    assert said.code == DONE, said
    said = await scripts("disaster-drill", "--from", backups, "--scratch", tmp_path, "--dry-run")
    assert said.code == DONE, said
    # Itself it is refused by its name.
    said = await run_here(restoring.main, older, "--data-dir", tmp_path / "data")
    assert said.code == FAILED, said
    assert f"error: {told}" in said.err


async def test_where_the_newest_cannot_be_read_the_one_before_it_is_taken_aloud(
    newest: Path, older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file of it on a bad block; then its manifest."""
    (increment,) = newest.glob("node-0/*/*.incr.aof")
    digest_of = folder.digest_of

    def digest_but_of_one(path: Path, *more: Any) -> str:
        if path == increment:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return digest_of(path, *more)

    monkeypatch.setattr(folder, "digest_of", digest_but_of_one)
    said = await run_here(drilling.main, "--from", newest.parent, "--scratch", tmp_path, "--dry-run")
    assert said.code == DONE, said
    assert f"{increment} can't be read: Input/output error" in said.out
    assert f"would take {older}" in said.out
    said = await check(newest, tmp_path)
    assert said.code == NO, said
    said = await run_here(restoring.main, newest, "--data-dir", tmp_path / "data")
    assert said.code == FAILED, said
    assert f"The newest verified one before it is {older}\n" in said.err
    directory_in_place_of(newest / "manifest.json")
    said = await run_here(restoring.main, newest.parent, "--data-dir", tmp_path / "data")
    assert said.code == DONE, said
    assert f"note: passed over {newest / 'manifest.json'} can't be read: Is a directory" in said.out


async def test_what_nobody_has_noticed_yet_names_the_one_before_it(
    newest: Path, older: Path, scripts: Scripts, tmp_path: Path
) -> None:
    damage(newest)
    for named in (newest, newest.parent):
        said = await run_here(restoring.main, named, "--data-dir", tmp_path / "data")
        assert said.code == FAILED, said
        assert f"The newest verified one before it is {older}\n" in said.err
    assert not (tmp_path / "data" / "store").exists()
    said = await scripts("disaster-drill", "--from", newest.parent, "--scratch", tmp_path, "--output", "json")
    assert said.code == NO, said
    assert said.report["backup"] == str(older)
    (problem,) = said.report["problems"]
    assert f"{newest}: it is damaged: " in problem


async def test_where_none_is_good_all_are_named(newest: Path, older: Path, tmp_path: Path) -> None:
    for each in (newest, older):
        damage(each)
        assert (await check(each, tmp_path)).code == NO
    said = await run_here(restoring.main, newest.parent, "--data-dir", tmp_path / "data")
    assert said.code == USAGE
    assert f"{newest}: it is NOT VERIFIED" in said.err
    assert f"{older}: it is NOT VERIFIED" in said.err


async def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    for main, words in (
        (drilling.main, ["--from", tmp_path / "nobk", "--scratch", tmp_path]),
        (restoring.main, [tmp_path / "nobk", "--data-dir", tmp_path / "data"]),
        (making.main, ["--check", tmp_path / "nobk"]),
    ):
        said = await run_here(main, *words)
        assert said.code == USAGE, said
        assert f"{tmp_path / 'nobk'} does not exist" in said.err


async def test_a_note_replaces_the_manifest_or_leaves_it(
    newest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it goes wrong, what is there can be read."""
    before = json.loads((newest / "manifest.json").read_text())
    damage(newest)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.os, "fsync", full)
    assert (await check(newest, tmp_path)).code == FAILED
    assert json.loads((newest / "manifest.json").read_text()) == before
    assert [path.name for path in newest.iterdir() if path.is_file()] == ["manifest.json"]
    assert samples(tmp_path)["tenure_backup_run_succeeded"] == 0
