"""Trainings over several devices, for which the CPU stands: like on one, to the last bit after interruptions, gone with
their executor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from interruptions import comparable, disturb_generators, same  # noqa: E402
from processes import spawned_here  # noqa: E402
from trainings import StorageContext, chain, newest_state, run_process, task_of  # noqa: E402

from tenure.worker.evaluator import EvaluationTask, Stopped  # noqa: E402
from tenure.worker.torch_eval import evaluate  # noqa: E402
from tenure.worker.torch_eval.ranks import RankDied  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def with_a_dead_end(graph: str) -> str:
    """The same network, and beside it a node with parameters that nobody takes anything from."""
    parsed = json.loads(graph)
    parsed["nodes"][-1]["metadata"] = {"is_output": True}
    parsed["nodes"].append({"id": "dead", "operation": "dense", "params": {"units": 5}})
    parsed["edges"].append({"id": "dead", "source_id": "input", "target_id": "dead"})
    return json.dumps(parsed)


PLAIN = with_a_dead_end(chain(("dense", {"units": 16, "activation": "relu"})))
# 1440 training rows: the last of four batches has three, so that of three ranks only one gets any.
UNEVEN = {"num_epochs": 2, "batch_size": 479, "learning_rate": 0.05, "dataset": "trainings:blobs"}
# Six batches an epoch, and the rows held out: eight looks at should_stop, of which the last is before these.
CONFIG = {"num_epochs": 3, "batch_size": 256, "learning_rate": 0.01, "dataset": "trainings:blobs"}
EXTRA = {"optimizer": "adamw", "schedule": "cosine", "augment": "shift", "gradient_clip": "1"}


def context(directory: Path, ranks: int, **options: Any) -> StorageContext:
    return StorageContext(directory, devices=("cpu",) * ranks, **options)


def metrics_of(task: EvaluationTask, directory: Path, ranks: int) -> Mapping[str, float]:
    disturb_generators()
    return evaluate(task, context(directory, ranks)).metrics


@pytest.mark.parametrize(
    ("extra", "ranks"), [({"weight_decay": "0.1"}, 3), ({"micro_batches": "3", "loader_workers": "1"}, 2)]
)
def test_it_learns_what_one_device_learns(extra: dict[str, str], ranks: int, tmp_path: Path) -> None:
    task = task_of(PLAIN, {"optimizer": "sgd"} | extra, **UNEVEN)
    alone = metrics_of(task, tmp_path / "alone", 1)
    together = metrics_of(task, tmp_path / "together", ranks)
    for name, value in comparable(alone).items():
        assert together[name] == pytest.approx(value, abs=1e-5), name
    weights, expected = (newest_state(tmp_path / name)["model"] for name in ("together", "alone"))
    for name, tensor in expected.items():
        assert torch.allclose(weights[name], tensor, atol=1e-6), name
    assert spawned_here() == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(task, metrics, final state) of a training over two ranks that ran through: dropout, batch normalisation, …"""
    task = task_of(extra=EXTRA, **CONFIG)
    directory = tmp_path_factory.mktemp("undisturbed")
    return task, metrics_of(task, directory, 2), newest_state(directory)


def test_stopped_again_and_again_it_ends_with_the_same_bits(undisturbed: Any, tmp_path: Path) -> None:
    task, metrics, state = undisturbed
    # In the middle of an epoch, at its last batch, and before the rows held out are measured.
    for look in (4, 10):
        with pytest.raises(Stopped):
            evaluate(task, context(tmp_path, 2, stop_at_look=look))
        assert spawned_here() == []
    assert comparable(metrics_of(task, tmp_path, 2)) == comparable(metrics)
    assert same(newest_state(tmp_path), state)


def test_killed_it_ends_with_the_same_bits(undisturbed: Any, tmp_path: Path) -> None:
    task, metrics, state = undisturbed
    assert run_process(tmp_path, task, kill_at_look=12, ranks=2) == -9
    assert run_process(tmp_path, task, ranks=2) == 0
    assert comparable(json.loads((tmp_path / "metrics.json").read_text())) == comparable(metrics)
    assert same(newest_state(tmp_path), state)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_ranks_goes_on_and_is_said(before: int, after: int, tmp_path: Path) -> None:
    task = task_of(PLAIN, {"optimizer": "sgd"}, **CONFIG)
    with pytest.raises(Stopped):
        evaluate(task, context(tmp_path / "changed", before, stop_at_look=4))
    went_on = context(tmp_path / "changed", after)
    metrics = evaluate(task, went_on).metrics
    changes = [fields for event, fields in went_on.events if event == "training.environment_changed"]
    assert changes == [{"ranks": f"{before} → {after}"}]
    # Nothing of the epoch that was interrupted is missing or counted twice.
    expected = metrics_of(task, tmp_path / "alone", 1)
    for name, value in comparable(expected).items():
        assert metrics[name] == pytest.approx(value, abs=1e-5), name


@dataclass
class Murderer(StorageContext):
    """Kills a rank at a look."""

    murder_at_look: int = 3

    @property
    def should_stop(self) -> bool:
        if self.looks == self.murder_at_look:
            spawned_here()[0].kill()
        return super().should_stop


def test_a_killed_rank_ends_the_training_with_what_killed_it(tmp_path: Path) -> None:
    task = task_of(extra=EXTRA, **CONFIG)
    murderer = Murderer(tmp_path, devices=("cpu", "cpu", "cpu"))
    with pytest.raises(RankDied, match=r"rank [12] of the training was killed by SIGKILL"):
        evaluate(task, murderer)
    assert spawned_here() == []
    # This process can do it all over again.
    with pytest.raises(Stopped):
        evaluate(task, context(tmp_path, 2, stop_at_look=2))
