"""What an evaluator is given: :class:`tenure.worker.evaluator.Context`, spoken over the pipe."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tenure.common import limits, tracing
from tenure.common.errors import CheckpointError
from tenure.worker.checkpoint.handle import ExecutorCheckpoints, RegisteredCheckpoint, Write
from tenure.worker.checkpoint.interval import CheckpointPolicy
from tenure.worker.checkpoint.writer import WrittenCheckpoint
from tenure.worker.evaluator import EvaluationTask, ExpectedMemory
from tenure.worker.executor.outbox import Outbox
from tenure.worker.executor.spans import tell_checkpoint
from tenure.worker.pipe import Message

_LOG_BYTES_MAX = 16 * 1024
_EVENT_CHARS_MAX = 200


class RunContext:
    """The context of one run. The evaluator's thread uses it; ``stop`` is set by the thread that reads the pipe."""

    def __init__(
        self,
        *,
        run: int,
        task: EvaluationTask,
        registered: list[RegisteredCheckpoint],
        checkpoints_url: str,
        work_dir: Path,
        devices: tuple[str, ...],
        max_parameters: int,
        outbox: Outbox,
        stop: threading.Event,
        policy: CheckpointPolicy | None = None,
        lease_trace: str = "",
    ) -> None:
        self.device = devices[0]
        self.devices = devices
        self.work_dir = work_dir
        self.max_parameters = max_parameters
        self._run = run
        self._outbox = outbox
        self._stop = stop
        self._sequence = 0
        self._warned: set[str] = set()
        self.checkpoint = PipedCheckpoints(
            run,
            outbox,
            base_url=checkpoints_url,
            search=task.search,
            task_id=task.task_id,
            epoch=task.epoch,
            registered=registered,
            announce=self._announce,
            log=self.log,
            policy=policy,
            lease_trace=lease_trace,
        )

    @property
    def should_stop(self) -> bool:
        """True once the worker drains, the task is cancelled or its lease is lost."""
        return self._stop.is_set()

    def report(self, step: int, metrics: Mapping[str, float] | None = None, *, total_steps: int = 0) -> None:
        """Say how far the evaluation is; what is no finite number is left out and said once in the log."""
        self._sequence += 1
        self._outbox.report(
            {
                "type": "progress",
                "run": self._run,
                "sequence": self._sequence,
                "step": int(step),
                "total_steps": int(total_steps),
                "metrics": self._finite(metrics or {}),
            }
        )

    def log(self, event: str, **fields: Any) -> None:
        """One structured line in the worker's log; fields that aren't JSON appear as their ``repr``."""
        text = json.dumps(fields, default=repr, ensure_ascii=False, skipkeys=True)
        if len(text) > _LOG_BYTES_MAX:
            fields_sent: Any = {"shortened": text[:_LOG_BYTES_MAX]}
        else:
            fields_sent = json.loads(text)
        self._outbox.send(
            {
                "type": "log",
                "run": self._run,
                "event": str(event)[:_EVENT_CHARS_MAX],
                "fields": fields_sent,
                "trace": tracing.current(),
            }
        )

    def expect_memory(self, expected: ExpectedMemory) -> None:
        """Have the supervisor know it, even if it is the kernel that ends the run."""
        self._outbox.send({"type": "memory", "run": self._run, "expected": asdict(expected)})

    def _finite(self, metrics: Mapping[str, float]) -> dict[str, float]:
        finite: dict[str, float] = {}
        for name, value in metrics.items():
            number = as_number(value)
            if number is not None and math.isfinite(number) and len(finite) < limits.METRICS_ENTRIES_MAX:
                finite[str(name)[: limits.METRIC_NAME_BYTES_MAX]] = number
            elif name not in self._warned and len(self._warned) < limits.METRICS_ENTRIES_MAX:
                self._warned.add(name)
                self.log("progress.metric_left_out", metric=name, value=repr(value)[:100])
        return finite

    def _announce(self, written: WrittenCheckpoint) -> None:
        checkpoint: Message = {
            "url": written.url,
            "step": written.step,
            "digest": written.digest,
            "size_bytes": written.size_bytes,
            "epoch": written.epoch,
        }
        if written.score is not None:
            checkpoint["score"] = written.score
        self._outbox.send({"type": "checkpoint", "run": self._run, "checkpoint": checkpoint})


class PipedCheckpoints(ExecutorCheckpoints):
    """Tells the supervisor where the run goes on from and what its checkpoints cost."""

    def __init__(self, run: int, outbox: Outbox, *, lease_trace: str, **arguments: Any) -> None:
        super().__init__(**arguments, written=self._send_write)
        self._run = run
        self._outbox = outbox
        self._lease_trace = lease_trace

    def load(self) -> Mapping[str, Any] | None:
        """See :class:`tenure.worker.evaluator.CheckpointHandle`."""
        began = time.monotonic()
        try:
            state = super().load()
        except CheckpointError as error:
            self._tell("load", time.monotonic() - began, str(error))
            raise
        self._tell("load", time.monotonic() - began, step=self.resumed_step)
        self._outbox.send({"type": "resumed", "run": self._run, "step": self.resumed_step or 0})
        self.send_costs()
        return state

    def send_costs(self) -> None:
        """Either thread may: the counters only rise, and the supervisor takes each for itself."""
        self._outbox.send({"type": "saves", "run": self._run, "costs": dict(vars(self.counters))})

    def _tell(self, what: str, seconds: float, error: str = "", **attributes: Any) -> None:
        about = {"search": self._search, "task": self._task_id, "epoch": self._epoch}
        tell_checkpoint(what, self._lease_trace, seconds, error, **about, **attributes)

    def _send_write(self, write: Write) -> None:
        self._tell("save", write.seconds, write.error, step=write.step, bytes=write.size_bytes)
        costs = dict(vars(self.counters))
        self._outbox.send({"type": "saves", "run": self._run, "costs": costs, "write_seconds": write.seconds})


def as_number(value: Any) -> float | None:
    """``value`` as a float if it is a number of any library (bool, numpy, a tensor of one element); else None."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        # RuntimeError: torch on a tensor of several elements.
        return None
