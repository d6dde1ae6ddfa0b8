"""An evaluator for tests that leaves it to StepCheckpointer when to save: ``step_evaluator:evaluate``.

It takes ``config.extra["steps"]`` steps of five milliseconds, and holds ``config.extra["bytes"]`` bytes of state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tenure.worker.evaluator import Context, EvaluationTask, StepCheckpointer

_STEP_SECONDS = 0.005


def evaluate(task: EvaluationTask, context: Context) -> Mapping[str, float]:
    """Count; the result says where this run went on from."""
    load = "x" * int(task.config.extra.get("bytes", "0"))
    saved = context.checkpoint.load()
    state: dict[str, Any] = dict(saved) if saved is not None else {"step": 0, "load": load}
    resumed_from = state["step"]
    steps = StepCheckpointer(context, lambda: state)
    for step in range(resumed_from + 1, int(task.config.extra["steps"]) + 1):
        time.sleep(_STEP_SECONDS)
        state["step"] = step
        context.report(step)
        steps.after(step)
    return {"fitness": 1.0, "resumed_from": float(resumed_from)}
