"""Room on a worker's disks, and file systems that don't answer."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tenure.worker import disks
from tenure.worker.disks import Disks


def test_a_place_that_does_not_exist_yet_is_on_its_parents_disk(tmp_path: Path) -> None:
    free = Disks({"work_dir": tmp_path, "checkpoints": tmp_path / "not" / "yet"}).free_bytes()
    assert set(free) == {"work_dir", "checkpoints"}
    assert all(figure > 0 for figure in free.values())


def test_a_file_system_that_hangs_holds_nothing_up_and_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, asked = threading.Event(), []
    honest = shutil.disk_usage

    def usage(path: Path) -> Any:
        if path.name == "dead":
            asked.append(path)
            answer.wait()
        return honest(tmp_path)

    monkeypatch.setattr(disks.shutil, "disk_usage", usage)
    monkeypatch.setattr(disks, "_ANSWER_SECONDS_MAX", 0.05)
    room = Disks({"work_dir": tmp_path, "checkpoints": tmp_path / "dead"})
    assert set(room.free_bytes()) == {"work_dir"}
    assert set(room.free_bytes()) == {"work_dir"}
    assert len(asked) == 1
    answer.set()
    room._asking["checkpoints"].join()
    assert set(room.free_bytes()) == {"work_dir", "checkpoints"}
