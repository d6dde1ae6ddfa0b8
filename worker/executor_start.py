"""From what a slot is to an executor that is ready for its runs, and what is said of one that can't be told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from tenure.worker.devices import SlotDevices
from tenure.worker.executor_process import ExecutorProcess, Exited
from tenure.worker.pipe import Message, PipeBroken
from tenure.worker.runs import Run

log = structlog.get_logger()


class ExecutorUnusable(Exception):
    """An executor did not get ready; the text says why, with the end of its output."""


@dataclass(frozen=True)
class SlotSettings:
    """What all slots of a worker share."""

    evaluator: str
    checkpoints_url: str
    max_parameters: int
    tasks_per_executor: int
    stop_grace_seconds: float
    start_timeout_seconds: float
    leak_bytes_max: int = 0
    ignored_xids: frozenset[int] = frozenset()


async def start_executor(
    slot: int, devices: SlotDevices, environment: Mapping[str, str], settings: SlotSettings
) -> ExecutorProcess:
    """Start one and wait until it has imported the evaluator.

    Raises:
        ExecutorUnusable: It can't be, or could not within its time.
    """
    started = time.monotonic()
    try:
        executor = await ExecutorProcess.start(
            evaluator=settings.evaluator,
            devices=devices.names,
            checkpoints_url=settings.checkpoints_url,
            max_parameters=settings.max_parameters,
            environment=environment,
        )
    except OSError as error:
        raise ExecutorUnusable(f"no process can be started: {error}") from error
    try:
        async with asyncio.timeout(settings.start_timeout_seconds):
            event = await executor.events.get()
            while event is None:
                event = await executor.events.get()
    except TimeoutError:
        executor.kill("was not ready in time")
        raise ExecutorUnusable(
            f"importing {settings.evaluator} took longer than {settings.start_timeout_seconds:g} s"
        ) from None
    except asyncio.CancelledError:
        executor.kill("the worker ends")
        raise
    if isinstance(event, Exited):
        raise ExecutorUnusable(f"the executor {event}\n{executor.output_tail()}".rstrip())
    if event["type"] != "ready":
        tail = executor.output_tail()
        executor.kill("refused")
        raise ExecutorUnusable(f"{event.get('error', event['type'])}\n{tail}".rstrip())
    log.debug("executor.ready", slot=slot, pid=executor.pid, seconds=round(time.monotonic() - started, 3))
    return executor


def never_started(run: Run, error: PipeBroken) -> Message:
    """How a run ended that could not even be said to its executor."""
    return {
        "type": "failed",
        "run": run.number,
        "error_class": type(error).__name__,
        "message": f"the run could not be started: {error}",
        "retryable": False,
        "out_of_memory": False,
    }
