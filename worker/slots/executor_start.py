"""From what a slot is to an executor that is ready for its runs, and what is said of one that can't be told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from tenure.proto import worker_pb2
from tenure.worker.code.programs import Program, Programs
from tenure.worker.gpu.devices import SlotDevices
from tenure.worker.pipe import Message, PipeBroken
from tenure.worker.runs import Run, outcome_of, release_of
from tenure.worker.settings import WorkerSettings
from tenure.worker.slots.executor_process import ExecutorProcess, Exited
from tenure.worker.slots.memory import Memories, executor_bytes_max, slot_memory_bytes

log = structlog.get_logger()


class ExecutorUnusable(Exception):
    """An executor did not get ready; the text says why, with the end of its output.

    Attributes:
        ending: How the run ends that wanted it; None: it is the worker's fault, and the run is to be handed back.
        output: The end of what it printed.
    """

    def __init__(self, text: str, ending: Message | Exited | None = None, output: str = "") -> None:
        super().__init__(f"{text}\n{output}".rstrip())
        self.ending = ending
        self.output = output

    def outcome_of(self, run: Run) -> worker_pb2.Outcome | None:
        """What the master is told of the run that wanted it; None: nothing, as the lease is gone."""
        if self.ending is None:
            return release_of(run, f"the executor could not be started: {self}") if run.holds_lease else None
        return outcome_of(run, self.ending, self.output)


@dataclass(frozen=True)
class SlotSettings:
    """What all slots of a worker share. ``slot_memory_bytes``: as the worker has registered it; 0: unknown."""

    evaluator: str
    checkpoints_url: str
    max_parameters: int
    tasks_per_executor: int
    stop_grace_seconds: float
    start_timeout_seconds: float
    leak_bytes_max: int = 0
    ignored_xids: frozenset[int] = frozenset()
    memory_bytes_max: int = 0
    slot_memory_bytes: int = 0
    programs: Programs | None = None

    @classmethod
    def of(
        cls, settings: WorkerSettings, machine: Memories, devices: Sequence[SlotDevices], programs: Programs
    ) -> SlotSettings:
        """What the worker was told, on a machine with so much memory."""
        leak_bytes, leak_share = settings.leak_max
        return cls(
            evaluator=settings.evaluator,
            checkpoints_url=settings.checkpoints,
            max_parameters=settings.max_parameters,
            tasks_per_executor=settings.tasks_per_executor,
            stop_grace_seconds=settings.stop_grace_seconds,
            start_timeout_seconds=settings.start_timeout_seconds,
            leak_bytes_max=leak_bytes or int(leak_share * machine.memory_total_bytes),
            memory_bytes_max=executor_bytes_max(settings, machine),
            slot_memory_bytes=slot_memory_bytes(settings, machine, devices),
            ignored_xids=settings.ignored_xids,
            programs=programs,
        )


async def start_executor(
    slot: int, devices: SlotDevices, environment: Mapping[str, str], settings: SlotSettings, program: Program
) -> ExecutorProcess:
    """Start one and wait until it has imported the program's evaluator.

    Raises:
        ExecutorUnusable: It can't be, or could not within its time.
    """
    started = time.monotonic()
    try:
        executor = await ExecutorProcess.start(
            evaluator=program.evaluator,
            code=program.directory,
            devices=devices.names,
            checkpoints_url=settings.checkpoints_url,
            max_parameters=settings.max_parameters,
            environment=environment,
            memory_bytes_max=settings.memory_bytes_max,
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
        text = f"importing {program.evaluator} took longer than {settings.start_timeout_seconds:g} s"
        ending = failed("ImportTimeout", text, retryable=True)
        raise ExecutorUnusable(text, ending, executor.output_tail()) from None
    except asyncio.CancelledError:
        executor.kill("the worker ends")
        raise
    if isinstance(event, Exited):
        raise ExecutorUnusable(f"the executor {event}", event, executor.output_tail())
    if event["type"] != "ready":
        tail = executor.output_tail()
        executor.kill("refused")
        reason = str(event.get("error", event["type"]))
        text = f"the evaluator {program.evaluator} can't be imported: {reason}"
        raise ExecutorUnusable(reason, failed("InvalidCode", text, retryable=False), tail)
    log.debug("executor.ready", slot=slot, pid=executor.pid, seconds=round(time.monotonic() - started, 3))
    return executor


def never_started(run: Run, error: PipeBroken) -> Message:
    """How a run ended that could not even be said to its executor."""
    return {
        **failed(type(error).__name__, f"the run could not be started: {error}", retryable=False),
        "run": run.number,
    }


def failed(error_class: str, message: str, *, retryable: bool) -> Message:
    """The ending of a run that never began, by its own fault."""
    return {
        "type": "failed",
        "error_class": error_class,
        "message": message,
        "retryable": retryable,
        "out_of_memory": False,
    }
