"""A training that was interrupted ends with the same bits as one that was not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from interruptions import comparable, disturb_generators, same  # noqa: E402
from trainings import StorageContext, newest_state, read_announced, run_process, task_of  # noqa: E402

from tenure.common.spec import Config  # noqa: E402
from tenure.worker.checkpoint import read_checkpoint  # noqa: E402
from tenure.worker.evaluator import EvaluationTask, Stopped  # noqa: E402
from tenure.worker.torch_eval import evaluate, options  # noqa: E402

pytestmark = pytest.mark.torch

# Six batches an epoch and one to validate: eight looks at should_stop.
CONFIG = {"num_epochs": 3, "batch_size": 256, "learning_rate": 0.01, "dataset": "trainings:blobs"}
LOOKS = 3 * 8
VARIANTS = {
    "sgd": {"optimizer": "sgd", "momentum": "0.9", "weight_decay": "0.001", "schedule": "step", "step_size": "1"},
    "adamw": {"optimizer": "adamw", "weight_decay": "0.01", "schedule": "cosine", "augment": "shift"},
}


def until_stopped(task: EvaluationTask, directory: Path, look: int) -> None:
    disturb_generators()
    with pytest.raises(Stopped):
        evaluate(task, StorageContext(directory, stop_at_look=look))


def to_the_end(task: EvaluationTask, directory: Path) -> Mapping[str, float]:
    disturb_generators()
    return evaluate(task, StorageContext(directory)).metrics


@pytest.fixture(scope="module", params=VARIANTS)
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(task, metrics, final state) of a training that ran through."""
    task = task_of(extra=VARIANTS[request.param], **CONFIG)
    directory = tmp_path_factory.mktemp(request.param)
    context = StorageContext(directory)
    metrics = evaluate(task, context).metrics
    assert context.looks == LOOKS
    return task, metrics, newest_state(directory)


def assert_same_end(undisturbed: Any, metrics: Mapping[str, float], directory: Path) -> None:
    _, expected, state = undisturbed
    assert comparable(metrics) == comparable(expected)
    assert same(newest_state(directory), state)


def test_training_is_repeatable(undisturbed: Any, tmp_path: Path) -> None:
    assert_same_end(undisturbed, to_the_end(undisturbed[0], tmp_path), tmp_path)


@pytest.mark.parametrize("look", range(2, LOOKS + 1))
def test_stopped_anywhere_and_resumed(look: int, undisturbed: Any, tmp_path: Path) -> None:
    task = undisturbed[0]
    until_stopped(task, tmp_path, look)
    state = newest_state(tmp_path)
    # Look 1 is before the first batch, look 8 before the rows held out are measured; then the next epoch's begin.
    done, within = divmod(look - 1, 8)
    assert (state["epochs_done"], state["batches_done"]) == (done, min(within, 6))
    metrics = to_the_end(task, tmp_path)
    assert metrics["resumed_from"] == done
    assert_same_end(undisturbed, metrics, tmp_path)


@pytest.mark.parametrize("looks", [(4, 2, 9), (8, 1, 1, 8), (2, 2, 2, 2, 2)])
def test_stopped_again_and_again(looks: tuple[int, ...], undisturbed: Any, tmp_path: Path) -> None:
    for look in looks:
        until_stopped(undisturbed[0], tmp_path, look)
    assert_same_end(undisturbed, to_the_end(undisturbed[0], tmp_path), tmp_path)


# What a new process brings back is the same code for every variant; each start of one costs seconds.
@pytest.mark.slow
@pytest.mark.parametrize("undisturbed", ["adamw"], indirect=True)
def test_killed_twice_and_finished_by_new_processes(undisturbed: Any, tmp_path: Path) -> None:
    """Once in the middle of the second epoch, once right after its checkpoint: at most one epoch is trained anew."""
    task = undisturbed[0]
    assert run_process(tmp_path, task, kill_at_look=12) == -9
    assert [one.step for one in read_announced(tmp_path)] == [1]
    assert run_process(tmp_path, task, kill_at_look=9) == -9
    assert [one.step for one in read_announced(tmp_path)] == [1, 2]
    assert run_process(tmp_path, task) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["resumed_from"] == 2
    assert_same_end(undisturbed, metrics, tmp_path)


def test_checkpoints_within_epochs_change_nothing_and_are_resumed_from(tmp_path: Path) -> None:
    extra = VARIANTS["adamw"] | {"checkpoint_every_seconds": "0.000001", "checkpoint_every_epochs": "0"}
    task = task_of(extra=extra, **CONFIG)
    expected = to_the_end(task, tmp_path / "a")
    plain = to_the_end(task_of(extra=VARIANTS["adamw"], **CONFIG), tmp_path / "b")
    assert comparable(expected) == comparable(plain)
    announced = [one for one in read_announced(tmp_path / "a") if one.score is None]
    assert len(announced) == 18, "one for each batch"
    for at in (0, 6, 9, 16):
        directory = tmp_path / f"from {at}"
        context = StorageContext(directory)
        state = read_checkpoint(announced[at].url, announced[at].digest)
        context.checkpoint.save(state, step=state["epochs_done"])
        disturb_generators()
        assert comparable(evaluate(task, context).metrics) == comparable(expected)
        assert same(newest_state(directory)["model"], newest_state(tmp_path / "a")["model"])


def test_a_corrupt_newest_checkpoint_costs_an_epoch_and_no_bit(undisturbed: Any, tmp_path: Path) -> None:
    task = undisturbed[0]
    until_stopped(task, tmp_path, 20)
    newest = Path(read_announced(tmp_path)[-1].url.removeprefix("file://"))
    damaged = bytearray((newest / "state.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (newest / "state.pt").write_bytes(damaged)
    metrics = to_the_end(task, tmp_path)
    assert metrics["resumed_from"] == 2
    assert_same_end(undisturbed, metrics, tmp_path)


def test_a_finished_training_is_not_trained_again(undisturbed: Any, tmp_path: Path) -> None:
    task, expected, _ = undisturbed
    to_the_end(task, tmp_path)
    context = StorageContext(tmp_path)
    again = evaluate(task, context).metrics
    assert comparable(again) == comparable(expected)
    assert again["resumed_from"] == 3
    assert context.reports == []
    assert len(context.announced) == 3


def test_a_resumed_training_keeps_the_defaults_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = EvaluationTask(
        "0-task", "search", task_of().architecture, Config(num_epochs=2, extra={"threads": "1"}), 1, 1
    )
    expected = to_the_end(task, tmp_path / "a")
    until_stopped(task, tmp_path / "b", 5)
    monkeypatch.setattr(options, "BATCH_SIZE_DEFAULT", 7)
    monkeypatch.setattr(options, "LEARNING_RATE_DEFAULT", 0.5)
    assert comparable(to_the_end(task, tmp_path / "b")) == comparable(expected)


def test_the_log_tells_what_may_change_the_last_bits(tmp_path: Path) -> None:
    task = task_of(extra={"threads": "1"}, **CONFIG)
    until_stopped(task, tmp_path, 5)
    context = StorageContext(tmp_path)
    state = newest_state(tmp_path)
    state["environment"] |= {"torch": "1.0", "tenure": "0.0"}
    context.checkpoint.save(state, step=0)
    evaluate(task, context)
    changed = [fields for event, fields in context.events if event == "training.environment_changed"]
    assert changed == [{"torch": f"1.0 → {torch.__version__}"}]
    assert ("training.resumed", {"epochs": 0, "batches": 4}) in context.events
