"""An evaluator of your own, and a search that uses it: here a descent on Rosenbrock's function, any code would do.

    tenure worker --evaluator custom_evaluator:evaluate --python-path examples
    python examples/custom_evaluator.py

An evaluator is a function that workers import by name. This one shows all it needs to survive: it loads the last
checkpoint, saves one whenever that is worth its cost, reports how far it is, and stops when it is told to. Kill the
worker: another one goes on from the last checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from tenure.client import Client
from tenure.worker.evaluator import Context, EvaluationTask, StepCheckpointer

STEPS = 2_000


def evaluate(task: EvaluationTask, context: Context) -> Mapping[str, float]:
    """Minimise from the point that the architecture names; fitness is higher for lower values."""
    asked = json.loads(task.architecture)
    rate = task.config.learning_rate or 1e-3
    state = context.checkpoint.load() or {"step": 0, "x": asked["x"], "y": asked["y"]}
    x, y = state["x"], state["y"]
    steps = StepCheckpointer(context, lambda: {"step": step, "x": x, "y": y})
    for step in range(state["step"] + 1, STEPS + 1):
        slope_x, slope_y = -2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)
        x, y = x - rate * slope_x, y - rate * slope_y
        if step % 500 == 0:
            context.report(step, {"value": rosenbrock(x, y)}, total_steps=STEPS)
        # Saves when a checkpoint is due; when the run is to stop it saves, and raises Stopped.
        steps.after(step)
    return {"fitness": -rosenbrock(x, y), "x": x, "y": y}


def rosenbrock(x: float, y: float) -> float:
    """Zero at (1, 1), in a long, flat, curved valley."""
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


if __name__ == "__main__":
    with Client() as client:
        # Format json: these "architectures" are no graphs, and nobody but the evaluator reads them.
        search = client.search("rosenbrock", architecture_format="json")
        starts = [{"x": x, "y": y} for x in (-1.0, 0.0, 1.5) for y in (-0.5, 1.0)]
        handles = search.submit_many({"architecture": start, "config": {"learning_rate": 1e-3}} for start in starts)
        results = [handle.result() for handle in search.as_completed(handles)]
        best = max(results, key=lambda result: result.metrics["fitness"])
        x, y = best.metrics["x"], best.metrics["y"]
        print(f"best of {len(results)}: {-best.metrics['fitness']:.6f} at {x:.3f}, {y:.3f}")
