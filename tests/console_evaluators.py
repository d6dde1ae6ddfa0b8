"""An evaluator for tests of the console: it prints, fails or waits as ``config.extra`` says.

``say`` is printed; ``raise`` is the text of an error that must not be retried; ``gate`` is the path of a file that the
run waits for; ``fitness`` is what it returns; ``steps`` are reported and checkpointed before that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from tenure.worker.evaluator import Context, EvaluationTask, Stopped

_POLL_SECONDS = 0.02


class Hopeless(Exception):
    """Trying again can't help."""

    retryable = False


def evaluate(task: EvaluationTask, context: Context) -> Mapping[str, float]:
    """See the module."""
    extra = task.config.extra
    if "say" in extra:
        print(extra["say"], flush=True)  # noqa: T201 - what the console is to show
    for step in range(1, int(extra.get("steps", "0")) + 1):
        context.checkpoint.save({"step": step}, step=step, wait=True)
        context.report(step, {}, total_steps=int(extra["steps"]) + 1)
    if "raise" in extra:
        raise Hopeless(extra["raise"])
    while "gate" in extra and not Path(extra["gate"]).exists():
        if context.should_stop:
            raise Stopped
        time.sleep(_POLL_SECONDS)
    return {"fitness": float(extra.get("fitness", "0.5"))}
