"""What the throw-away worker of a drill evaluates: nothing, with a checkpoint on the way."""

from __future__ import annotations

from tenure.worker.evaluator import Context, EvaluationTask

FITNESS = 1.0


def evaluate(task: EvaluationTask, context: Context) -> dict[str, float]:
    """Save, report, and be done."""
    context.checkpoint.save({"step": 1}, step=1, wait=True)
    context.report(1, {"fitness": FITNESS})
    return {"fitness": FITNESS}
