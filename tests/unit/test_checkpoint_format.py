"""What lies on storage, and that a reader takes nothing that isn't exactly what was written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenure.common.errors import CheckpointError, CorruptCheckpoint, InvalidInput
from tenure.worker.checkpoint import (
    WrittenCheckpoint,
    delete_checkpoint,
    load_newest,
    read_checkpoint,
    read_manifest,
    write_checkpoint,
)
from tenure.worker.checkpoint.manifest import digest_of
from tenure.worker.checkpoint.naming import local_path, parse_name, safe_segment, split_checkpoint_url

STATE: dict[str, Any] = {"epoch": 3, "rate": 0.1, "names": ["a", "ü"], "deep": {"none": None, "yes": True}}


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an executor whose evaluator uses no torch; other tests of this process may have loaded it."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.fixture(params=["local", "remote"])
def base_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A plain directory, and an fsspec storage without rename."""
    return str(tmp_path / "checkpoints") if request.param == "local" else f"memory://{tmp_path}"


def write(base_url: str, *, task_id: str = "0-task", step: int = 7, score: float | None = 0.5) -> WrittenCheckpoint:
    return write_checkpoint(base_url, "search", task_id, 2, step, STATE, score)


def directory(written: WrittenCheckpoint) -> Path:
    path = local_path(written.url)
    assert path is not None
    return path


def test_a_state_comes_back_as_it_was(base_url: str) -> None:
    written = write(base_url)
    assert read_checkpoint(written.url, written.digest) == STATE


def test_names_and_manifest_say_what_it_is(base_url: str) -> None:
    written = write(base_url)
    directory_url, name = split_checkpoint_url(written.url)
    assert directory_url.endswith("/search/0-task")
    assert (name.step, name.epoch) == (7, 2)
    manifest = read_manifest(written.url, written.digest)
    assert (manifest.search, manifest.task_id, manifest.step, manifest.epoch) == ("search", "0-task", 7, 2)
    assert manifest.score == written.score == 0.5
    assert manifest.state.size_bytes < written.size_bytes


def test_only_the_two_files_lie_there(tmp_path: Path) -> None:
    written = write(str(tmp_path))
    assert sorted(path.name for path in directory(written).iterdir()) == ["manifest.json", "state.json"]
    assert [path.name for path in directory(written).parent.iterdir()] == [directory(written).name]
    manifest = (directory(written) / "manifest.json").read_bytes()
    assert digest_of(manifest) == written.digest
    assert sum(path.stat().st_size for path in directory(written).iterdir()) == written.size_bytes


def test_a_relative_base_is_registered_as_an_absolute_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b%20#é").mkdir()
    monkeypatch.chdir(tmp_path / "a b%20#é")
    written = write("checkpoints")
    monkeypatch.chdir("/")
    assert written.url.startswith("file:///")
    assert directory(written).is_dir()
    assert read_checkpoint(written.url, written.digest) == STATE


@pytest.mark.parametrize(
    "text", ["../../etc", "a/b", ".", "..", ".hidden", "ü" * 60, "a b", "x\u202ey", "-rf", "~root"]
)
def test_hostile_names_become_one_safe_segment(text: str, tmp_path: Path) -> None:
    segment = safe_segment(text)
    assert "/" not in segment
    assert not segment.startswith((".", "-"))
    assert segment != safe_segment(segment), "a safe form can't be chosen as a name"
    written = write_checkpoint(str(tmp_path), text, text, 1, 1, STATE)
    assert directory(written).parent.parent.parent == tmp_path
    assert read_checkpoint(written.url, written.digest) == STATE


@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
def test_every_flipped_byte_is_noticed(name: str, tmp_path: Path) -> None:
    written = write(str(tmp_path))
    path = directory(written) / name
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0x41]) + whole[index + 1 :])
        with pytest.raises(CorruptCheckpoint, match=f"{name}: SHA-256 differs"):
            read_checkpoint(written.url, written.digest)
    path.write_bytes(whole)
    assert read_checkpoint(written.url, written.digest) == STATE


