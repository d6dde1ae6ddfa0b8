"""What an evaluator returns and raises, as its supervisor hears it."""

from __future__ import annotations

import errno
import math
import resource
from pathlib import Path
from typing import Any

import pytest

from tenure.common import limits
from tenure.common.errors import DivergedTraining, InvalidArchitecture, InvalidConfig, MasterUnavailable
from tenure.worker.evaluator import Result
from tenure.worker.executor.context import RunContext, as_number
from tenure.worker.executor.evaluation import InvalidResult, _failure, checked_result


class Number:
    """A number of some other library."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


class Vector:
    """What torch does for a tensor of several elements."""

    def __float__(self) -> float:
        raise RuntimeError("a Tensor with 3 elements cannot be converted to Scalar")


@pytest.mark.parametrize(
    ("returned", "metrics"),
    [
        ({"fitness": 1}, {"fitness": 1.0}),
        ({"fitness": True}, {"fitness": 1.0}),
        ({"fitness": Number(0.25)}, {"fitness": 0.25}),
        ({}, {}),
        ({"loss": 3.0}, {"loss": 3.0}),
        ({"val_accuracy": 0.75}, {"val_accuracy": 0.75, "fitness": 0.75}),
        ({"val_accuracy": 0.75, "fitness": 0.5}, {"val_accuracy": 0.75, "fitness": 0.5}),
        ({"fitness": 1.0, "val_loss": math.nan, "other": math.inf}, {"fitness": 1.0}),
        (Result({"fitness": 2.0}), {"fitness": 2.0}),
    ],
)
def test_numbers_of_any_kind_are_metrics(returned: Any, metrics: dict[str, float]) -> None:
    assert checked_result(returned)["metrics"] == metrics


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (None, "returned NoneType"),
        (0.5, "returned float"),
        ({"fitness": math.nan}, "fitness is nan"),
        ({"fitness": -math.inf}, "fitness is -inf"),
        ({"fitness": "high"}, "'high', not a number"),
        ({"fitness": None}, "not a number"),
        ({"fitness": Vector()}, "not a number"),
        ({"": 1.0}, "metric name"),
        ({3: 1.0}, "metric name"),
        ({"x" * 129: 1.0}, "metric name"),
        ({str(n): 1.0 for n in range(257)}, "257 metrics"),
        (Result({}, detail="x" * (limits.DETAIL_BYTES_MAX + 1)), "detail"),
        (Result({}, detail="\ud800"), "detail"),
        ({"\ud800": 1.0}, "metric name"),
        (Result({}, detail=3), "detail"),  # type: ignore[arg-type]
        (Result({}, architecture="x" * (limits.ARCHITECTURE_BYTES_MAX + 1)), "architecture"),
    ],
)
def test_what_can_be_no_result_is_refused_and_never_retried(returned: Any, says: str) -> None:
    with pytest.raises(InvalidResult, match=says) as caught:
        checked_result(returned)
    assert not _failure(1, caught.value)["retryable"]


@pytest.mark.parametrize(
    ("error", "retryable", "out_of_memory", "replace"),
    [
        (ValueError("x"), True, False, ""),
        (InvalidArchitecture("x"), False, False, ""),
        (InvalidConfig("x"), False, False, ""),
        (DivergedTraining("x"), False, False, ""),
        (MasterUnavailable("x"), True, False, ""),
        (MemoryError(), True, True, "out_of_memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True, True, "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), True, False, ""),
        (RuntimeError("std::bad_alloc"), True, True, "out_of_memory"),
        (RuntimeError("CUDA error: out of memory"), True, True, "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True, True, "out_of_memory"),
        (RuntimeError("CUDA error: device-side assert triggered"), True, False, "device_lost"),
        (ValueError("CUDA error is a word"), True, False, ""),
        (SystemExit(3), True, False, ""),
        (KeyboardInterrupt(), True, False, ""),
    ],
)
def test_errors_by_what_they_are(error: BaseException, retryable: bool, out_of_memory: bool, replace: str) -> None:
    message = _failure(1, error)
    assert (message["retryable"], message["out_of_memory"], message["replace"]) == (retryable, out_of_memory, replace)
    assert message["error_class"] == type(error).__name__


def test_torchs_own_out_of_memory_is_recognised() -> None:
    torch = pytest.importorskip("torch")
    message = _failure(1, torch.OutOfMemoryError("Tried to allocate 20 GiB"))
    assert message["out_of_memory"]


def test_a_memory_error_says_what_python_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _failure(1, MemoryError())["message"] == "memory was refused"
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2**30, 2**31))
    assert (
        _failure(1, MemoryError())["message"]
        == "memory was refused within this executor's limit of 1,073,741,824 bytes"
    )
    assert _failure(1, MemoryError("no 3 GiB"))["message"] == "no 3 GiB"


def test_numbers() -> None:
    assert as_number("3") is None
    assert as_number(b"3") is None
    assert as_number(10**400) is None
    assert as_number(3) == 3.0


class _Outbox:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    report = send


def _context(outbox: _Outbox, tmp_path: Path) -> RunContext:
    import threading

    from tenure.common.spec import Config
    from tenure.worker.evaluator import EvaluationTask

    return RunContext(
        run=1,
        task=EvaluationTask("t", "s", "{}", Config(), 1, 2),
        registered=[],
        checkpoints_url=str(tmp_path),
        work_dir=tmp_path,
        devices=("cpu",),
        max_parameters=0,
        outbox=outbox,  # type: ignore[arg-type]
        stop=threading.Event(),
    )


def test_reports_leave_out_what_is_no_finite_number_and_say_so_once(tmp_path: Path) -> None:
    outbox = _Outbox()
    context = _context(outbox, tmp_path)
    for step in (1, 2):
        context.report(step, {"loss": math.nan, "accuracy": Number(0.5), "name": "x"}, total_steps=9)  # type: ignore[dict-item]
    reports = [message for message in outbox.sent if message["type"] == "progress"]
    assert [(one["sequence"], one["step"], one["metrics"]) for one in reports] == [
        (1, 1, {"accuracy": 0.5}),
        (2, 2, {"accuracy": 0.5}),
    ]
    assert [message["fields"]["metric"] for message in outbox.sent if message["type"] == "log"] == ["loss", "name"]


def test_log_fields_of_any_kind_and_size_can_be_sent(tmp_path: Path) -> None:
    outbox = _Outbox()
    context = _context(outbox, tmp_path)
    context.log("x" * 500, value=Number(1), path=tmp_path, event_="e")
    context.log("big", value="x" * 100_000)
    first, second = outbox.sent
    assert len(first["event"]) == 200
    assert first["fields"]["path"] == repr(tmp_path)
    assert len(second["fields"]["shortened"]) < 20_000


def test_a_checkpoint_is_announced_before_a_save_that_waits_returns(tmp_path: Path) -> None:
    outbox = _Outbox()
    context = _context(outbox, tmp_path)
    assert context.checkpoint.load() is None
    context.checkpoint.save({"step": 4}, step=4, score=0.25, wait=True)
    kinds = [message["type"] for message in outbox.sent if message["type"] != "log"]
    assert kinds == ["resumed", "saves", "checkpoint", "saves"]
    announced = next(message["checkpoint"] for message in outbox.sent if message["type"] == "checkpoint")
    assert (announced["step"], announced["epoch"], announced["score"]) == (4, 2, 0.25)
    assert outbox.sent[-1]["costs"]["saved"] == 1
    context.checkpoint.close()
