"""Every class of bytes flipped, cut or exchanged: a run goes on from a whole checkpoint or says why not, never from a
mixed one."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from faulty_os import Inject, injected, steps

torch = pytest.importorskip("torch")

from tenure.worker.checkpoint import (  # noqa: E402
    ExecutorCheckpoints,
    RegisteredCheckpoint,
    WrittenCheckpoint,
    write_checkpoint,
)
from tenure.worker.checkpoint.naming import local_path  # noqa: E402

pytestmark = pytest.mark.torch
__all__ = ["injected"]


def state_of(step: int) -> dict[str, Any]:
    return {"step": step, "model": torch.full((300,), float(step)), "momentum": torch.full((300,), float(step))}


def write(base: Path, step: int) -> WrittenCheckpoint:
    return write_checkpoint(str(base), "search", "0-task", 1, step, state_of(step))


def path_of(written: WrittenCheckpoint) -> Path:
    path = local_path(written.url)
    assert path is not None
    return path


def resume(base: Path, registered: list[WrittenCheckpoint]) -> tuple[Mapping[str, Any] | None, list[str]]:
    """What a run goes on from, and what it says."""
    said: list[str] = []
    run = ExecutorCheckpoints(
        base_url=str(base),
        search="search",
        task_id="0-task",
        epoch=2,
        registered=[RegisteredCheckpoint(one.url, one.digest, one.step) for one in registered],
        announce=lambda written: None,
        log=lambda event, **fields: said.append(f"{event} {fields.get('error', '')}"),
    )
    return run.load(), said


def assert_state(state: Mapping[str, Any] | None, step: int) -> None:
    assert state is not None
    assert state["step"] == step
    for name in ("model", "momentum"):
        assert torch.equal(state[name], torch.full((300,), float(step)))


def regions(path: Path) -> dict[str, range]:
    """The classes of bytes in torch's file: a zip of a pickle, the tensors, and the index at the end."""
    found: dict[str, range] = {}
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        for entry, end in zip(entries, [*(one.header_offset for one in entries[1:]), archive.start_dir], strict=True):
            data = end - entry.file_size if entry.file_size else end
            found[f"header of {entry.filename}"] = range(entry.header_offset, entry.header_offset + 30)
            if entry.file_size:
                with archive.open(entry) as stream:
                    content = stream.read()
                data = path.read_bytes().index(content, entry.header_offset)
                found[f"content of {entry.filename}"] = range(data, data + entry.file_size)
        found["zip index"] = range(archive.start_dir, size - 22)
    found["end of zip"] = range(size - 22, size)
    return found


def places(region: range) -> Iterator[int]:
    """First, last, and some between."""
    yield from sorted({region[0], region[-1], *region[:: max(1, len(region) // 5)]})


def test_any_flipped_byte_of_the_manifest_or_the_state_sends_the_run_to_the_one_before(tmp_path: Path) -> None:
    older, newest = write(tmp_path, 1), write(tmp_path, 2)
    manifest, state = path_of(newest) / "manifest.json", path_of(newest) / "state.pt"
    classes = regions(state)
    tensors = [name for name in classes if name.startswith("content of") and "/data/" in name]
    assert len(tensors) == 2
    assert {"zip index", "end of zip"} < set(classes)
    assert any(name.endswith("data.pkl") for name in classes)
    damages = [(manifest, "manifest", index) for index in range(manifest.stat().st_size)]
    damages += [(state, name, index) for name, region in classes.items() for index in places(region)]
    for path, what, index in damages:
        whole = path.read_bytes()
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0x10]) + whole[index + 1 :])
        loaded, said = resume(tmp_path, [newest, older])
        assert_state(loaded, 1)
        assert said[0].startswith("checkpoint.skipped"), f"{what}, byte {index}"
        assert f"{path.name}: SHA-256 differs" in said[0], f"{what}, byte {index}"
        path.write_bytes(whole)
    assert_state(resume(tmp_path, [newest, older])[0], 2)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("file", ["manifest.json", "state.pt"])
@pytest.mark.parametrize("damage", [_cut, _lengthen, _empty, Path.unlink])
def test_a_file_that_is_cut_lengthened_emptied_or_gone(
    file: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    older, newest = write(tmp_path, 1), write(tmp_path, 2)
    damage(path_of(newest) / file)
    loaded, said = resume(tmp_path, [newest, older])
    assert_state(loaded, 1)
    assert f"{file}: " in said[0]


def test_files_of_two_whole_checkpoints_are_never_mixed(tmp_path: Path) -> None:
    """A restored backup, a sync that did half of its work: each file is whole, and together they are nothing."""
    oldest, older, newest = write(tmp_path, 1), write(tmp_path, 2), write(tmp_path, 3)
    shutil.copy(path_of(older) / "state.pt", path_of(newest) / "state.pt")
    shutil.copy(path_of(oldest) / "manifest.json", path_of(older) / "manifest.json")
    loaded, said = resume(tmp_path, [newest, older, oldest])
    assert_state(loaded, 1)
    assert ["state.pt: SHA-256 differs" in said[0], "manifest.json: SHA-256 differs" in said[1]] == [True, True]


def test_a_whole_checkpoint_in_the_place_of_another_is_not_it(tmp_path: Path) -> None:
    older, newest = write(tmp_path, 1), write(tmp_path, 2)
    for name in ("state.pt", "manifest.json"):
        shutil.copy(path_of(older) / name, path_of(newest) / name)
    loaded, said = resume(tmp_path, [newest])
    assert loaded is None
    assert "differs from the registered digest" in said[0]
    assert said[-1].startswith("checkpoint.none_usable")


def test_when_all_are_damaged_it_says_so_for_each(tmp_path: Path) -> None:
    written = [write(tmp_path, step) for step in (3, 2, 1)]
    for one in written:
        _cut(path_of(one) / "state.pt")
    loaded, said = resume(tmp_path, written)
    assert loaded is None
    assert [line.split()[0] for line in said] == ["checkpoint.skipped"] * 3 + ["checkpoint.none_usable"]


class Died(BaseException):
    """The process is gone: nothing that comes after this reaches the disk."""


def test_dying_at_any_operation_with_tensors_the_next_run_goes_on_from_a_whole_one(
    tmp_path: Path, injected: Inject
) -> None:
    """In this process, as torch loads slowly: from the N-th operation on nothing reaches the disk."""
    resumed = []
    for n in steps():
        base = tmp_path / str(n)
        announced: list[WrittenCheckpoint] = []
        injected(lambda count, operation: None)
        run = ExecutorCheckpoints(
            base_url=str(base),
            search="search",
            task_id="0-task",
            epoch=1,
            registered=[],
            announce=announced.append,
            log=lambda event, **fields: None,
        )
        run.save(state_of(1), step=1, wait=True)

        def die(count: int, operation: str, n: int = n) -> None:
            if count >= n:
                raise Died

        faulty = injected(die)
        run.save(state_of(2), step=2)
        try:
            run.wait()
            died = False
        except Died:
            died = True
        injected(lambda count, operation: None)
        run.close()
        loaded, said = resume(base, announced[::-1])
        assert_state(loaded, len(announced))
        assert not said[0].startswith("checkpoint.skipped"), f"operation {n}: {said}"
        resumed.append(len(announced))
        if not died:
            assert len(faulty.calls) < n
            break
    assert resumed == sorted(resumed)
    assert set(resumed) == {1, 2}
