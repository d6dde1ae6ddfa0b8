"""A slot: one executor after the other, one run after the other.

States::

    STARTING ──► FREE ──► RUNNING ──► CLEANING ──► FREE
        ▲                    │            │
        └────────────────────┴────────────┘   the executor is replaced
    BROKEN: executors don't start, or runs can't begin (no disk); tried again with growing pauses
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from tenure.proto import worker_pb2
from tenure.worker.execution import Execution, RunObserver, evaluate_message
from tenure.worker.executor_process import ExecutorProcess, Exited
from tenure.worker.output import RunLogs
from tenure.worker.pipe import Message, PipeBroken
from tenure.worker.runs import Run, outcome_of, release_of
from tenure.worker.scratch import Scratch

log = structlog.get_logger()

_CLEANING_SECONDS_MAX = 60.0
_FIRST_PAUSE_SECONDS = 1.0
_RESTART_PAUSE_SECONDS_MAX = 60.0


class SlotState(enum.Enum):
    """What a slot is doing; the value is the label in metrics."""

    STARTING = "starting"
    FREE = "free"
    RUNNING = "running"
    CLEANING = "cleaning"
    BROKEN = "broken"


class ExecutorUnusable(Exception):
    """An executor did not get ready; the text says why, with the end of its output."""


class SlotObserver(RunObserver, Protocol):
    """Whom a slot tells what happens in it."""

    def capacity_changed(self) -> None:
        """:attr:`Slot.claimable` may have changed."""

    def run_started(self, slot: Slot, run: Run) -> None:
        """The run is in the executor."""

    async def run_ended(self, slot: Slot, run: Run, outcome: worker_pb2.Outcome | None) -> None:
        """The run is over; on return the outcome is kept and the slot may take the next task."""

    def executor_replaced(self, slot: Slot, reason: str) -> None:
        """The slot gives up its executor and starts another."""


@dataclass(frozen=True)
class SlotSettings:
    """What all slots of a worker share."""

    evaluator: str
    checkpoints_url: str
    max_parameters: int
    tasks_per_executor: int
    stop_grace_seconds: float
    start_timeout_seconds: float


class Slot:
    """One slot; :meth:`serve` runs until cancelled.

    Attributes:
        index: From 0.
        run: The run that it holds, assigned or going on.
        executor: The executor's process, if there is one.
    """

    def __init__(
        self,
        index: int,
        *,
        device: str,
        environment: Mapping[str, str],
        settings: SlotSettings,
        observer: SlotObserver,
        logs: RunLogs,
        scratch: Scratch,
    ) -> None:
        self.index = index
        self.device = device
        self.state = SlotState.STARTING
        self.run: Run | None = None
        self.executor: ExecutorProcess | None = None
        self._environment = environment
        self._settings = settings
        self._observer = observer
        self._logs = logs
        self._scratch = scratch
        self._runs_of_executor = 0
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._replaced: ExecutorProcess | None = None
        self._ended_at: float | None = None
        self.idle_gap_seconds: float | None = None

    @property
    def claimable(self) -> bool:
        """Whether a task could be assigned now and would start within milliseconds."""
        return self.run is None and self.state in (SlotState.FREE, SlotState.CLEANING)

    def assign(self, run: Run) -> None:
        """Carry out ``run`` next. Only while :attr:`claimable`."""
        if not self.claimable:
            raise RuntimeError(f"slot {self.index} is {self.state.value} and takes no task")
        self.run = run
        if self.executor is not None and self.state is SlotState.FREE:
            self.executor.wake()

    def withdraw(self, run: Run) -> bool:
        """Take back an assigned run that waits for an executor to start; False if it isn't so."""
        if self.run is not run or self.state is not SlotState.STARTING or run.started_at is not None:
            return False
        self.run = None
        return True

    async def start(self) -> None:
        """Start the first executor.

        Raises:
            ExecutorUnusable: It can't be, so neither could later ones.
        """
        self.executor = await self._start_executor()
        self._set_state(SlotState.FREE)

    async def serve(self) -> None:
        """Take runs until cancelled; the executor is gone on return."""
        try:
            while True:
                executor = await self._ready_executor()
                if await self._wait_for_run(executor):
                    await self._serve_run(executor)
        finally:
            await self.close()

    async def close(self) -> None:
        """End the executor, at once if it is running something."""
        executor, self.executor = self.executor, None
        if executor is not None and self.run is not None:
            executor.kill("the worker ends")
        for process in (self._replaced, executor):
            if process is not None:
                # Shielded: nobody may be left behind because the worker is in a hurry.
                await asyncio.shield(process.leave())

    # -- executors ------------------------------------------------------------------------------------------------

    async def _ready_executor(self) -> ExecutorProcess:
        """The executor, started if need be, however long that takes."""
        pause = _FIRST_PAUSE_SECONDS
        while self.executor is None or self.executor.ended:
            self._set_state(SlotState.STARTING)
            try:
                self.executor = await self._start_executor()
            except ExecutorUnusable as error:
                self._set_state(SlotState.BROKEN)
                log.error("executor.unusable", slot=self.index, error=str(error), retry_in_seconds=pause)
                await self._give_back("the executor could not be started")
                self._observer.executor_replaced(self, "start_failed")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RESTART_PAUSE_SECONDS_MAX)
        return self.executor

    async def _start_executor(self) -> ExecutorProcess:
        started = time.monotonic()
        try:
            executor = await ExecutorProcess.start(
                evaluator=self._settings.evaluator,
                device=self.device,
                checkpoints_url=self._settings.checkpoints_url,
                max_parameters=self._settings.max_parameters,
                environment=self._environment,
            )
        except OSError as error:
            raise ExecutorUnusable(f"no process can be started: {error}") from error
        self._runs_of_executor = 0
        try:
            async with asyncio.timeout(self._settings.start_timeout_seconds):
                event = await executor.events.get()
                while event is None:
                    event = await executor.events.get()
        except TimeoutError:
            executor.kill("was not ready in time")
            raise ExecutorUnusable(
                f"importing {self._settings.evaluator} took longer than {self._settings.start_timeout_seconds:g} s"
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
        log.debug("executor.ready", slot=self.index, pid=executor.pid, seconds=round(time.monotonic() - started, 3))
        return executor

    def _replace(self, reason: str, executor: ExecutorProcess) -> None:
        executor.kill(f"replaced: {reason}")
        self.executor, self._replaced = None, executor
        self._set_state(SlotState.STARTING)
        log.info("executor.replaced", slot=self.index, pid=executor.pid, reason=reason)
        self._observer.executor_replaced(self, reason)

    # -- runs -----------------------------------------------------------------------------------------------------

    async def _wait_for_run(self, executor: ExecutorProcess) -> bool:
        """Whether there is a run now; False if the executor ended first."""
        self._set_state(SlotState.FREE)
        while self.run is None:
            event = await executor.events.get()
            if isinstance(event, Exited):
                log.warning("executor.died_idle", slot=self.index, pid=executor.pid, ending=str(event))
                self._replace("crash", executor)
                return False
        return True

    async def _serve_run(self, executor: ExecutorProcess) -> None:
        """Carry out the assigned run and leave the slot ready for the next, with this executor or without."""
        run = self.run
        if run is None:
            return
        if run.stop_reason is not None:
            await self._give_back(f"stopped before it started: {run.stop_reason.value}")
            return
        try:
            work_dir = self._scratch.begin(run.request)
        except OSError as error:
            await self._stand_aside(error)
            return
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        output = self._logs.open(run.key.task_id, run.request.epoch)
        executor.capture(output)
        try:
            ending = await self._carry_out(run, executor, str(work_dir))
            executor.drain_output()
            if not isinstance(ending, Exited) and (trace := ending.get("traceback")):
                output.write_line(trace)
            reason = self._replacement(ending)
            if reason:
                self._replace(reason, executor)
            output.finish()
            await self._end_run(run, outcome_of(run, ending, output.tail()))
        finally:
            executor.capture(None)
            output.close()
        # An executor that was never given the run has nothing to clear away, and wouldn't say so.
        if not reason and run.started_at is not None:
            await self._clean(executor)

    async def _stand_aside(self, error: OSError) -> None:
        """The worker's disk is full, or gone: no fault of the task's. Hand it back, and take none for a while."""
        pause = self._pause_seconds
        self._pause_seconds = min(2 * pause, _RESTART_PAUSE_SECONDS_MAX)
        self._set_state(SlotState.BROKEN)
        log.error("slot.unusable", slot=self.index, error=str(error), retry_in_seconds=pause)
        await self._give_back(f"the run could not be started: {error}")
        await asyncio.sleep(pause)

    async def _carry_out(self, run: Run, executor: ExecutorProcess, work_dir: str) -> Message | Exited:
        """From the start of the run to its last message or the end of the executor."""
        self._set_state(SlotState.RUNNING)
        try:
            executor.send(evaluate_message(run, work_dir))
        except PipeBroken as error:
            return _never_started(run, error)
        self._runs_of_executor += 1
        self.idle_gap_seconds = None if self._ended_at is None else time.monotonic() - self._ended_at
        run.start(self._scratch, executor.wake)
        self._observer.run_started(self, run)
        return await Execution(run, executor, self._observer, self._settings.stop_grace_seconds).follow()

    def _replacement(self, ending: Message | Exited) -> str:
        """Why the executor can't take another run; empty if it can."""
        if isinstance(ending, Exited):
            return "killed" if ending.killed else "crash"
        if ending.get("replace"):
            return str(ending["replace"])
        if 0 < self._settings.tasks_per_executor <= self._runs_of_executor:
            return "tasks_limit"
        return ""

    async def _end_run(self, run: Run, outcome: worker_pb2.Outcome | None) -> None:
        self._ended_at = time.monotonic()
        await self._observer.run_ended(self, run, outcome)
        self._scratch.end()
        self.run = None
        if self.state is SlotState.RUNNING:
            self._set_state(SlotState.CLEANING)
        else:
            self._observer.capacity_changed()

    async def _clean(self, executor: ExecutorProcess) -> None:
        """Wait until the executor has cleared away what the run left."""
        event: Message | Exited | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLEANING_SECONDS_MAX):
                while True:
                    event = await executor.events.get()
                    if isinstance(event, Exited) or (event is not None and event["type"] == "idle"):
                        break
        if event is None:
            self._replace("stuck", executor)
        elif isinstance(event, Exited):
            self._replace("crash", executor)
        elif event["leaked_bytes"]:
            log.warning("executor.leaked", slot=self.index, bytes=event["leaked_bytes"])
            self._replace("gpu_memory_leak", executor)

    async def _give_back(self, message: str) -> None:
        """End the assigned run, if any, without having started it."""
        if (run := self.run) is not None:
            await self._end_run(run, release_of(run, message) if run.holds_lease else None)

    def _set_state(self, state: SlotState) -> None:
        if state is not self.state:
            self.state = state
            self._observer.capacity_changed()


def _never_started(run: Run, error: PipeBroken) -> Message:
    return {
        "type": "failed",
        "run": run.number,
        "error_class": type(error).__name__,
        "message": f"the run could not be started: {error}",
        "retryable": False,
        "out_of_memory": False,
    }
