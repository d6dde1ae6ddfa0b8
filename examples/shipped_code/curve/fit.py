"""The evaluator: gradient descent on the coefficients of a Legendre series, no torch needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from curve.points import POINTS
from tenure.worker.evaluator import Context, EvaluationTask, Stopped


def evaluate(task: EvaluationTask, context: Context) -> Mapping[str, float]:
    """Fitness is the mean squared error, negated; the architecture says which degree."""
    degree = json.loads(task.architecture)["degree"]
    rows = [(legendre(x, degree), y) for x, y in POINTS]
    state = context.checkpoint.load() or {"step": 0, "weights": [0.0] * (degree + 1)}
    weights = list(state["weights"])
    steps = task.config.num_epochs or 200
    for step in range(state["step"] + 1, steps + 1):
        if context.should_stop:
            context.checkpoint.save({"step": step - 1, "weights": weights}, step=step - 1)
            raise Stopped
        for index in range(degree + 1):
            slope = sum(2 * (dot(weights, row) - y) * row[index] for row, y in rows) / len(rows)
            weights[index] -= 0.5 * slope
        context.report(step, total_steps=steps)
    error = sum((dot(weights, row) - y) ** 2 for row, y in rows) / len(rows)
    return {"fitness": -error, "degree": degree}


def legendre(x: float, degree: int) -> list[float]:
    """The first polynomials at ``x``, by Bonnet's recursion."""
    values = [1.0, x]
    for n in range(1, degree):
        values.append(((2 * n + 1) * x * values[n] - n * values[n - 1]) / (n + 1))
    return values[: degree + 1]


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    """The scalar product."""
    return sum(a * b for a, b in zip(left, right, strict=True))
