"""The results of a search over time, in bounded memory however many there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

POINTS_MAX = 1600
STEPS_MAX = 400


class Point(NamedTuple):
    """One result: when it came, the how-manieth it was, its fitness if it has one."""

    at_unix_ms: int
    number: int
    fitness: float | None


class Step(NamedTuple):
    """A result that was better than all before it."""

    at_unix_ms: int
    number: int
    fitness: float
    task_id: str


@dataclass
class Curve:
    """Results in the order of their ends. Of many, every second, fourth, … is kept, and every new best.

    Attributes:
        count: How many there were.
        points: Some of them, evenly; the first among them.
        steps: The best so far. Of more than STEPS_MAX, the older ones are thinned out.
    """

    count: int = 0
    points: list[Point] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    _stride: int = 1

    def add(self, task_id: str, at_unix_ms: int, fitness: float | None) -> None:
        """The next result."""
        if self.count % self._stride == 0:
            self.points.append(Point(at_unix_ms, self.count + 1, fitness))
            if len(self.points) > POINTS_MAX:
                self.points = self.points[::2]
                self._stride *= 2
        self.count += 1
        if fitness is not None and (not self.steps or fitness > self.steps[-1].fitness):
            self.steps.append(Step(at_unix_ms, self.count, fitness, task_id))
            if len(self.steps) > STEPS_MAX:
                half = STEPS_MAX // 2
                self.steps = self.steps[:half:2] + self.steps[half:]
