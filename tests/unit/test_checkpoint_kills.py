"""A process dies before the N-th file-system operation of its writing thread, for every N; then the next run loads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from faulty_os import OPERATIONS, steps

from tenure.worker.checkpoint import ExecutorCheckpoints, RegisteredCheckpoint, WrittenCheckpoint
from tenure.worker.checkpoint.naming import parse_name


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def task_directory(base: Path) -> Path:
    return base / "search" / "0-task"


def finished(base: Path) -> list[Path]:
    """Directories under a final name."""
    directory = task_directory(base)
    return [path for path in directory.iterdir() if parse_name(path.name)] if directory.exists() else []


def files(base: Path) -> list[Path]:
    return [path for path in base.rglob("*") if path.is_file()]


KILLED_WRITER = """
import json, os, signal, sys
from tenure.worker.checkpoint import ExecutorCheckpoints, RegisteredCheckpoint, local, delete_checkpoint

base, last, operations, action = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(","), sys.argv[4]
count = 0

class DeadlyOs:
    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in operations:
            return real
        def operation(*args, **kwargs):
            global count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        return operation

def announce(written):
    with open(base + ".announced", "a") as file:
        file.write(json.dumps(vars(written)) + "\\n")
    announced.append(written)

announced = []
run = ExecutorCheckpoints(
    base_url=base, search="search", task_id="0-task", epoch=1, registered=[], announce=announce, log=lambda *a, **k: 0
)
state = lambda step: {"step": step, "weights": [step] * 200}
run.save(state(1), step=1)
run.wait()
local.os = DeadlyOs()
if action == "delete":
    delete_checkpoint(announced[0].url)
else:
    run.save(state(2), step=2)
    run.wait()
os._exit(0)
"""


def announced_in(base: Path) -> list[WrittenCheckpoint]:
    lines = Path(f"{base}.announced").read_text().splitlines()
    return [WrittenCheckpoint(**json.loads(line)) for line in lines]


def next_run(base: Path, announced: list[WrittenCheckpoint]) -> tuple[Mapping[str, Any] | None, list[str]]:
    """What the next holder of the lease goes on from, and what it says; its first save sweeps."""
    said: list[str] = []
    run = ExecutorCheckpoints(
        base_url=str(base),
        search="search",
        task_id="0-task",
        epoch=2,
        registered=[RegisteredCheckpoint(one.url, one.digest, one.step) for one in reversed(announced)],
        announce=lambda written: None,
        log=lambda event, **fields: said.append(f"{event} {fields}"),
    )
    try:
        state = run.load()
        run.save({"step": 99}, step=99, wait=True)
        return state, said
    finally:
        run.close()


def killed_at(n: int, base: Path, action: str) -> int:
    arguments = [str(base), str(n), ",".join(OPERATIONS), action]
    return subprocess.run([sys.executable, "-c", KILLED_WRITER, *arguments], timeout=60).returncode


def test_killed_before_any_operation_of_the_writing_thread_the_next_run_goes_on_from_a_whole_one(
    tmp_path: Path,
) -> None:
    resumed = []
    for n in steps():
        base = tmp_path / str(n)
        died = killed_at(n, base, "write")
        announced = announced_in(base)
        state, said = next_run(base, announced)
        assert state == {"step": len(announced), "weights": [len(announced)] * 200}, f"operation {n}: {said}"
        resumed.append(len(announced))
        # Swept: what was not announced. What stays is what was, and the next run's own.
        assert len(finished(base)) == len(announced) + 1
        assert not [path for path in task_directory(base).iterdir() if not parse_name(path.name)]
        if died == 0:
            break
        assert died == -9
    assert resumed == sorted(resumed)
    assert set(resumed) == {1, 2}


def test_killed_before_any_operation_of_a_deletion_it_is_whole_or_gone(tmp_path: Path) -> None:
    kept = []
    for n in steps():
        base = tmp_path / str(n)
        died = killed_at(n, base, "delete")
        (announced,) = announced_in(base)
        kept.append(bool(finished(base)))
        state, said = next_run(base, [] if not kept[-1] else [announced])
        assert state == ({"step": 1, "weights": [1] * 200} if kept[-1] else None), said
        assert len(finished(base)) == kept[-1] + 1, "what was deleted by half is swept"
        assert len(files(base)) == 2 * (kept[-1] + 1)
        if died == 0:
            break
        assert died == -9
    assert kept == sorted(kept, reverse=True)
    assert set(kept) == {True, False}
