"""Trainings that are stopped and killed within one process, and what their ends must have in common."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trainings import StorageContext

from tenure.worker.evaluator import EvaluationTask, Result, Stopped
from tenure.worker.torch_eval import evaluate

# Of the run, not of the training: times, memory, and what says how often it was interrupted.
OF_THE_RUN = ("samples_per_second", "resumed_from", "peak_memory_bytes")


class Killed(BaseException):
    """Nobody catches it: nothing is saved."""


@dataclass
class DeadlyContext(StorageContext):
    """Its process "dies" at a look; see :class:`Killed`."""

    die_at_look: int = 0

    @property
    def should_stop(self) -> bool:
        stop = super().should_stop
        if self.looks == self.die_at_look:
            raise Killed
        return stop


def run(task: EvaluationTask, directory: Path, **when: int) -> Result | None:
    """One run of ``task``; None if it was interrupted. The generators are in disorder, as another task leaves them."""
    context = DeadlyContext(directory, **when)
    disturb_generators()
    try:
        return evaluate(task, context)
    except (Stopped, Killed):
        return None
    finally:
        context.checkpoint.close()


def disturb_generators() -> None:
    """What another task in the same executor would do to them."""
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    torch.rand(7)


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, types included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return (
            one.dtype is other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()
        )
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def comparable(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those that must be equal."""
    return {name: value for name, value in metrics.items() if name not in OF_THE_RUN}


def end_of(result: Result) -> tuple[str, dict[str, float]]:
    """The weights' hash, and the metrics that must be equal."""
    return result.detail, comparable(result.metrics)
