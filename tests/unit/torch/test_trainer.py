"""What the default evaluator does with a task: metrics, reports, checkpoints, and every way to be wrong."""

from __future__ import annotations

import copy
import math
import os
import threading
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from trainings import CNN, STATEFUL, StorageContext, chain, conv, newest_state, task_of  # noqa: E402

from tenure.common.errors import (  # noqa: E402
    CheckpointError,
    DivergedTraining,
    InvalidArchitecture,
    InvalidConfig,
    InvalidSetting,
)
from tenure.worker.evaluator import MemoryContext, Stopped  # noqa: E402
from tenure.worker.torch_eval import evaluate, numerics  # noqa: E402
from tenure.worker.torch_eval.augmentation import shifted  # noqa: E402
from tenure.worker.torch_eval.memory import PeakMemory  # noqa: E402

pytestmark = pytest.mark.torch

BLOBS = "trainings:blobs"
FAST: dict[str, Any] = {"num_epochs": 2, "batch_size": 256, "dataset": BLOBS}


def test_a_small_cnn_learns_digits(tmp_path: Path) -> None:
    metrics = evaluate(task_of(CNN, num_epochs=8, learning_rate=3e-3), MemoryContext(tmp_path)).metrics
    assert metrics["val_accuracy"] >= 0.97
    assert metrics["fitness"] == metrics["val_accuracy"]
    assert metrics["best_val_accuracy"] >= metrics["val_accuracy"]


@pytest.mark.slow
def test_a_small_cnn_learns_mnist_5k(tmp_path: Path) -> None:
    pool, batchnorm = ("maxpool", {"pool_size": 2}), ("batchnorm", {})
    dense = ("dense", {"units": 64, "activation": "relu"})
    network = chain(conv(16), batchnorm, pool, conv(32), batchnorm, pool, dense, ("dropout", {"rate": 0.3}))
    task = task_of(network, {"schedule": "cosine"}, num_epochs=6, learning_rate=3e-3, dataset="mnist-5k")
    assert evaluate(task, MemoryContext(tmp_path)).metrics["val_accuracy"] >= 0.97


def test_metrics_are_finite_numbers(tmp_path: Path) -> None:
    metrics = evaluate(task_of(**FAST), MemoryContext(tmp_path)).metrics
    assert set(metrics) == {
        *("fitness", "val_accuracy", "val_loss", "train_accuracy", "train_loss", "best_val_accuracy", "best_epoch"),
        *("params", "epochs", "train_rows", "val_rows", "samples_per_second", "resumed_from"),
        *("stopped_early", "flops", "peak_memory_bytes"),
    }
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
    assert (metrics["epochs"], metrics["resumed_from"]) == (2, 0)
    assert (metrics["train_rows"], metrics["val_rows"]) == (1440, 360)
    assert metrics["samples_per_second"] > 0


def test_the_config_of_a_morphml_master_that_sends_none_is_enough(tmp_path: Path) -> None:
    metrics = evaluate(task_of(chain(("flatten", {}))), MemoryContext(tmp_path)).metrics
    assert metrics["epochs"] == 10
    assert metrics["train_rows"] == 1438, "digits"


def test_each_epoch_is_reported(tmp_path: Path) -> None:
    context = StorageContext(tmp_path)
    metrics = evaluate(task_of(**FAST | {"num_epochs": 3}), context).metrics
    assert [(step, total) for step, _, total in context.reports] == [(1, 3), (2, 3), (3, 3)]
    last = context.reports[-1][1]
    assert last["val_accuracy"] == metrics["val_accuracy"]
    assert last["samples_per_second"] > 0


def test_long_epochs_are_reported_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tenure.worker.torch_eval import trainer

    monkeypatch.setattr(trainer, "_REPORT_EVERY_SECONDS", 0.0)
    context = StorageContext(tmp_path)
    evaluate(task_of(**FAST | {"num_epochs": 1}), context)
    assert [step for step, _, _ in context.reports] == [0] * 6 + [1]
    assert set(context.reports[0][1]) == {"train_loss", "train_accuracy", "samples_per_second", "batches"}


def test_reports_by_the_step_come_as_often_as_asked(tmp_path: Path) -> None:
    context = StorageContext(tmp_path)
    evaluate(task_of(extra={"report_every_steps": "4"}, **FAST), context)
    told = [(step, metrics.get("batches")) for step, metrics, _ in context.reports]
    assert told == [(0, 4), (1, None), (1, 4), (2, None)]


