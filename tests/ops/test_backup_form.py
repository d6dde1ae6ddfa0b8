"""A backup that somebody has put together by hand: it leads neither restore, drill nor check to another place."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kept_store import KeptStore, run_here
from ops_scripts import Scripts
from safekeeping import appendonly, console, folder, making, restoring
from safekeeping.appendonly import FOLDER, MANIFEST

DONE, NO, FAILED = 0, 1, 6
PLANTED = b"* * * * * root id\n"

Craft = Callable[[Path, dict[str, Any]], None]


def file_outside(backup: Path, facts: dict[str, Any]) -> None:
    facts["nodes"][0]["files"].append(
        {"path": "../../planted/x", "bytes": len(PLANTED), "sha256": hashlib.sha256(PLANTED).hexdigest()}
    )


def node_outside(backup: Path, facts: dict[str, Any]) -> None:
    shutil.copytree(backup / "node-0", backup.parent / "planted" / "node")
    facts["nodes"][0]["name"] = "../planted/node"


def absolute_file(backup: Path, facts: dict[str, Any]) -> None:
    file_outside(backup, facts)
    facts["nodes"][0]["files"][-1]["path"] = str(backup.parent / "planted" / "x")


def linked_file(backup: Path, facts: dict[str, Any]) -> None:
    path = backup / "node-0" / facts["nodes"][0]["files"][0]["path"]
    path.rename(backup.parent / "planted" / "file")
    path.symlink_to(backup.parent / "planted" / "file")


def linked_folder(backup: Path, facts: dict[str, Any]) -> None:
    (backup / "node-0").rename(backup.parent / "planted" / "node")
    (backup / "node-0").symlink_to(backup.parent / "planted" / "node")


def part_outside(backup: Path, facts: dict[str, Any]) -> None:
    """By the manifest of the append-only folder, which names files, too."""
    inner = backup / "node-0" / FOLDER / MANIFEST
    inner.write_text(f"{inner.read_text()}file ../../planted/x seq 9 type i\n")
    (entry,) = [file for file in facts["nodes"][0]["files"] if file["path"] == f"{FOLDER}/{MANIFEST}"]
    entry |= {"bytes": inner.stat().st_size, "sha256": folder.digest_of(inner)}


CRAFTS: list[tuple[Craft, str]] = [
    (file_outside, "nodes[0].files[3].path is '../../planted/x'; expected: a file in appendonlydir/"),
    (node_outside, "nodes[0].name is '../planted/node'; expected: node-0, node-1, …"),
    (absolute_file, "nodes[0].files[3].path is '/"),
    (linked_file, "is a symbolic link"),
    (linked_folder, "node-0 is a symbolic link"),
    (part_outside, "'../../planted/x'"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup as it should be."""
    root = tmp_path_factory.mktemp("whole")

    async def make() -> None:
        kept = await KeptStore.start(root / "server")
        try:
            said = await run_here(making.main, "--store", kept.server.url, "--to", root / "backups")
            assert said.code == DONE, said
        finally:
            await kept.close()

    asyncio.run(make())
    (backup,) = (root / "backups").glob("tenure-*")
    return backup


def crafted(whole: Path, tmp_path: Path, craft: Craft) -> Path:
    """A copy that was changed, with a manifest that fits. ``planted`` is beside it, and wherever it may be brought."""
    for name in ("backups", "data"):
        (tmp_path / name / "planted").mkdir(parents=True)
    (tmp_path / "planted").mkdir()
    (tmp_path / "backups" / "planted" / "x").write_bytes(PLANTED)
    backup = tmp_path / "backups" / whole.name
    shutil.copytree(whole, backup)
    facts = json.loads((backup / "manifest.json").read_text())
    del facts["sha256"]
    craft(backup, facts)
    folder.write_facts(backup, facts)
    return backup


@pytest.mark.parametrize(("craft", "told"), CRAFTS, ids=[craft.__name__ for craft, _ in CRAFTS])
async def test_nothing_is_written_or_read_outside(
    whole: Path, tmp_path: Path, scripts: Scripts, craft: Craft, told: str
) -> None:
    backup = crafted(whole, tmp_path, craft)
    data, scratch = tmp_path / "data", tmp_path / "scratch"
    scratch.mkdir()
    for said in (
        await run_here(restoring.main, backup, "--data-dir", data),
        await run_here(restoring.main, backup, "--files-into", data / "redis"),
        await scripts("disaster-drill", "--from", backup, "--scratch", scratch),
    ):
        assert said.code == FAILED, said
        assert told in said.err
        assert "Traceback" not in said.err
    assert [*(tmp_path / "planted").iterdir(), *(data / "planted").iterdir(), *scratch.iterdir()] == []
    assert not (data / "store").exists()
    said = await run_here(making.main, "--check", backup)
    assert said.code == NO, said
    assert told in said.out
    assert [each for each in folder.backups_in(backup.parent)[0] if each.verified] == []


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("nodes", [], "nodes is []; expected: a list of nodes"),
        ("nodes", "x" * 1000, "…; expected: a list of nodes"),
        ("verified", "yes", "verified is 'yes'; expected: true or false"),
        ("states", {"QUEUED": "many"}, "states is {'QUEUED': 'many'}; expected: numbers by state"),
        ("store", {"prefix": "tenure"}, "store.shards is missing; expected: a number from 1"),
    ],
)
def test_what_no_backup_has_is_named(whole: Path, tmp_path: Path, field: str, value: Any, told: str) -> None:
    backup = crafted(whole, tmp_path, lambda _, facts: facts.update({field: value}))
    with pytest.raises(console.Failed) as caught:
        folder.read(backup)
    assert told in str(caught.value)


def test_two_nodes_and_two_files_have_two_names(whole: Path, tmp_path: Path) -> None:
    backup = crafted(whole, tmp_path, lambda _, facts: facts["nodes"].append(facts["nodes"][0]))
    with pytest.raises(console.Failed, match="nodes is with 'node-0' twice"):
        folder.read(backup)


def test_a_backup_that_is_whole_is_read_through_a_link_to_it(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "newest").symlink_to(whole)
    assert folder.read(tmp_path / "newest").verified
    assert [part.kind for part in appendonly.parts_of((whole / "node-0" / FOLDER / MANIFEST).read_text())] == ["b", "i"]
