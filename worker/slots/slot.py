"""A slot: one executor after the other, one run after the other.

States::

    STARTING ──► FREE ──► RUNNING ──► CLEANING ──► FREE
        ▲                    │            │
        └────────────────────┴────────────┘   the executor is replaced
    BROKEN: executors don't start, or runs can't begin (no disk); tried again with growing pauses
    CORDONED: its GPUs are not to be trusted (``health.py``); no executor, until an operator uncordons the worker
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

import structlog

from tenure.proto import worker_pb2
from tenure.worker.code.fetch import CodeUnavailable
from tenure.worker.code.fitting import Fitting
from tenure.worker.code.programs import Program, Programs
from tenure.worker.gpu.devices import SlotDevices
from tenure.worker.gpu.watch import Incident
from tenure.worker.output import RunLogs
from tenure.worker.pipe import Message, PipeBroken
from tenure.worker.runs import Run, outcome_of, release_of
from tenure.worker.scratch import Scratch
from tenure.worker.slots.execution import Execution, evaluate_message
from tenure.worker.slots.executor_process import ExecutorProcess, Exited
from tenure.worker.slots.executor_start import ExecutorUnusable, SlotSettings, never_started, start_executor
from tenure.worker.slots.health import SlotHealth
from tenure.worker.slots.leaks import LeakWatch, Leftovers
from tenure.worker.slots.states import SlotObserver as SlotObserver
from tenure.worker.slots.states import SlotState as SlotState

log = structlog.get_logger()

_CLEANING_SECONDS_MAX = 60.0
_FIRST_PAUSE_SECONDS = 1.0
_RESTART_PAUSE_SECONDS_MAX = 60.0


class Slot:
    """One slot; :meth:`serve` runs until cancelled.

    Attributes:
        index: From 0.
        devices: What its runs may use.
        health: Whether these can be trusted.
        run: The run that it holds, assigned or going on.
        executor: The executor's process, if there is one.
        fitting: What it evaluates with.
    """

    def __init__(
        self,
        index: int,
        *,
        devices: SlotDevices,
        environment: Mapping[str, str],
        settings: SlotSettings,
        observer: SlotObserver,
        logs: RunLogs,
        scratch: Scratch,
    ) -> None:
        self.index = index
        self.devices = devices
        self.health = SlotHealth(devices.gpus, settings.ignored_xids)
        self.state = SlotState.STARTING
        self.run: Run | None = None
        self.executor: ExecutorProcess | None = None
        self._environment = environment
        self._settings = settings
        self._observer = observer
        self._logs = logs
        self._scratch = scratch
        self.fitting = Fitting(settings.programs or Programs(Program(settings.evaluator)))
        self._runs_of_executor = 0
        self._leaks = LeakWatch(settings.leak_bytes_max)
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._replaced: ExecutorProcess | None = None
        self._ended_at: float | None = None
        self.idle_gap_seconds: float | None = None

    @property
    def claimable(self) -> bool:
        """Whether a task could be assigned now and would start within milliseconds."""
        return self.run is None and self.state in (SlotState.FREE, SlotState.CLEANING) and not self.health.cordoned

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
        self.fitting.give_up()
        return True

    def take_incident(self, incident: Incident) -> None:
        """Something is wrong with a GPU; if it is one of this slot's, and bad enough, the slot is cordoned and what
        runs in it ends as a loss."""
        if self.health.concerns(incident) and self.health.note_incident(incident):
            self._be_cordoned()

    def uncordon(self) -> None:
        """Take tasks again, if the slot had cordoned itself."""
        if self.health.uncordon():
            log.info("slot.uncordoned", slot=self.index, gpus=list(self.devices.gpus))

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
                if executor is None:
                    await self._stay_cordoned()
                elif await self._wait_for_run(executor) and not self.health.cordoned and self.run is not None:
                    with structlog.contextvars.bound_contextvars(**self.run.log_fields):
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

    async def _ready_executor(self) -> ExecutorProcess | None:
        """The executor, started if need be, however long that takes; None once the slot is cordoned."""
        pause = _FIRST_PAUSE_SECONDS
        while not self.health.cordoned and (self.executor is None or self.executor.ended):
            self._set_state(SlotState.STARTING)
            try:
                self.executor = await self._start_executor()
            except ExecutorUnusable as error:
                if self.fitting.fall_back():
                    continue
                self._set_state(SlotState.BROKEN)
                log.error("executor.unusable", slot=self.index, error=str(error), retry_in_seconds=pause)
                await self._give_back("the executor could not be started")
                self._observer.executor_replaced(self, "start_failed")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RESTART_PAUSE_SECONDS_MAX)
        return None if self.health.cordoned else self.executor

    async def _start_executor(self) -> ExecutorProcess:
        executor = await start_executor(
            self.index, self.devices, self._environment, self._settings, self.fitting.program
        )
        self._runs_of_executor = 0
        self._leaks = LeakWatch(self._settings.leak_bytes_max)
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
                self._replace("device_lost" if self.health.cordoned else "crash", executor)
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
        fitted = await self._fit(run, executor)
        if fitted is None:
            return
        executor = fitted
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
            await self._end_run(run, await self._judge(run, ending, output.tail()))
        finally:
            executor.capture(None)
            output.close()
        # An executor that was never given the run has nothing to clear away, and wouldn't say so.
        if not reason and run.started_at is not None:
            await self._clean(executor)

    async def _fit(self, run: Run, executor: ExecutorProcess) -> ExecutorProcess | None:
        """An executor of what the run's task is evaluated with; None: the run is not to be started any more."""
        if self.fitting.fits(run.request):
            return executor
        self._set_state(SlotState.STARTING)
        try:
            program = await self.fitting.find(run.request)
            if program is not None and self.run is run:
                self._replace("other_code", executor)
                self.fitting.program = program
                executor = self.executor = await self._start_executor()
        except (CodeUnavailable, OSError) as error:
            await self._stand_aside(error)
        except ExecutorUnusable as error:
            self.fitting.fall_back()
            if self.run is run:
                await self._end_run(run, error.outcome_of(run))
        return executor if self.run is run and not self.health.cordoned else None

    async def _stand_aside(self, error: Exception) -> None:
        """The worker's disk is full, or gone, or it can't have the code: no fault of the task's. Hand it back, and take
        none for a while."""
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
            executor.send(evaluate_message(run, work_dir, run.spans.started(self.index)))
        except PipeBroken as error:
            return never_started(run, error)
        self._runs_of_executor += 1
        self.health.begin_run()
        self.idle_gap_seconds = None if self._ended_at is None else time.monotonic() - self._ended_at
        run.slot_memory_bytes = self._settings.slot_memory_bytes
        run.start(self._scratch, executor.wake)
        self._observer.run_started(self, run)
        return await Execution(run, executor, self._observer, self._settings.stop_grace_seconds).follow()

    async def _judge(self, run: Run, ending: Message | Exited, log_tail: str) -> worker_pb2.Outcome | None:
        """What the master is told, and what the ending means for the slot's devices."""
        outcome = outcome_of(run, ending, log_tail)
        if isinstance(ending, Exited):
            run.spans.executor_died(f"the executor {ending}")
            self.health.blame(outcome, self.health.trouble)
            return outcome
        device_lost, message = ending.get("replace") == "device_lost", str(ending.get("message", ""))
        if device_lost:
            self.health.blame(outcome, await self.health.explanation(message))
        if self.health.note_ending(run.key.task_id, device_lost=device_lost, message=message):
            self._be_cordoned()
        return outcome

    def _replacement(self, ending: Message | Exited) -> str:
        """Why the executor can't take another run; empty if it can."""
        if self.health.cordoned:
            return "device_lost"
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
            self._replace("device_lost" if self.health.cordoned else "crash", executor)
        else:
            self._take_leftovers(executor, Leftovers.of(event))

    def _take_leftovers(self, executor: ExecutorProcess, left: Leftovers) -> None:
        """Hear what could not be cleared away, and replace the executor if that is too much."""
        if left.processes or left.threads:
            log.warning("executor.left_behind", slot=self.index, processes=left.processes, threads=left.threads)
            self._observer.left_behind(self, len(left.processes), len(left.threads))
        if reason := self._leaks.judge(left):
            log.warning(
                "executor.leaked",
                slot=self.index,
                reason=reason,
                gpu_bytes=left.gpu_bytes,
                host_bytes=self._leaks.grown_bytes,
                threads=left.threads_left,
            )
            self._replace(reason, executor)

    # -- devices that are not to be trusted -----------------------------------------------------------------------

    def _be_cordoned(self) -> None:
        log.error(
            "slot.cordoned",
            slot=self.index,
            gpus=list(self.devices.gpus),
            cause=self.health.cause,
            reason=self.health.reason,
            **(self.run.log_fields if self.run is not None else {}),
        )
        if self.executor is not None:
            self.executor.kill(f"lost its device: {self.health.reason}")
        self._observer.capacity_changed()

    async def _stay_cordoned(self) -> None:
        """Without an executor, until an operator says otherwise."""
        executor, self.executor = self.executor, None
        if executor is not None:
            self._replaced = executor
        await self._give_back(f"the slot is cordoned: {self.health.reason}")
        self._set_state(SlotState.CORDONED)
        await self.health.until_uncordoned()

    async def _give_back(self, message: str) -> None:
        """End the assigned run, if any, without having started it."""
        if (run := self.run) is not None:
            await self._end_run(run, release_of(run, message) if run.holds_lease else None)

    def _set_state(self, state: SlotState) -> None:
        if state is not self.state:
            self.state = state
            self._observer.capacity_changed()
