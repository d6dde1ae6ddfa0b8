"""A training in pure Python whose end depends on every step: a resumed one must come to the same digits.

Stochastic gradient descent with momentum on random samples. Weights, momentum and the generator's state are what a
checkpoint must carry; leave one out, or do a step twice or not at all, and the final fitness has other digits.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

_TARGET = (0.7, -1.3, 2.1)
_RATE = 0.05
_MOMENTUM = 0.9


class PureTraining:
    """One training, at some step.

    Args:
        seed: Two trainings of one seed are equal after equally many steps, to the last bit.
    """

    def __init__(self, seed: str) -> None:
        self._generator = random.Random(seed)
        self._weights = [self._generator.gauss(0, 1) for _ in _TARGET]
        self._momentum = [0.0] * len(_TARGET)

    def step(self) -> None:
        """One sample's gradient."""
        sample = [self._generator.gauss(0, 1) for _ in _TARGET]
        error = sum((weight - target) * x for weight, target, x in zip(self._weights, _TARGET, sample, strict=True))
        for index, x in enumerate(sample):
            self._momentum[index] = _MOMENTUM * self._momentum[index] - _RATE * error * x
            self._weights[index] += self._momentum[index]

    @property
    def fitness(self) -> float:
        """In (0, 1]; every weight is in it."""
        return 1 / (1 + sum((weight - target) ** 2 for weight, target in zip(self._weights, _TARGET, strict=True)))

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        version, numbers, gauss_next = self._generator.getstate()
        generator = {"version": version, "numbers": list(numbers), "gauss_next": gauss_next}
        return {"weights": list(self._weights), "momentum": list(self._momentum), "generator": generator}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        generator = state["generator"]
        self._weights, self._momentum = list(state["weights"]), list(state["momentum"])
        self._generator.setstate((generator["version"], tuple(generator["numbers"]), generator["gauss_next"]))


def undisturbed_fitness(seed: str, steps: int) -> float:
    """What a training that nothing happened to comes to."""
    training = PureTraining(seed)
    for _ in range(steps):
        training.step()
    return training.fitness
