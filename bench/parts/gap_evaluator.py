"""The evaluators of bench/idle_gap.py: they note when each run began and ended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping

from tenure.worker.evaluator import Context, EvaluationTask, Result

NOTES = "IDLE_GAP_NOTES"


def light(task: EvaluationTask, context: Context) -> Mapping[str, float]:
    """Takes ``seconds``."""
    began = time.monotonic()
    time.sleep(float(task.config.extra.get("seconds", "0")))
    _note(began)
    return {"fitness": 1.0}


def torch(task: EvaluationTask, context: Context) -> Mapping[str, float] | Result:
    """A real training."""
    from tenure.worker.torch_eval import evaluate

    began = time.monotonic()
    try:
        return evaluate(task, context)
    finally:
        _note(began)


def _note(began: float) -> None:
    line = json.dumps({"pid": os.getpid(), "began": began, "ended": time.monotonic()})
    descriptor = os.open(os.environ[NOTES], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)
