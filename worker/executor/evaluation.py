"""One evaluation: from the ``evaluate`` message to the message that says how it ended."""

from __future__ import annotations

import errno
import math
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tenure.common import limits, tracing
from tenure.common.errors import InvalidInput
from tenure.common.spec import Config
from tenure.worker import host_memory
from tenure.worker.checkpoint.handle import RegisteredCheckpoint
from tenure.worker.checkpoint.interval import CheckpointPolicy
from tenure.worker.evaluator import EvaluationTask, Evaluator, Result, Stopped
from tenure.worker.executor.context import RunContext, as_number
from tenure.worker.executor.outbox import Outbox
from tenure.worker.executor.spans import begin_evaluation
from tenure.worker.pipe import Message

_TRACEBACK_CHARS_MAX = 8 * 1024
# Of RuntimeErrors: torch has a class only for what its CUDA allocator refuses.
_OUT_OF_MEMORY = re.compile(
    r"CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
    r"|DefaultCPUAllocator: (can't allocate|not enough) memory|std::bad_alloc"
)
# The context of the device is broken for the whole process.
_DEVICE_LOST = re.compile(r"CUDA error|device-side assert|CUDNN_STATUS_EXECUTION_FAILED|NCCL error|HIP error")


class InvalidResult(Exception):
    """The evaluator returned what can't be a result: the same code would again, so it isn't retried."""

    retryable = False


def carry_out(
    evaluator: Evaluator,
    message: Message,
    *,
    checkpoints_url: str,
    devices: tuple[str, ...],
    max_parameters: int,
    outbox: Outbox,
    stop: threading.Event,
    leftovers: ExitStack,
) -> Message:
    """Run the evaluation that ``message`` asks for; returns how it ended: ``done``, ``failed`` or ``stopped``.

    No checkpoint is announced after that. What of the run is still to be cleared away is pushed on ``leftovers``, for
    when the ending is told.
    """
    run = int(message["run"])
    context = RunContext(
        run=run,
        task=(task := _task_of(message["task"])),
        registered=[RegisteredCheckpoint(**named) for named in message["checkpoints"]],
        checkpoints_url=checkpoints_url,
        work_dir=Path(message["work_dir"]),
        devices=devices,
        max_parameters=max_parameters,
        outbox=outbox,
        stop=stop,
        policy=CheckpointPolicy(**message.get("checkpoint_policy", {})),
        lease_trace=str(message.get("trace", {}).get("lease", "")),
    )
    leftovers.callback(context.checkpoint.close)
    _forget_peaks()
    try:
        ending = _traced_ending_of(run, evaluator, task, context, message.get("trace", {}))
        if ending["type"] == "stopped" or ending.get("retryable"):
            # The next run of the task goes on from the last save. If that can't be waited for, the run has failed.
            context.checkpoint.wait()
    except BaseException as error:  # noqa: BLE001 - translated: what the writing thread could not do
        ending = _failure(run, error)
    ending["peak_bytes"] = _peak_bytes(context.device)
    context.checkpoint.abandon()
    context.checkpoint.send_costs()
    # The supervisor may have this process killed as soon as it hears of the end.
    tracing.flush()
    return ending


def _traced_ending_of(
    run: int, evaluator: Evaluator, task: EvaluationTask, context: RunContext, trace: Mapping[str, str]
) -> Message:
    span = begin_evaluation(trace, search=task.search, task=task.task_id, epoch=task.epoch, attempt=task.attempt)
    with span.current():
        ending = _ending_of(run, evaluator, task, context)
    failed = ending["type"] == "failed"
    span.set(
        outcome=ending["type"], resumed_step=context.checkpoint.resumed_step, error_class=ending.get("error_class")
    )
    span.end(f"{ending['error_class']}: {ending['message']}" if failed else "")
    return ending


def _ending_of(run: int, evaluator: Evaluator, task: EvaluationTask, context: RunContext) -> Message:
    try:
        return {"type": "done", "run": run, **checked_result(evaluator(task, context))}
    except Stopped as error:
        return {"type": "stopped", "run": run} if context.should_stop else _failure(run, error)
    except BaseException as error:  # noqa: BLE001 - translated: whatever user code raises is the run's failure
        return _failure(run, error)


