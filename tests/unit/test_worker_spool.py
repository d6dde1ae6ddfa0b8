"""The spool: what is in it survives, and a full disk doesn't lose a result."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tenure.proto import worker_pb2 as pb
from tenure.worker import spool as spool_module
from tenure.worker.leases import LeaseKey
from tenure.worker.spool import RESERVE_BYTES, Spool


def outcome(task_id: str, token: str = "t", detail: str = "") -> pb.Outcome:
    return pb.Outcome(
        task_id=task_id, lease_token=token, kind=pb.OUTCOME_SUCCESS, metrics={"fitness": 0.5}, detail=detail
    )


async def open_spool(directory: Path, reserve: int = 2) -> Spool:
    spool = Spool(directory, reserve)
    await spool.open()
    return spool


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no file can be made."""
    real_open = os.open

    def full(path: object, flags: int, *args: int, **kwargs: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_open(path, flags, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(spool_module.os, "open", full)


async def test_outcomes_survive_the_process_in_the_order_they_ended(tmp_path: Path) -> None:
    spool = await open_spool(tmp_path)
    kept = [outcome(f"task {n}/ü", token=str(n)) for n in range(5)]
    for one in kept:
        await spool.put(one)
    spool.forget(LeaseKey("task 1/ü", "1"))
    await spool.close()
    again = await open_spool(tmp_path)
    assert again.pending() == [one for one in kept if one.lease_token != "1"]
    assert LeaseKey("task 0/ü", "0") in again
    await again.close()


async def test_two_leases_of_one_task_are_two_outcomes(tmp_path: Path) -> None:
    spool = await open_spool(tmp_path)
    await spool.put(outcome("a", "1"))
    await spool.put(outcome("a", "2"))
    spool.forget(LeaseKey("a", "1"))
    assert [one.lease_token for one in spool.pending()] == ["2"]
    await spool.close()


async def test_acknowledged_waits_for_the_verdict(tmp_path: Path) -> None:
    spool = await open_spool(tmp_path)
    key = LeaseKey("a", "t")
    assert await spool.acknowledged(key, 0)
    await spool.put(outcome("a"))
    assert not await spool.acknowledged(key, 0.01)
    assert not await spool.acknowledged(None, 0.01)
    spool.forget(key)
    assert await spool.acknowledged(key, 0)
    assert await spool.acknowledged(None, 0)
    await spool.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-300_000] if len(data) > 300_000 else data[:40],
        lambda data: b"",
        lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
        lambda data: b"SOMETHING-ELSE-1" + data[16:],
        lambda data: data[:16] + b"\xff\xff\xff\xff" + data[20:],
    ],
)
async def test_a_damaged_file_is_set_aside_and_the_others_are_read(tmp_path: Path, damage: object) -> None:
    spool = await open_spool(tmp_path)
    await spool.put(outcome("a"))
    (path,) = tmp_path.glob("*.outcome")
    await spool.put(outcome("b"))
    await spool.close()
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    again = await open_spool(tmp_path)
    assert [one.task_id for one in again.pending()] == ["b"]
    assert len(list(tmp_path.glob("*.corrupt"))) == 1
    await again.close()


async def test_a_full_disk_takes_as_many_outcomes_as_are_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = await open_spool(tmp_path, reserve=2)
    assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == [RESERVE_BYTES, RESERVE_BYTES]
    fill_disk(monkeypatch)
    for name in ("a", "b", "c"):
        await spool.put(outcome(name))
    assert spool.write_failures == 1
    assert len(spool) == 3, "the third is kept in memory"
    spool.forget(LeaseKey("c", "t"))
    spool.forget(LeaseKey("a", "t"))
    await spool.put(outcome("d"))
    assert spool.write_failures == 1, "a forgotten outcome's file is reserved again"
    await spool.close()
    monkeypatch.undo()
    again = await open_spool(tmp_path)
    assert [one.task_id for one in again.pending()] == ["b", "d"]
    await again.close()


async def test_a_full_disk_keeps_no_outcome_from_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = await open_spool(tmp_path, reserve=2)
    await spool.put(outcome("a"))
    await spool.close()
    fill_disk(monkeypatch)
    again = await open_spool(tmp_path, reserve=2)
    assert again.pending() == [outcome("a")]
    again.forget(LeaseKey("a", "t"))
    for name in ("b", "c"):
        await again.put(outcome(name))
    assert again.write_failures == 0, "the reserve is whole again"
    await again.close()


async def test_a_full_disk_with_nothing_to_deliver_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch)
    with pytest.raises(OSError, match="No space"):
        await open_spool(tmp_path)


async def test_outcomes_beyond_the_reserve_and_larger_than_it_are_kept_too(tmp_path: Path) -> None:
    spool = await open_spool(tmp_path, reserve=1)
    big = outcome("big", detail="x" * (2 * RESERVE_BYTES))
    await spool.put(big)
    await spool.put(outcome("small"))
    await spool.close()
    again = await open_spool(tmp_path, reserve=1)
    assert again.pending() == [big, outcome("small")]
    again.forget(LeaseKey("big", "t"))
    again.forget(LeaseKey("small", "t"))
    await again.put(outcome("reused"))
    await again.close()
    third = await open_spool(tmp_path, reserve=1)
    assert third.pending() == [outcome("reused")], "what was in the file before is not read"
    await third.close()


async def test_a_directory_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        await open_spool(tmp_path / "file" / "spool")
