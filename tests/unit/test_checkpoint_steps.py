"""StepCheckpointer, and the context for trying an evaluator without a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenure.common.errors import InvalidInput
from tenure.worker.evaluator import MemoryCheckpoints, MemoryContext, StepCheckpointer, Stopped


def test_it_saves_when_due_and_only_then(tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    captured = []
    state = {"x": 0}
    steps = StepCheckpointer(context, lambda: captured.append(1) or state)
    for step in range(1, 10):
        state["x"] = step * step
        context.checkpoint.due = step in (3, 6)
        steps.after(step)
    assert context.checkpoint.saved == [(3, {"x": 9}), (6, {"x": 36})], "each as it was then"
    assert len(captured) == 2, "nothing is captured that isn't saved"


def test_when_stopped_it_saves_waits_and_says_so(tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    waited = []
    context.checkpoint = type("Noting", (MemoryCheckpoints,), {"wait": lambda self: waited.append(1)})()
    steps = StepCheckpointer(context, lambda: {"x": 1})
    context.should_stop = True
    with pytest.raises(Stopped):
        steps.after(4)
    assert [step for step, _ in context.checkpoint.saved] == [4]
    assert waited == [1]


def test_what_was_just_saved_is_not_saved_again_when_stopped(tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    steps = StepCheckpointer(context, lambda: {"x": 1})
    steps.save(4, score=0.5)
    context.should_stop = True
    with pytest.raises(Stopped):
        steps.after(4)
    assert [step for step, _ in context.checkpoint.saved] == [4]


def test_what_can_not_be_kept_is_refused_without_a_worker_too(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"state\.x"):
        MemoryContext(tmp_path).checkpoint.save({"x": object()}, step=1)