def checked_result(returned: Any) -> dict[str, Any]:
    """The fields of ``done`` from what the evaluator returned.

    The wire carries doubles and searches compare them, so: without a finite ``fitness`` there is no result
    (``val_accuracy`` stands in for an absent one, as in MorphML); any other metric that is not finite is left out,
    with a line in the output.

    Raises:
        InvalidResult: Says which part of it can't be a result.
    """
    result = returned if isinstance(returned, Result) else Result(returned)
    if not isinstance(result.metrics, Mapping):
        raise InvalidResult(
            f"the evaluator returned {type(returned).__name__}: return a mapping of metric names to numbers"
        )
    if len(result.metrics) > limits.METRICS_ENTRIES_MAX:
        raise InvalidResult(f"{len(result.metrics)} metrics; at most {limits.METRICS_ENTRIES_MAX} are allowed")
    metrics: dict[str, float] = {}
    for name, value in result.metrics.items():
        if not name or not _is_text(name, limits.METRIC_NAME_BYTES_MAX):
            raise InvalidResult(f"metric name {name!r:.80} is not a text of 1 to {limits.METRIC_NAME_BYTES_MAX} bytes")
        number = as_number(value)
        if number is None:
            raise InvalidResult(f"metric {name!r} is {value!r:.80}, not a number")
        if math.isfinite(number):
            metrics[name] = number
        elif name == "fitness":
            raise InvalidResult(f"fitness is {number}: the training diverged, or the measure is undefined")
        else:
            sys.stderr.write(f"tenure: metric {name!r} is {number} and was left out\n")
    if "fitness" not in metrics and "val_accuracy" in metrics:
        metrics["fitness"] = metrics["val_accuracy"]
    for field, text, bytes_max in (
        ("detail", result.detail, limits.DETAIL_BYTES_MAX),
        ("architecture", result.architecture, limits.ARCHITECTURE_BYTES_MAX),
    ):
        if not _is_text(text, bytes_max):
            raise InvalidResult(f"{field} is not a text of at most {bytes_max} bytes of UTF-8")
    return {"metrics": metrics, "detail": result.detail, "architecture": result.architecture}


def _is_text(value: Any, bytes_max: int) -> bool:
    try:
        return isinstance(value, str) and len(value.encode()) <= bytes_max
    except UnicodeEncodeError:
        return False


def _task_of(fields: dict[str, Any]) -> EvaluationTask:
    return EvaluationTask(**{**fields, "config": Config(**fields["config"])})


def _failure(run: int, error: BaseException) -> Message:
    out_of_memory = _is_out_of_memory(error)
    message = _text_of(error) or (_no_memory() if out_of_memory else "")
    return {
        "type": "failed",
        "run": run,
        "error_class": _class_of(error),
        "message": message,
        # Bad input says by itself which field is wrong; where in Tenure that was noticed helps nobody.
        "traceback": "" if isinstance(error, InvalidInput) else _traceback_of(error),
        "retryable": _is_retryable(error),
        "out_of_memory": out_of_memory,
        "replace": "out_of_memory"
        if out_of_memory
        else "device_lost"
        if isinstance(error, RuntimeError) and _DEVICE_LOST.search(message)
        else "",
    }


def _class_of(error: BaseException) -> str:
    """The class by name; torch's as ``torch.OutOfMemoryError``, so that a retry rule can mean all of torch's."""
    cls = type(error)
    return f"torch.{cls.__qualname__}" if cls.__module__.partition(".")[0] == "torch" else cls.__qualname__


def _is_retryable(error: BaseException) -> bool:
    """What the error says of itself, else yes: a TenureError about input never is, as the input won't change."""
    if isinstance(error, InvalidInput):
        return False
    return getattr(error, "retryable", True) is not False


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if not isinstance(error, RuntimeError):
        return False
    torch_class = getattr(sys.modules.get("torch"), "OutOfMemoryError", None)
    if torch_class is not None and isinstance(error, torch_class):
        return True
    return _OUT_OF_MEMORY.search(_text_of(error)) is not None


def _no_memory() -> str:
    """In the place of Python's own MemoryError, which says nothing."""
    limit = host_memory.own_limit_bytes()
    return "memory was refused" + (f" within this executor's limit of {limit:,} bytes" if limit else "")


def _forget_peaks() -> None:
    host_memory.forget_peak()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def _peak_bytes(device: str) -> int:
    """The most memory that the run has had: the GPU's if it was on one, else this process's."""
    torch: Any = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated(device))
    return host_memory.peak_bytes()


def _text_of(error: BaseException) -> str:
    """The error's text, even of one that can't say it."""
    try:
        text = str(error)
    except Exception as second:  # noqa: BLE001 - translated: user code again
        text = f"(its text can't be made: {type(second).__qualname__})"
    return text.encode("utf-8", "replace")[: limits.ERROR_MESSAGE_BYTES_MAX].decode("utf-8", "ignore")


def _traceback_of(error: BaseException) -> str:
    """The end of the traceback, without the frames of this module."""
    trace = error.__traceback__.tb_next if error.__traceback__ else None
    text = "".join(traceback.format_exception(type(error), error, trace))
    return text[-_TRACEBACK_CHARS_MAX:]
