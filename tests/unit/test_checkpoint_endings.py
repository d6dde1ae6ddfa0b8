"""How a run ends, and what becomes of the saves that are not written then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from faulty_os import GatedOs, files, slow
from processes import wait_for

from tenure.worker.evaluator import Context, EvaluationTask, Stopped
from tenure.worker.executor.evaluation import carry_out

__all__ = ["slow"]


class _Outbox:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    report = send


def _carry_out(
    evaluator: Callable[[EvaluationTask, Context], Any], tmp_path: Path, after: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """What the supervisor hears, the ending included."""
    outbox, stop, leftovers = _Outbox(), threading.Event(), ExitStack()
    stop.set()
    config = {"num_epochs": 0, "batch_size": 0, "learning_rate": 0.0, "dataset": "", "extra": {}}
    task = {"task_id": "t", "search": "s", "architecture": "{}", "config": config, "attempt": 1, "epoch": 1}
    ending = carry_out(
        evaluator,
        {"run": 1, "task": task, "checkpoints": [], "work_dir": str(tmp_path)},
        checkpoints_url=str(tmp_path / "checkpoints"),
        devices=("cpu",),
        max_parameters=0,
        outbox=outbox,  # type: ignore[arg-type]
        stop=stop,
        leftovers=leftovers,
    )
    outbox.send(ending)
    after()
    leftovers.close()
    return outbox.sent


def _types(sent: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in sent if message["type"] in ("checkpoint", "done", "failed", "stopped")]


@pytest.mark.parametrize("error", [Stopped, RuntimeError, MemoryError])
def test_a_run_that_is_to_go_on_ends_when_its_last_save_is_announced(
    error: type[Exception], tmp_path: Path, slow: GatedOs
) -> None:
    def evaluate(task: EvaluationTask, context: Context) -> None:
        context.checkpoint.save({"n": 1}, step=1)
        assert slow.reached.wait(60)
        threading.Timer(0.1, slow.gate.set).start()
        raise error

    sent = _carry_out(evaluate, tmp_path)
    assert _types(sent) == ["checkpoint", "stopped" if error is Stopped else "failed"]
    assert sent[-2]["type"] == "saves"
    assert sent[-2]["costs"]["saved"] == 1


class Hopeless(Exception):
    retryable = False


@pytest.mark.parametrize("hopeless", [True, False])
def test_a_run_that_is_over_waits_for_nothing_and_announces_nothing_after_its_end(
    hopeless: bool, tmp_path: Path, slow: GatedOs
) -> None:
    def evaluate(task: EvaluationTask, context: Context) -> dict[str, float]:
        context.checkpoint.save({"n": 1}, step=1)
        assert slow.reached.wait(60)
        context.checkpoint.save({"n": 2}, step=2)
        if hopeless:
            raise Hopeless
        return {"fitness": 1.0}

    def open_the_gate() -> None:
        slow.gate.set()
        wait_for(lambda: not slow.writing_threads(), what="the writing thread notices that it is over")

    # The gate opens only once the ending has been sent.
    sent = _carry_out(evaluate, tmp_path, after=open_the_gate)
    assert _types(sent) == ["failed" if hopeless else "done"]
    assert sent[-1]["type"] in ("failed", "done")
    assert files(tmp_path / "checkpoints") == []
    assert not slow.writing_threads()
