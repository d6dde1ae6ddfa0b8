"""Rows that are read one by one, by the training or by processes ahead of it: the same bits, and nobody left behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

torch = pytest.importorskip("torch")

from processes import spawned_here, wait_for  # noqa: E402
from trainings import StorageContext, chain, conv, task_of  # noqa: E402

from tenure.common.errors import CheckpointError, InvalidConfig  # noqa: E402
from tenure.worker.evaluator import MemoryContext, Stopped  # noqa: E402
from tenure.worker.torch_eval import evaluate  # noqa: E402
from tenure.worker.torch_eval import split as split_module  # noqa: E402
from tenure.worker.torch_eval.datasets import Dataset, MapDataset  # noqa: E402
from tenure.worker.torch_eval.split import load_split, split  # noqa: E402

pytestmark = pytest.mark.torch

NETWORK = chain(conv(4), ("batchnorm", {}), ("dropout", {"rate": 0.2}))
# Something that can't be sent to another process; rows that draw on all three generators; rows that fail.
SOURCE = """
import multiprocessing
import pathlib
import random
import threading
import numpy as np
import torch
from tenure.worker.torch_eval import MapDataset

class Cells:
    def __init__(self, bad, stuck):
        self.unsendable = threading.Lock()
        self.bad = bad
        self.stuck = stuck
        self.count = 0

    def __len__(self):
        return 300

    def __getitem__(self, row):
        if self.stuck and multiprocessing.parent_process() is not None:
            self.count += 1
            if self.count == 80:
                pathlib.Path(self.stuck).touch()
                threading.Event().wait()
        if row == self.bad:
            raise OSError(f"row {row} lies on a bad sector")
        noise = torch.rand(1, 8, 8) + random.random() + float(np.random.rand())
        return torch.full((1, 8, 8), 3.0 * (row % 5)) + noise, "not looked at"

def cells(extra):
    targets = torch.arange(300) % 5
    reader, held_out = Cells(int(extra.get("bad", -1)), extra.get("stuck", "")), torch.arange(200, 260)
    return MapDataset("cells", reader, targets, 5, held_out, extra.get("version", ""))
"""


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The reference of a MapDataset of 300 images in 5 classes, whose rows are noisy by chance."""
    name = f"cells_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(split_module, "_kept", type(split_module._kept)())
    return f"{name}:cells"


def task(cells: str, **extra: str) -> Any:
    return task_of(NETWORK, extra, num_epochs=3, batch_size=32, dataset=cells)


def test_rows_read_by_number_are_learned_and_resumed_to_the_bit(cells: str, tmp_path: Path) -> None:
    expected = evaluate(task(cells, augment="shift"), MemoryContext(tmp_path))
    assert expected.metrics["val_accuracy"] > 0.5
    for look in (3, 5, 14):
        context = StorageContext(tmp_path / "resumed", stop_at_look=look)
        with pytest.raises(Stopped):
            evaluate(task(cells, augment="shift"), context)
    ended = evaluate(task(cells, augment="shift"), StorageContext(tmp_path / "resumed"))
    assert ended.detail == expected.detail
    assert ended.metrics["val_loss"] == expected.metrics["val_loss"]


def test_processes_that_read_ahead_change_no_bit_and_are_gone(cells: str, tmp_path: Path) -> None:
    """Stopped within an epoch, with batches read ahead that nobody took; signalled as by a service manager."""
    expected = evaluate(task(cells, augment="shift"), MemoryContext(tmp_path))
    seen: list[int] = []

    class Signalling(StorageContext):
        @property
        def should_stop(self) -> bool:
            stop = super().should_stop
            if self.looks == 3:
                for reader in spawned_here():
                    seen.append(reader.pid)
                    os.kill(reader.pid, signal.SIGTERM)
                    os.kill(reader.pid, signal.SIGINT)
            return stop

    ahead = task(cells, augment="shift", loader_workers="2")
    with pytest.raises(Stopped):
        evaluate(ahead, Signalling(tmp_path / "ahead", stop_at_look=14))
    assert len(seen) == 2
    assert spawned_here() == []
    ended = evaluate(ahead, StorageContext(tmp_path / "ahead"))
    assert spawned_here() == []
    assert ended.detail == expected.detail
    assert ended.metrics["resumed_from"] == 1
    assert ended.metrics["val_loss"] == expected.metrics["val_loss"]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_reading_a_row_raises_comes_out(workers: str, cells: str, tmp_path: Path) -> None:
    """A disk that fails may work again: an attempt. The readers are gone although the exception is still held."""
    # A row held out: those to train on are few enough to be all read beforehand.
    wrong = task(cells, loader_workers=workers, **{"dataset.bad": "250"})
    with pytest.raises(OSError, match="row 250 lies on a bad sector") as caught:
        evaluate(wrong, MemoryContext(tmp_path))
    assert spawned_here() == []
    assert getattr(caught.value, "retryable", True)


