"""One run in one executor: from the ``evaluate`` message to the last word, within its limits.

The limits (timeout, progress deadline, the grace after a stop) are watched here, in the supervisor's process and by
its monotonic clock, so that an evaluation that holds the GIL or is stopped itself can't miss them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

import structlog

from tenure.common.errors import InvalidInput
from tenure.common.traceparent import log_fields
from tenure.proto import worker_pb2
from tenure.worker.host_memory import kernel_kills
from tenure.worker.out_of_memory import ExpectedMemory
from tenure.worker.pipe import Message
from tenure.worker.runs import Run, finite_metrics
from tenure.worker.slots.executor_process import ExecutorProcess, Exited

log = structlog.get_logger()

# Of what executors log: work is lost, or would be if the run died now.
WARNINGS = frozenset({"checkpoint.failed", "checkpoint.none_usable", "checkpoint.skipped"})

# A limit that has passed must still be passed after this: had the whole worker been stopped, reports are queued.
_SECOND_LOOK_SECONDS = 0.2

# Of every log line: an evaluation's fields of these names get an underscore.
_OWN_FIELDS = frozenset(
    [
        "event",
        "level",
        "timestamp",
        "component",
        "worker",
        "search",
        "task",
        "epoch",
        "attempt",
        "trace_id",
        "span_id",
        "exc_info",
        "exception",
        "stack_info",
        "stack",
    ]
)


class RunObserver(Protocol):
    """Whom an execution tells what the run says of itself."""

    def run_progressed(self, run: Run) -> None:
        """The run has reported."""

    def run_resumed(self, run: Run) -> None:
        """The run has said which step it goes on from."""

    def checkpoint_saved(self, run: Run, checkpoint: worker_pb2.Checkpoint) -> None:
        """A checkpoint is whole on storage and to be registered."""

    def checkpoint_costs(self, run: Run, costs: Mapping[str, float], write_seconds: float | None = None) -> None:
        """What the run's checkpoints have cost so far (the fields of CheckpointCounters); after a write, and the
        seconds that it took."""


class Execution:
    """Follows one run. Make it, then :meth:`follow` it once."""

    def __init__(self, run: Run, executor: ExecutorProcess, observer: RunObserver, stop_grace_seconds: float) -> None:
        self._run = run
        self._executor = executor
        self._observer = observer
        self._stop_grace_seconds = stop_grace_seconds
        self._stop_sent = False
        self._suspicious_at = math.inf

    async def follow(self) -> Message | Exited:
        """The run's last message (``done``, ``failed``, ``stopped``), or the end of the executor.

        A run that was told to stop and doesn't is killed with its executor when its grace is over.
        """
        kills_before = kernel_kills()
        while True:
            event = await self._next_event()
            if isinstance(event, Exited):
                self._run.kernel_kills = kernel_kills() - kills_before
            if isinstance(event, Exited) or (event is not None and self._take_safely(event)):
                return event
            self._check_limits()
            if self._run.stop_reason is not None:
                self._pass_stop_on()
                if self._run.grace_is_over():
                    self._executor.kill(f"did not stop within {self._run.grace_seconds:g} s and was killed")
                    return await self._last_word()

    async def _next_event(self) -> Message | Exited | None:
        """The next event; None when it is time to look up, or somebody wants it."""
        now = time.monotonic()
        seconds = (self._suspicious_at if self._suspicious_at < math.inf else self._run.look_up_at()) - now
        try:
            async with asyncio.timeout(None if seconds == math.inf else max(0.0, seconds)):
                return await self._executor.events.get()
        except TimeoutError:
            return None

    async def _last_word(self) -> Message | Exited:
        """The end of an executor that was killed; a success that was under way still counts."""
        while True:
            event = await self._executor.events.get()
            last = isinstance(event, Exited) or (event is not None and self._take_safely(event))
            if last and event is not None and (isinstance(event, Exited) or event["type"] == "done"):
                return event

    def _check_limits(self) -> None:
        if self._run.stop_reason is not None or (overdue := self._run.overdue()) is None:
            self._suspicious_at = math.inf
        elif self._suspicious_at == math.inf:
            self._suspicious_at = time.monotonic() + _SECOND_LOOK_SECONDS
        elif time.monotonic() >= self._suspicious_at:
            self._run.stop(overdue, self._stop_grace_seconds)
            self._suspicious_at = math.inf

    def _pass_stop_on(self) -> None:
        if not self._stop_sent and self._run.stop_reason is not None:
            self._stop_sent = True
            reason = self._run.stop_reason.value
            log.info("task.stopping", **self._run.log_fields, reason=reason)
            self._executor.send({"type": "stop", "run": self._run.number, "reason": reason})

    def _take_safely(self, message: Message) -> bool:
        """:meth:`_take`, from a process in which user code may do anything, to its end of the pipe too."""
        try:
            return self._take(message)
        except (KeyError, TypeError, ValueError, AttributeError, InvalidInput) as error:
            self._executor.kill(f"broke the protocol: {message['type']}: {type(error).__name__}: {error}")
            return False

    def _take(self, message: Message) -> bool:
        """Take a message of the run; whether it is the last."""
        run = self._run
        if message.get("run") != run.number:
            return False
        match message["type"]:
            case "done":
                finite_metrics(message["metrics"])
                return isinstance(message["detail"] + message["architecture"], str)
            case "failed":
                return {"error_class", "message", "retryable", "out_of_memory"} <= message.keys()
            case "stopped":
                return True
            case "progress":
                run.report(message)
                self._observer.run_progressed(run)
            case "resumed":
                run.steps_start = int(message["step"])
                self._observer.run_resumed(run)
            case "checkpoint":
                self._observer.checkpoint_saved(run, worker_pb2.Checkpoint(**message["checkpoint"]))
            case "memory":
                run.expected_memory = ExpectedMemory(**message["expected"])
            case "saves":
                write_seconds = message.get("write_seconds")
                self._observer.checkpoint_costs(
                    run, message["costs"], None if write_seconds is None else float(write_seconds)
                )
            case "log":
                write = log.warning if message["event"] in WARNINGS else log.info
                fields = {**run.log_fields, **log_fields(str(message.get("trace", "")))}
                write(message["event"], **_without_clashes(message["fields"]), **fields)
        return False


def evaluate_message(run: Run, work_dir: str, trace: Mapping[str, str]) -> Message:
    """The ``evaluate`` message of a run; ``trace``: from :meth:`RunSpan.started`."""
    request = run.request
    return {
        "type": "evaluate",
        "run": run.number,
        "task": {
            "task_id": request.task_id,
            "search": request.search,
            "architecture": request.architecture,
            "config": {
                "num_epochs": request.config.num_epochs,
                "batch_size": request.config.batch_size,
                "learning_rate": request.config.learning_rate,
                "dataset": request.config.dataset,
                "extra": dict(request.config.extra),
            },
            "attempt": max(request.attempt, 1),
            "epoch": request.epoch,
            "out_of_memory": request.out_of_memory,
        },
        "checkpoints": [
            {"url": named.url, "digest": named.digest, "step": named.step} for named in request.checkpoints
        ],
        "checkpoint_policy": asdict(run.checkpoint_policy),
        "work_dir": work_dir,
        "trace": dict(trace),
    }


def _without_clashes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation's fields, none of which may stand for the line's own."""
    return {(f"{name}_" if name in _OWN_FIELDS else name): value for name, value in fields.items()}