@pytest.mark.parametrize(("every", "forced"), [("1", {1, 2, 3, 4, 5}), ("2", {2, 4, 5}), ("0", set())])
def test_checkpoints_come_as_often_as_asked_at_the_end_and_for_a_new_best(
    every: str, forced: set[int], tmp_path: Path
) -> None:
    context = StorageContext(tmp_path)
    task = task_of(extra={"checkpoint_every_epochs": every}, **FAST | {"num_epochs": 5})
    evaluate(task, context)
    measured = {step: metrics["val_accuracy"] for step, metrics, _ in context.reports}
    bests = {step for step in measured if measured[step] > max([0.0, *(measured[one] for one in range(1, step))])}
    assert bests < {1, 2, 3, 4, 5}, "else this shows nothing"
    assert [one.step for one in context.announced] == sorted(bests | forced)
    assert all(one.score == measured[one.step] for one in context.announced)


def test_a_checkpoint_that_is_due_is_saved_within_the_epoch(tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    context.checkpoint.due = True
    evaluate(task_of(extra={"checkpoint_every_epochs": "0"}, **FAST), context)
    stands = [(state["epochs_done"], state["batches_done"]) for _, state in context.checkpoint.saved]
    assert stands == [*((0, batch) for batch in range(1, 7)), (1, 0), *((1, batch) for batch in range(1, 7)), (2, 0)]


def test_a_new_best_that_can_not_be_afforded_is_not_saved(tmp_path: Path) -> None:
    (context := MemoryContext(tmp_path)).checkpoint.affordable = False
    evaluate(task_of(extra={"checkpoint_every_epochs": "0"}, **FAST), context)
    assert context.checkpoint.saved == []


def test_stopped_at_an_epochs_end_the_checkpoint_has_its_score(tmp_path: Path) -> None:
    extra = {"checkpoint_every_epochs": "0", "optimizer": "sgd", "momentum": "0", "gamma": "0", "schedule": "step"}
    context = StorageContext(tmp_path, stop_at_look=17)
    with pytest.raises(Stopped):
        # Nothing is learned from the second epoch on: its end is no new best, so only the stop saves it.
        evaluate(task_of(extra=extra | {"step_size": "1"}, **FAST | {"num_epochs": 3}), context)
    assert [one.step for one in context.announced] == [1, 2]
    assert context.announced[1].score == context.reports[1][1]["val_accuracy"]


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    def loss(seed: str) -> float:
        return evaluate(task_of(extra={"seed": seed}, **FAST), MemoryContext(tmp_path)).metrics["val_loss"]

    assert loss("1") == loss("1") != loss("2")


def test_a_snapshot_is_not_changed_by_later_batches(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watching(MemoryContext):
        def report(self, step: int, *arguments: Any, **named: Any) -> None:
            if self.checkpoint.saved and not seen:
                seen.append(copy.deepcopy(self.checkpoint.saved[0][1]))

    context = Watching(tmp_path)
    evaluate(task_of(extra={"optimizer": "adam"}, **FAST), context)
    first, second = context.checkpoint.saved[0][1], context.checkpoint.saved[1][1]
    assert torch.equal(first["model"]["head.weight"], seen[0]["model"]["head.weight"])
    assert not torch.equal(first["model"]["head.weight"], second["model"]["head.weight"])
    assert torch.equal(first["optimizer"]["state"][0]["exp_avg"], seen[0]["optimizer"]["state"][0]["exp_avg"])


def test_stopped_before_the_first_batch_there_is_nothing_to_save(tmp_path: Path) -> None:
    context = StorageContext(tmp_path, stop_at_look=1)
    with pytest.raises(Stopped):
        evaluate(task_of(**FAST), context)
    assert context.announced == []


def test_stopped_right_after_a_checkpoint_it_is_not_written_twice(tmp_path: Path) -> None:
    context = StorageContext(tmp_path, stop_at_look=9)
    with pytest.raises(Stopped):
        evaluate(task_of(**FAST), context)
    assert [one.step for one in context.announced] == [1]


def test_a_storage_that_fails_stops_no_training(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("not a directory")
    context = StorageContext(tmp_path)
    assert evaluate(task_of(**FAST), context).metrics["epochs"] == 2
    assert [event for event, _ in context.events] == ["checkpoint.failed"] * 2


@pytest.mark.parametrize(
    ("config", "field", "told"),
    [
        ({"num_epochs": -1}, "config.num_epochs", "from 0 to"),
        ({"learning_rate": math.nan}, "config.learning_rate", "finite"),
        ({"dataset": "imagenet"}, "config.dataset", "digits, mnist-5k"),
        ({"extra": {"optimiser": "sgd"}}, "config.extra.optimiser", "known are augment, .*, optimizer, "),
        ({"extra": {"dataset.path": "/x"}, "dataset": "digits"}, "config.extra.dataset.path", "takes no parameters"),
        ({"extra": {"augment": "shift"}, "dataset": "test_trainer_rows:flat"}, "config.extra.augment", r"shape \(3,\)"),
    ],
)
def test_a_wrong_config_names_the_field(
    config: dict[str, Any], field: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_trainer_rows.py").write_text(
        "import torch\ndef flat():\n    return torch.rand(20, 3), torch.arange(20) % 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidConfig, match=told) as caught:
        evaluate(task_of(chain(("flatten", {})), **config), MemoryContext(tmp_path))
    assert caught.value.field == field


def test_a_diverged_training_is_never_retried_and_never_saved(tmp_path: Path) -> None:
    context = StorageContext(tmp_path)
    task = task_of(chain(conv(4)), {"optimizer": "sgd"}, **FAST | {"learning_rate": 1e30})
    with pytest.raises(DivergedTraining, match=r"the loss became (nan|inf) in epoch 1") as caught:
        evaluate(task, context)
    assert caught.value.retryable is False
    assert caught.value.field == "config.learning_rate"
    assert context.announced == []


def test_divergence_is_noticed_when_stopped_too(tmp_path: Path) -> None:
    context = StorageContext(tmp_path, stop_at_look=6)
    task = task_of(chain(conv(4)), {"optimizer": "sgd"}, **FAST | {"learning_rate": 1e30})
    with pytest.raises(DivergedTraining):
        evaluate(task, context)
    assert context.announced == []


def test_a_network_without_parameters_can_not_be_trained(tmp_path: Path) -> None:
    """64 features squeezed to exactly as many as there are classes: no head is added."""
    network = chain(("avgpool", {"pool_size": [7, 4], "stride": 1}), ("flatten", {}))
    task = task_of(network, dataset=BLOBS)
    with pytest.raises(InvalidArchitecture, match="no parameters that training could change"):
        evaluate(task, MemoryContext(tmp_path))


def test_the_workers_cap_on_parameters_holds(tmp_path: Path) -> None:
    with pytest.raises(InvalidArchitecture):
        evaluate(task_of(**FAST), MemoryContext(tmp_path, max_parameters=100))


def test_flat_rows_are_learned_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_trainer_flat.py").write_text(
        "import torch\n"
        "def rows(extra):\n"
        "    generator = torch.Generator().manual_seed(int(extra['seed']))\n"
        "    inputs = torch.randn(400, 3, generator=generator)\n"
        "    return inputs, (inputs.sum(dim=1) > 0).long()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = chain(("dense", {"units": 16, "activation": "relu"}), ("batchnorm", {}))
    extra = {"dataset.seed": "3"}
    task = task_of(network, extra, num_epochs=10, learning_rate=0.01, dataset="test_trainer_flat:rows")
    assert evaluate(task, MemoryContext(tmp_path)).metrics["val_accuracy"] >= 0.9


@pytest.mark.parametrize(
    ("rows", "batch_size", "batches"),
    [(80, 16, [16] * 5), (81, 16, [16] * 5), (82, 16, [16] * 5 + [2]), (20, 64, [20])],
)
def test_a_last_batch_of_one_row_is_left_out(rows: int, batch_size: int, batches: list[int]) -> None:
    from tenure.worker.torch_eval.builder import build_module
    from tenure.worker.torch_eval.datasets import Dataset
    from tenure.worker.torch_eval.options import resolve
    from tenure.worker.torch_eval.split import split
    from tenure.worker.torch_eval.training import Training

    inputs, targets = torch.rand(rows + 4, 3), torch.arange(rows + 4) % 2
    data = split(Dataset("x", inputs, targets, 2, torch.arange(4)), 0.2)
    settings = resolve(task_of(batch_size=batch_size).config)
    module = build_module(chain(("batchnorm", {})), (3,), 2)
    training = Training(settings, data, module, torch.device("cpu"))
    assert list(training.train_batches()) == batches
    assert training.batches_done == training.batch_count == len(batches)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"step": 3}, "unknown format"),
        ({"format": 1}, "unknown format"),
        ({"content": "content:0"}, "another architecture or configuration"),
        ({"data": "0"}, "the data set is not the one"),
        ({"settings": {"num_epochs": 1}}, "settings of another version"),
        ({"model": {}}, "doesn't fit this training"),
        ({"optimizer": None}, "doesn't fit this training"),
        ({"generators": {}}, "doesn't fit this training"),
    ],
)
def test_a_state_that_is_not_this_trainings_is_an_error_not_a_fresh_start(
    state: dict[str, Any], told: str, tmp_path: Path
) -> None:
    task = task_of(**FAST)
    with pytest.raises(Stopped):
        evaluate(task, StorageContext(tmp_path, stop_at_look=4))
    context = StorageContext(tmp_path)
    wrong = state if "step" in state else newest_state(tmp_path) | state
    context.checkpoint.save(wrong, step=1)
    with pytest.raises(CheckpointError, match=told):
        evaluate(task, context)