@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), id="shorter"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes() + b" "), id="longer"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.unlink(), id="missing"),
        pytest.param(lambda path: path.write_bytes(bytes(100_000)), id="zeros"),
    ],
)
def test_damage_is_named(name: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    written = write(str(tmp_path))
    damage(directory(written) / name)
    with pytest.raises(CorruptCheckpoint) as caught:
        read_checkpoint(written.url, written.digest)
    assert caught.value.field == f"{written.url}/{name}"
    assert caught.value.message.startswith(("SHA-256 differs", "size differs", "is missing", "is too long"))


def forge(written: WrittenCheckpoint, **changes: Any) -> str:
    """Rewrite the manifest with ``changes``; the digest of the forgery."""
    path = directory(written) / "manifest.json"
    fields = json.loads(path.read_bytes())
    fields["state"].update(changes.pop("state", {}))
    data = json.dumps(fields | changes).encode()
    path.write_bytes(data)
    return digest_of(data)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"format_version": 2}, CheckpointError, "unknown format version"),
        ({"format": "zip"}, CorruptCheckpoint, "is not a checkpoint's manifest"),
        ({"state": {"name": "../../../secret"}}, CorruptCheckpoint, "names an unknown state file"),
        ({"state": {"name": "/etc/passwd"}}, CorruptCheckpoint, "names an unknown state file"),
        ({"state": {"encoding": "pickle"}}, CorruptCheckpoint, "names an unknown state file"),
        ({"state": {"name": "state.pt"}}, CorruptCheckpoint, "names an unknown state file"),
        ({"state": {"size_bytes": "10"}}, CorruptCheckpoint, "size_bytes is missing or of the wrong type"),
        ({"state": {"sha256": "00"}}, CorruptCheckpoint, "sha256 is no SHA-256"),
        ({"step": None}, CorruptCheckpoint, "step is missing or of the wrong type"),
        ({"epoch": True}, CorruptCheckpoint, "epoch is missing or of the wrong type"),
    ],
)
def test_a_manifest_that_is_registered_but_wrong_is_refused(
    changes: dict[str, Any], error: type[CheckpointError], message: str, tmp_path: Path
) -> None:
    written = write(str(tmp_path))
    digest = forge(written, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(written.url, digest)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///tmp",
        "step-00000001-epoch-1-0123456789abcdef",
        "file:///a/../b/step-00000001-epoch-1-0123456789abcdef",
        "file:///a/%2e%2e/b/step-00000001-epoch-1-0123456789abcdef",
        "file:///a/step-00000001-epoch-1-0123456789ABCDEF",
        "file:///a/step-1-epoch-1-0123456789abcdef",
        "file://other-host/a/step-00000001-epoch-1-0123456789abcdef",
    ],
)
def test_urls_that_are_no_checkpoints_are_refused(url: str) -> None:
    for refuse in (lambda: read_checkpoint(url, "0" * 64), lambda: delete_checkpoint(url)):
        with pytest.raises(CheckpointError) as caught:
            refuse()
        assert not isinstance(caught.value, CorruptCheckpoint)


def test_an_unknown_storage_is_an_error_not_a_missing_checkpoint() -> None:
    url = "nosuch://bucket/search/0-task/step-00000001-epoch-1-0123456789abcdef"
    with pytest.raises(CheckpointError, match="storage can't be used"):
        load_newest([(url, "0" * 64)])
    with pytest.raises(CheckpointError, match="could not be written"):
        write("nosuch://bucket")


def test_load_newest_skips_what_is_damaged(base_url: str) -> None:
    old, new = write(base_url, step=1), write(base_url, step=2)
    registered = [(new.url, new.digest), (old.url, old.digest)]
    skipped: list[dict[str, Any]] = []

    def log(event: str, **fields: Any) -> None:
        assert event == "checkpoint.skipped"
        skipped.append(fields)

    loaded = load_newest(registered, log)
    assert loaded is not None
    assert (loaded.which, skipped) == (0, [])
    loaded = load_newest([(new.url, "0" * 64), (old.url, old.digest)], log)
    assert loaded is not None
    assert (loaded.which, loaded.state) == (1, STATE)
    assert [line["url"] for line in skipped] == [new.url]
    delete_checkpoint(new.url)
    delete_checkpoint(old.url)
    assert load_newest(registered) is None
    assert load_newest([]) is None


def test_an_unreadable_storage_is_not_a_fresh_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = write(str(tmp_path), step=1), write(str(tmp_path), step=2)
    registered = [(new.url, new.digest), (old.url, old.digest)]
    # A directory where the state file should be: opening it fails, though not because it is missing.
    (directory(new) / "state.json").unlink()
    (directory(new) / "state.json").mkdir()
    loaded = load_newest(registered)
    assert loaded is not None
    assert loaded.which == 1
    delete_checkpoint(old.url)
    with pytest.raises(CheckpointError, match="can't be read"):
        load_newest(registered)


