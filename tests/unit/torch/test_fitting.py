"""What the trainer does with the memory that there is: divide, go on dividing, refuse."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from trainings import chain, conv, task_of  # noqa: E402

from tenure.common.errors import InvalidArchitecture  # noqa: E402
from tenure.common.estimate import Estimate, estimate  # noqa: E402
from tenure.worker.evaluator import EvaluationTask, MemoryContext  # noqa: E402
from tenure.worker.torch_eval import evaluate, fitting  # noqa: E402
from tenure.worker.torch_eval.options import resolve  # noqa: E402
from tenure.worker.torch_eval.split import load_split  # noqa: E402

pytestmark = pytest.mark.torch

BLOBS = "trainings:blobs"
NETWORK = chain(conv(16), ("tanh", {}), ("flatten", {}))
BATCH = 64
MIB = 2**20


def task(out_of_memory: int = 0, network: str = NETWORK, **extra: str) -> EvaluationTask:
    made = task_of(network, extra, num_epochs=1, batch_size=BATCH, dataset=BLOBS)
    return dataclasses.replace(made, out_of_memory=out_of_memory)


def cost() -> Estimate:
    return estimate(NETWORK, (1, 8, 8), 10)


def room_for(parts: int) -> int:
    """Free memory that is just enough for so many parts."""
    kept = fitting._CHECKPOINT_COPIES * (cost().weight_bytes + cost().optimizer_bytes)
    training = cost().training_bytes(BATCH, parts)
    return int((1 + fitting._HOLES_RATIO) * training) + kept + fitting._FIRST_TRAINING_BYTES + 1


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    asked: EvaluationTask,
    free: int | None,
    saved: Any = None,
    most: int = 0,
    devices: tuple[str, ...] = ("cpu",),
) -> tuple[int, MemoryContext]:
    monkeypatch.setattr(fitting, "free_bytes", lambda device: free)
    settings = resolve(asked.config)
    split = load_split(settings.dataset, {}, settings.val_fraction, settings.split_seed)
    context = MemoryContext(Path(), max_parameters=most, devices=devices)
    return fitting.choose_micro_batches(asked, context, settings, split, torch.device("cpu"), saved), context


@pytest.mark.parametrize("parts", [1, 2, 8, 32])
def test_as_many_parts_as_it_takes_to_fit(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    found, context = chosen(monkeypatch, task(), room_for(parts))
    assert found == parts
    expected = context.expected_memory
    assert expected is not None
    assert (expected.batch_size, expected.micro_batches, expected.limit_bytes) == (BATCH, parts, room_for(parts))
    assert 0.98 * room_for(parts) < expected.estimated_bytes <= room_for(parts)


def test_twice_as_many_for_each_run_that_had_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [chosen(monkeypatch, task(count), room_for(2))[0] for count in range(6)] == [2, 4, 8, 16, 32, 32]
    assert [chosen(monkeypatch, task(count), None)[0] for count in (0, 1, 1000)] == [1, 2, 32]
    assert chosen(monkeypatch, task(1, micro_batches="3"), None)[0] == 6


def test_a_resumed_training_goes_on_with_no_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, task(), room_for(1), {"micro_batches": 4})[0] == 4
    assert chosen(monkeypatch, task(3), room_for(1), {"micro_batches": 4})[0] == 8


def test_several_ranks_share_a_batch_and_the_hosts_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    four = ("cpu",) * 4
    found, context = chosen(monkeypatch, task(), 4 * room_for(4), devices=four)
    assert found == 1, "each has a quarter of the batch"
    assert context.expected_memory is not None
    assert context.expected_memory.batch_size == BATCH
    assert chosen(monkeypatch, task(), 4 * room_for(16), devices=four)[0] == 4


def test_a_batch_is_no_larger_than_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = task_of(NETWORK, num_epochs=1, batch_size=1_000_000, dataset=BLOBS)
    _, context = chosen(monkeypatch, asked, None)
    assert context.expected_memory is not None
    assert context.expected_memory.batch_size == 1440


def test_what_can_not_fit_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(fitting.DoesNotFit) as caught:
        chosen(monkeypatch, task(), 60 * MIB)
    assert isinstance(caught.value, MemoryError), "counted as out of memory"
    text = str(caught.value)
    assert "60 MiB of this process's memory are free" in text
    assert "in as many parts as there can be" in text


@pytest.mark.parametrize("policy", ["elsewhere", "fail"])
def test_other_policies_divide_nothing(monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    asked = task(3, on_out_of_memory=policy)
    assert chosen(monkeypatch, asked, room_for(1))[0] == 1
    with pytest.raises(fitting.DoesNotFit, match=f"on_out_of_memory is {policy}"):
        chosen(monkeypatch, asked, room_for(1) - MIB // 2)


def test_a_network_above_the_cap_is_invalid_whatever_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArchitecture, match="max_parameters"):
        chosen(monkeypatch, task(), 1, most=10)


def test_the_context_hears_of_it_before_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fitting, "free_bytes", lambda device: MIB)
    context = MemoryContext(tmp_path)
    with pytest.raises(fitting.DoesNotFit):
        evaluate(task(), context)
    assert context.expected_memory is not None
    assert context.expected_memory.estimated_bytes > context.expected_memory.limit_bytes == MIB


def test_divided_it_learns_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without batch normalisation only the order of sums differs."""
    whole = evaluate(task(), MemoryContext(tmp_path)).metrics
    monkeypatch.setattr(fitting, "free_bytes", lambda device: room_for(8))
    context = MemoryContext(tmp_path)
    divided = evaluate(task(), context).metrics
    assert context.expected_memory is not None
    assert context.expected_memory.micro_batches == 8
    assert divided["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-4)
    assert divided["val_loss"] == pytest.approx(whole["val_loss"], rel=1e-3)


LIMITED = """
import sys
from pathlib import Path
import fitting_scene
from tenure.worker import host_memory
from tenure.worker.evaluator import MemoryContext
from tenure.worker.torch_eval import evaluate

fitting_scene.load()
host_memory.limit_this_process(host_memory._field(Path("/proc/self/status"), "VmData") * 1024 + {room})
context = MemoryContext(Path({work_dir!r}))
metrics = evaluate(fitting_scene.task(), context).metrics
print(context.expected_memory.micro_batches, metrics["epochs"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of this kind are Linux's")
def test_a_training_that_is_divided_by_its_estimate_stays_within_a_real_limit(tmp_path: Path) -> None:
    """A batch takes 270 MiB at once; there are 220 MiB, of which kernels and holes need their share."""
    scene = """
from trainings import blobs, chain, conv, task_of
NETWORK = chain(conv(128), *[("relu", {})] * 6, ("avgpool", {"pool_size": 8}))
def task():
    return task_of(NETWORK, num_epochs=1, batch_size=1024, dataset="trainings:blobs")
def load():
    from tenure.worker.torch_eval.split import load_split
    load_split("trainings:blobs", {}, 0.2, 0)
"""
    (tmp_path / "fitting_scene.py").write_text(scene)
    program = LIMITED.format(room=220 * MIB, work_dir=str(tmp_path))
    tests = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:{tests}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    parts, epochs = done.stdout.split()
    assert int(parts) > 1
    assert float(epochs) == 1