def test_the_process_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flags() -> tuple[Any, ...]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
            torch.backends.cudnn.benchmark,
            torch.get_num_threads(),
        )

    before, threads = flags(), set(threading.enumerate())
    evaluate(task_of(extra={"threads": "3"}, **FAST), MemoryContext(tmp_path))
    with pytest.raises(InvalidArchitecture):
        evaluate(task_of(extra={"threads": "3"}, **FAST), MemoryContext(tmp_path, max_parameters=1))
    assert flags() == before
    assert set(threading.enumerate()) <= threads, "those of other tests may have ended meanwhile"


@pytest.mark.parametrize("asked", ["on", "off"])
def test_deterministic_algorithms_are_used_unless_let_go(asked: str, tmp_path: Path) -> None:
    seen = set()

    class Looking(MemoryContext):
        def report(self, *_: Any, **__: Any) -> None:
            seen.add((torch.are_deterministic_algorithms_enabled(), not torch.backends.cudnn.benchmark))

    evaluate(task_of(extra={"deterministic": asked}, **FAST), Looking(tmp_path))
    assert seen == {(asked == "on", asked == "on")}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel counts from the process's start")
def test_the_peak_of_memory_is_this_evaluations_own() -> None:
    before = PeakMemory(torch.device("cpu")).bytes
    first = PeakMemory(torch.device("cpu"))
    large = bytearray(b"x" * 200_000_000)
    assert first.bytes >= before + 190_000_000
    del large
    assert first.bytes >= before + 190_000_000, "it is over, and still the peak"
    assert PeakMemory(torch.device("cpu")).bytes < before + 100_000_000


