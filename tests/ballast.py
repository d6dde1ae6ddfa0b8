"""Evaluators for tests of memory: the real torch one beside something that takes memory no estimate knows of, and one
that simply takes a lot."""

from __future__ import annotations

import os
from typing import Any

from tenure.worker import host_memory
from tenure.worker.evaluator import Context, EvaluationTask, ExpectedMemory, Result

LEAVES_ENV = "BALLAST_LEAVES_BYTES"


class BallastContext:
    """The run's own context, until the evaluator has said what it is going to take: then most of the rest is gone."""

    def __init__(self, inner: Context) -> None:
        self._inner = inner
        self.ballast = bytearray()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def expect_memory(self, expected: ExpectedMemory) -> None:
        """Pass it on, and leave the training so many bytes."""
        self._inner.expect_memory(expected)
        free = host_memory.free_bytes()
        assert free is not None
        self.ballast = bytearray(max(0, free - int(os.environ[LEAVES_ENV])))


def evaluate(task: EvaluationTask, context: Context) -> Result:
    """The built-in evaluator's result."""
    from tenure.worker.torch_eval import evaluate as train

    beside: Any = BallastContext(context)
    return train(task, beside)


def hungry(task: EvaluationTask, context: Context) -> dict[str, float]:
    """Takes ``config.extra.bytes``, wants another slot if it can't have them."""
    wanted = int(task.config.extra["bytes"])
    context.expect_memory(ExpectedMemory(estimated_bytes=wanted, on_out_of_memory="elsewhere"))
    held = bytearray(wanted)
    return {"fitness": float(len(held))}
