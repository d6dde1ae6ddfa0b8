"""What backup, restore, drill and support-bundle refuse, by its name, and before anything is begun."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kept_store import KeptStore, run_here
from safekeeping import bundling, drilling, making, restoring

from tenure.common.directory_lock import DirectoryLock

DONE, NO, USAGE, REFUSED = 0, 1, 2, 5
SCRIPTS = Path(__file__).resolve().parents[2] / "ops" / "scripts"


@pytest.mark.parametrize("method", ["files", "replication"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_disk_that_fills_up_is_named_and_not_tried_again(
    kept: KeptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: int
) -> None:
    tried = []

    def full(descriptor: int) -> None:
        tried.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    to = tmp_path / "b"
    said = await run_here(making.main, "--store", kept.server.url, "--to", to, "--method", method)
    assert said.code == REFUSED, said
    assert f"error: --to {to} is full ({os.strerror(number)}" in said.err
    assert len(tried) == 1
    assert list(to.iterdir()) == []


async def test_where_no_backups_can_be_is_refused_by_name(kept: KeptStore, tmp_path: Path) -> None:
    data, file = tmp_path / "master", tmp_path / "file"
    file.write_text("x")
    data.mkdir()
    lock = DirectoryLock(data, "master.lock")
    assert lock.acquire()
    try:
        told = [
            (data, REFUSED, f"--to {data} is a master's data directory"),
            (file, USAGE, f"{file} is a file"),
            (file / "x", USAGE, f"{file} is a file"),
            (Path("/proc/x"), REFUSED, "/proc/x can't be made"),
        ]
        before = sorted(data.iterdir())
        for to, code, line in told:
            said = await run_here(making.main, "--store", kept.server.url, "--to", to)
            assert said.code == code, said
            assert line in said.err or (str(to) in said.err and "can't be written" in said.err), said
        assert sorted(data.iterdir()) == before
    finally:
        lock.release()


@pytest.mark.parametrize("target", ["--data-dir", "--files-into"])
async def test_where_no_store_can_be_put_is_refused_by_name(kept: KeptStore, tmp_path: Path, target: str) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert (await run_here(making.main, "--store", kept.server.url, "--to", tmp_path / "b")).code == DONE
    for at, code, told in (
        (Path("/proc/x/y"), REFUSED, f"{target} /proc/x/y: "),
        (file, USAGE, f"{target} {file}: {file} is a file; give a folder"),
        (file / "x", USAGE, f"{target} {file / 'x'}: {file} is a file; give a folder"),
    ):
        said = await run_here(restoring.main, tmp_path / "b", target, at)
        assert said.code == code, said
        assert told in said.err


async def test_what_this_user_may_not_is_refused_and_blocks_nothing_else(kept: KeptStore, tmp_path: Path) -> None:
    """In processes that can't override permissions, as root does."""
    backups, locked = tmp_path / "b", tmp_path / "locked"
    for _ in range(2):
        assert (await run_here(making.main, "--store", kept.server.url, "--to", backups)).code == DONE
    older, _ = sorted(backups.iterdir(), key=lambda path: path.stat().st_mtime)
    locked.mkdir(mode=0o000)
    bounds = "-dac_override,-dac_read_search"
    without = ["setpriv", "--bounding-set", bounds, "--inh-caps", bounds] if os.geteuid() == 0 else []

    async def run(script: str, *words: str | Path) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *without, sys.executable, SCRIPTS / script, *words, stdout=PIPE, stderr=STDOUT
        )
        out, _ = await process.communicate()
        return process.returncode, out.decode()

    for words in (("restore", backups, "--data-dir", locked / "data"), ("backup", "--to", locked / "b")):
        code, told = await run(*words)
        assert code == REFUSED, told
        assert f"{words[-1]}: {locked} can't be written by this user; give another folder" in told
    (older / "manifest.json").chmod(0o000)
    code, told = await run("restore", backups, "--data-dir", tmp_path / "data")
    assert code == DONE, told
    code, told = await run("backup", "--list", "--to", backups)
    assert code == NO
    assert f"note: {older / 'manifest.json'} can't be read: Permission denied" in told