def test_whose_number_of_threads_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv(numerics.THREADS_ENV, raising=False)
    assert numerics.choose_threads(0) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert numerics.choose_threads(0) == torch.get_num_threads()
    monkeypatch.setenv(numerics.THREADS_ENV, "6")
    assert numerics.choose_threads(0) == 6
    assert numerics.choose_threads(0, recorded=16) == 16
    assert numerics.choose_threads(0, recorded=17) == 6, "this machine has too few cores"
    assert numerics.choose_threads(2, recorded=16) == 2
    for wrong in ("0", "-1", "many", "1025"):
        monkeypatch.setenv(numerics.THREADS_ENV, wrong)
        with pytest.raises(InvalidSetting, match=numerics.THREADS_ENV):
            numerics.choose_threads(0)


def test_a_device_that_is_not_there_is_the_workers_fault(tmp_path: Path) -> None:
    for device in ("abacus", *(() if torch.cuda.is_available() else ("cuda:0",))):
        with pytest.raises(InvalidSetting, match="device"):
            evaluate(task_of(**FAST), MemoryContext(tmp_path, device=device))


def test_shifting_moves_whole_images_and_repeats_their_border() -> None:
    image = torch.arange(16.0 * 16).reshape(1, 1, 16, 16)
    moved = shifted(image.expand(200, 2, 16, 16).contiguous(), seed=1)
    assert moved.shape == (200, 2, 16, 16)
    seen = set()
    for one in moved:
        assert torch.equal(one[0], one[1]), "the channels move together"
        down, right = divmod(int(one[0, 8, 8]) - int(image[0, 0, 8, 8]) + 2 * 16 + 2, 16)
        down, right = down - 2, right - 2
        seen.add((down, right))
        rows, columns = (torch.arange(16) + down).clamp(0, 15), (torch.arange(16) + right).clamp(0, 15)
        assert torch.equal(one[0], image[0, 0][rows][:, columns])
    assert seen == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}
    assert torch.equal(moved, shifted(image.expand(200, 2, 16, 16).contiguous(), seed=1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_a_resumed_training_is_the_undisturbed_one(tmp_path: Path) -> None:
    task = task_of(STATEFUL, {"optimizer": "adamw", "schedule": "cosine", "augment": "shift"}, **FAST)
    expected = evaluate(task, StorageContext(tmp_path / "a", device="cuda:0")).metrics
    assert expected["peak_memory_bytes"] > 0
    with pytest.raises(Stopped):
        evaluate(task, StorageContext(tmp_path / "b", device="cuda:0", stop_at_look=5))
    torch.cuda.manual_seed(3)
    metrics = evaluate(task, StorageContext(tmp_path / "b", device="cuda:0")).metrics
    assert metrics["val_loss"] == expected["val_loss"]
    ours, theirs = newest_state(tmp_path / "a")["model"], newest_state(tmp_path / "b")["model"]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