def test_a_reader_within_a_row_that_never_comes_is_ended(
    cells: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the third batch, of which the training that stops at its second look has no need."""
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    stuck = tmp_path / "stuck"

    class Waiting(StorageContext):
        @property
        def should_stop(self) -> bool:
            stop = super().should_stop
            if self.looks == 2:
                wait_for(stuck.exists, what="the row that never comes")
            return stop

    with pytest.raises(Stopped):
        evaluate(
            task(cells, loader_workers="1", **{"dataset.stuck": str(stuck)}), Waiting(tmp_path / "a", stop_at_look=2)
        )
    assert stuck.exists()
    assert spawned_here() == []


class Numbers:
    """Row i holds i."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> Any:
        return torch.tensor([float(row)])


def test_a_data_set_read_by_number_is_divided_as_one_in_memory() -> None:
    targets = torch.arange(300) % 5
    in_memory = split(Dataset("x", torch.arange(300.0)[:, None], targets, 5), 0.2)
    by_number = split(MapDataset("x", Numbers(300), targets, 5), 0.2)
    for one, other in ((in_memory.train, by_number.train), (in_memory.val, by_number.val)):
        numbers = torch.arange(len(one.targets))
        assert torch.equal(one.targets, other.targets)
        assert torch.allclose(one.batch(numbers, 0)[0], other.batch(numbers, 0)[0])
    assert by_number.input_shape == (1,)


def test_the_generators_go_on_as_if_no_row_had_drawn(cells: str) -> None:
    rows = load_split(cells, {}, 0.2).train
    torch.manual_seed(4)
    before = torch.get_rng_state()
    first, second = rows.batch(torch.arange(3), 7)[0], rows.batch(torch.arange(3), 7)[0]
    assert torch.equal(first, second)
    assert not torch.equal(first, rows.batch(torch.arange(3), 8)[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_changed_fingerprint_is_other_data(cells: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = StorageContext(tmp_path / "a", stop_at_look=5)
    with pytest.raises(Stopped):
        evaluate(task(cells), context)
    module = sys.modules[cells.partition(":")[0]]
    load: Callable[..., Any] = module.cells
    monkeypatch.setattr(module, "cells", lambda extra: load({**extra, "version": "2"}))
    monkeypatch.setattr(split_module, "_kept", type(split_module._kept)())
    with pytest.raises(CheckpointError, match="the data set is not the one"):
        evaluate(task(cells), StorageContext(tmp_path / "a"))


@pytest.mark.parametrize(
    ("rows", "targets", "part", "told"),
    [
        ("3", "torch.arange(9) % 3", "rows", "__getitem__"),
        ("[torch.rand(3)]", "torch.arange(1)", "rows", "at least 2 rows"),
        ("[torch.rand(3)] * 8", "torch.arange(9) % 3", "targets", "as many as rows, 8"),
        ("[torch.rand(3).double()] * 9", "torch.arange(9) % 3", r"rows[0]", "float32"),
        ("[torch.rand(3, 3)] * 9", "torch.arange(9) % 3", r"rows[0]", "(features,)"),
        ("[torch.tensor([float('nan')])] * 9", "torch.arange(9) % 3", r"rows[0]", "finite"),
        ("[torch.rand(3)] * 8 + [torch.rand(4)]", "torch.arange(9) % 3", r"rows[8]", "as the first row has"),
        ("[torch.rand(3)] * 9", "torch.arange(9)", "targets", "num_classes - 1"),
    ],
)
def test_what_is_wrong_with_rows_is_named(
    rows: str, targets: str, part: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"wrong_{abs(hash((rows, targets)))}"
    source = "import torch\nfrom tenure.worker.torch_eval import MapDataset\n"
    source += f"def data():\n    return MapDataset('x', {rows}, {targets}, 3)\n"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)

    def read_all() -> None:
        data = load_split(f"{name}:data", {}, 0.34)
        data.val.batch(torch.arange(len(data.val.targets)), 0)

    with pytest.raises(InvalidConfig) as caught:
        read_all()
    assert caught.value.message.endswith(f"has wrong {part}")
    assert told in (caught.value.expected or "")


@pytest.mark.long
def test_readers_do_not_outlive_a_killed_training(cells: str, tmp_path: Path) -> None:
    """An executor that is killed takes its group along; a plain Python process that is killed does not."""
    import subprocess

    program = f"""
import sys
sys.path[:0] = {[str(tmp_path), str(Path(__file__).parents[2])]!r}
if __name__ == "__main__":
    from pathlib import Path
    from trainings import StorageContext
    from trainings import task_of
    from tenure.worker.torch_eval import evaluate
    import psutil

    class Telling(StorageContext):
        @property
        def should_stop(self):
            if self.looks == 2:
                pids = [each.pid for each in psutil.Process().children()]
                Path({str(tmp_path / "pids")!r}).write_text(" ".join(map(str, pids)))
            return super().should_stop

    extra = {{"loader_workers": "1"}}
    task = task_of({NETWORK!r}, extra, num_epochs=10000, batch_size=32, dataset={cells!r})
    evaluate(task, Telling(Path({str(tmp_path / "run")!r})))
"""
    (tmp_path / "program.py").write_text(program)
    process = subprocess.Popen([sys.executable, str(tmp_path / "program.py")])
    try:
        wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
    finally:
        process.kill()
        process.wait()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2, "one that reads, and Python's resource tracker"
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), what="the end of the readers")