async def test_backups_are_not_kept_in_what_they_are_of(kept: KeptStore, tmp_path: Path) -> None:
    """Whatever takes the one would take the other."""
    inside = tmp_path / "server" / "backups"
    (tmp_path / "elsewhere").symlink_to(tmp_path / "server")
    for to in (inside, tmp_path / "elsewhere" / "backups"):
        for more in ([], ["--dry-run"]):
            said = await run_here(making.main, "--store", kept.server.url, "--to", to, *more)
            assert said.code == REFUSED, said
            assert f"--to {to} is inside {tmp_path / 'server'}, which it is to be a backup of" in said.err
    said = await run_here(making.main, "--data-dir", tmp_path / "master", "--to", tmp_path / "master" / "b")
    assert said.code == REFUSED, said
    assert f"is inside {tmp_path / 'master'}, which it is to be a backup of" in said.err
    assert not inside.exists()
    assert not (tmp_path / "master").exists()


async def test_a_collectors_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    """It isn't made: a mistyped one would be written to for ever, and collected never."""
    textfiles = tmp_path / "textfile"
    said = await run_here(making.main, "--to", tmp_path / "b", "--textfile-dir", textfiles)
    assert said.code == USAGE, said
    assert f"--textfile-dir {textfiles} does not exist" in said.err
    assert not textfiles.exists()


@pytest.mark.parametrize(
    ("main", "words", "told"),
    [
        (making.main, ["--to", "b", "--keep", "x"], "argument --keep: 'x' is no whole number from 0"),
        (making.main, ["--to", "b", "--keep", "-1"], "argument --keep: '-1' is no whole number from 0"),
        (making.main, ["--to", "b", "--server-binary", "/nope"], "--server-binary: '/nope' is no program"),
        (restoring.main, ["b", "--data-dir", "d", "--server-binary", "/nope"], "'/nope' is no program"),
        (drilling.main, ["--from", "b", "--server-binary", "/nope"], "'/nope' is no program"),
        (drilling.main, ["--from", "b", "--rto-max", "-3"], "--rto-max: '-3' is no number of seconds above 0"),
        (drilling.main, ["--from", "b", "--rpo-max", "nan"], "--rpo-max: 'nan' is no number of seconds above 0"),
        (bundling.main, ["--since", "5x"], "argument --since: '5x' is no length of time, as in 2d"),
    ],
)
def test_what_an_option_cannot_be_is_said_at_the_start(
    main: Callable[[list[str]], int], words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == USAGE
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("since", ["24h", "2d", "90min", "1h30min", "1h 30min", "2 weeks"])
def test_spans_of_journals_are_taken(since: str) -> None:
    assert bundling.parser().parse_args(["--since", since]).since == since


async def test_a_bundle_writes_over_nothing(tmp_path: Path) -> None:
    there = tmp_path / "b.tar.gz"
    there.write_text("another")
    cases: list[tuple[Any, int, str]] = [
        (there, REFUSED, f"--out {there} is there already"),
        (tmp_path, USAGE, f"--out {tmp_path} is a directory"),
        (tmp_path / "no" / "b.tar.gz", USAGE, f"{tmp_path / 'no'} is no directory"),
    ]
    for out, code, told in cases:
        for more in ([], ["--dry-run"]):
            said = await run_here(bundling.main, "--out", out, *more)
            assert said.code == code, said
            assert told in said.err
    assert there.read_text() == "another"


async def test_a_plan_to_restore_says_what_is_moved_aside_only_if_something_is(
    kept: KeptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (await run_here(making.main, "--store", kept.server.url, "--to", "b")).code == DONE
    plan = ("b", "--data-dir", "data", "--dry-run")
    said = await run_here(restoring.main, *plan)
    assert "would put it at data/store\n" in said.out
    done = await run_here(restoring.main, *plan[:-1])
    assert done.code == DONE, done
    assert f"to undo it, with no master running: rm -rf -- {tmp_path}/data/store\n" in done.out
    said = await run_here(restoring.main, *plan)
    assert "would put it at data/store, and move aside what stands there\n" in said.out