class Number(float):
    """Is a float, and yet not one that can be read back as such."""


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"a": {"b": [1, {2}]}}, r"state\.a\.b\[1\]"),
        ({"a": Number(1)}, r"state\.a"),
        ({"a": (1, 2)}, r"state\.a"),
        ({"a": b"bytes"}, r"state\.a"),
        ({"a": {1: 2}}, r"state\.a"),
        ({1: 2}, "state"),
        ([1], "state"),
    ],
)
def test_a_state_that_could_not_be_read_back_is_refused(state: Any, where: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=rf"^{where}: "):
        write_checkpoint(str(tmp_path), "search", "0-task", 1, 1, state)
    assert list(tmp_path.iterdir()) == []


def test_a_state_without_an_end_is_refused(tmp_path: Path) -> None:
    state: dict[str, Any] = {}
    state["again"] = state
    with pytest.raises(InvalidInput, match="nested deeper than"):
        write_checkpoint(str(tmp_path), "search", "0-task", 1, 1, state)


@pytest.mark.parametrize(
    ("numbers", "field"),
    [
        ({"epoch": -1}, "epoch"),
        ({"step": 2**63}, "step"),
        ({"step": 1.0}, "step"),
        ({"step": True}, "step"),
        ({"score": float("nan")}, "score"),
        ({"score": "1"}, "score"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, Any], field: str, tmp_path: Path) -> None:
    given = {"epoch": 1, "step": 1, "score": None} | numbers
    with pytest.raises(InvalidInput) as caught:
        write_checkpoint(str(tmp_path), "search", "0-task", state=STATE, **given)
    assert caught.value.field == field


def test_an_evaluator_without_torch_never_imports_it(tmp_path: Path) -> None:
    program = f"""
import sys
from tenure.worker.checkpoint import delete_checkpoint, read_checkpoint, write_checkpoint
written = write_checkpoint({str(tmp_path)!r}, "search", "0-task", 1, 1, {{"a": 1}})
assert read_checkpoint(written.url, written.digest) == {{"a": 1}}
delete_checkpoint(written.url)
assert not {{"torch", "numpy", "grpc", "asyncio", "fsspec"}} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_deleting_is_idempotent_and_leaves_nothing(base_url: str, tmp_path: Path) -> None:
    written, other = write(base_url), write(base_url)
    delete_checkpoint(written.url)
    delete_checkpoint(written.url)
    with pytest.raises(CorruptCheckpoint, match="is missing"):
        read_checkpoint(written.url, written.digest)
    assert read_checkpoint(other.url, other.digest) == STATE
    delete_checkpoint(other.url)
    if (path := local_path(other.url)) is not None:
        assert not path.parent.exists(), "the task's directory goes with its last checkpoint"


@pytest.mark.parametrize("foreign", ["thesis.tex", "state.json.bak", "sub/file"])
def test_a_directory_with_anything_else_in_it_is_never_deleted(foreign: str, tmp_path: Path) -> None:
    written = write(str(tmp_path))
    path = directory(written) / foreign
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(CheckpointError, match="never wrote"):
        delete_checkpoint(written.url)
    assert path.read_text() == "mine"
    assert read_checkpoint(written.url, written.digest) == STATE


def test_links_are_not_followed(tmp_path: Path) -> None:
    written = write(str(tmp_path / "a"))
    link = tmp_path / "b" / directory(written).name
    link.parent.mkdir()
    link.symlink_to(directory(written))
    with pytest.raises(CheckpointError, match="never wrote"):
        delete_checkpoint(link.as_uri())
    outside = tmp_path / "outside"
    outside.write_text("mine")
    inside = directory(written) / "state.json"
    inside.unlink()
    inside.symlink_to(outside)
    with pytest.raises(CheckpointError, match="never wrote"):
        delete_checkpoint(written.url)
    assert outside.read_text() == "mine"


def test_a_corrupt_checkpoint_can_be_deleted(tmp_path: Path) -> None:
    written = write(str(tmp_path))
    (directory(written) / "manifest.json").write_bytes(b"\0")
    delete_checkpoint(written.url)
    assert not directory(written).exists()


def test_names_parse_only_in_full() -> None:
    name = "step-00000007-epoch-2-0123456789abcdef"
    assert str(parse_name(name)) == name
    for wrong in (name + "\n", " " + name, name + "x", name[:-1], name.upper()):
        assert parse_name(wrong) is None
