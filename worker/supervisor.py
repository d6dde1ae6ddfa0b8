"""The supervisor: puts a worker together, keeps it running, and takes it down in order.

It owns the leases and never imports torch or user code; that is the executors' part.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Coroutine
from typing import Any

import structlog

from tenure import __version__
from tenure.common.errors import InvalidSetting
from tenure.common.exits import ExitCode
from tenure.common.notify import Notifier
from tenure.proto import worker_pb2
from tenure.worker.code.programs import make_programs
from tenure.worker.disks import Disks
from tenure.worker.gpu.devices import SlotDevices, deal_out
from tenure.worker.gpu.watch import Incident
from tenure.worker.holdings import Holdings
from tenure.worker.identity import Identity, unusable_work_dir
from tenure.worker.leaving import Leaving
from tenure.worker.link import Link, Refused, Superseded
from tenure.worker.losses import LossRecord
from tenure.worker.machine import Machine, wire_metrics
from tenure.worker.metrics import Instruments
from tenure.worker.output import RunLogs
from tenure.worker.preemption import PreemptionWatch
from tenure.worker.push_client import PushLink
from tenure.worker.push_service import WorkerServicer
from tenure.worker.runs import StopReason
from tenure.worker.scratch import Scratch, take_leftovers
from tenure.worker.serving import Servers, registration_of, write_ready_file
from tenure.worker.session import SessionLink
from tenure.worker.settings import WorkerSettings
from tenure.worker.slots.executor_process import executor_environment
from tenure.worker.slots.executor_start import ExecutorUnusable, SlotSettings
from tenure.worker.slots.memory import slot_memory_bytes
from tenure.worker.slots.slot import Slot
from tenure.worker.spool import Spool
from tenure.worker.standing import readiness, standing
from tenure.worker.state_metrics import StateCollector

log = structlog.get_logger()

# The part of the drain's grace in which evaluations may stop; the rest is for verdicts.
_STOPPING_SHARE = 0.8
_KILL_SECONDS = 5.0
_GOODBYE_SECONDS = 3.0
# The longest that executors and servers take to end, whoever they are.
_TAKE_DOWN_SECONDS = 30.0


class Supervisor:
    """One worker. :meth:`run` it once.

    Args:
        settings: What it was told.
        identity: Who it is; its work directory is locked.
        machine: Where the figures come from.
        notifier: Who is told that it serves, and that it ends.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        identity: Identity,
        machine: Machine | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._machine = machine or Machine()
        self._notifier = notifier or Notifier()
        self._devices = deal_out(settings, self._machine.gpu_indices, self._machine.resolve)
        self._slot_count = len(self._devices)
        self._watch = self._machine.watch(self._take_incident)
        work_dir = identity.work_dir
        self._instruments = Instruments(LossRecord(work_dir / "losses.json"))
        try:
            self._logs = RunLogs(work_dir / "logs")
            leftovers = take_leftovers(work_dir / "runs")
        except OSError as error:
            raise unusable_work_dir(work_dir, error) from error
        self._spool = Spool(work_dir / "spool", reserve=self._slot_count)
        self._holdings = Holdings(
            settings,
            self._instruments,
            self._spool,
            leftovers,
            self._logs,
            registers_checkpoints=settings.dispatch == "pull",
        )
        self._servers = Servers(settings, self._instruments.registry, self._readiness)
        self._link: Link | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = Leaving.NOT
        self._preempted = False
        self._told_to_end = False
        self._leaving_changed = asyncio.Event()

    # -- what others ask of it ------------------------------------------------------------------------------------

    def signalled(self) -> None:
        """SIGTERM or SIGINT: the first drains, the second kills."""
        if self._leaving >= Leaving.DRAIN and self._preempted and not self._told_to_end:
            # Whoever takes the machine away says so first, and sends the usual signal later.
            self._told_to_end = True
            return
        self._told_to_end = True
        self.leave(Leaving.KILL if self._leaving >= Leaving.DRAIN else Leaving.DRAIN, "signal")

    def leave(self, how: Leaving, reason: str) -> None:
        """End the worker so, or harder if it is already told to."""
        if how > self._leaving:
            log.info("worker.leaving", how=how.name.lower(), reason=reason, runs=len(self._holdings.runs))
            self._leaving = how
            self._notifier.stopping(math.inf if how is Leaving.FINISH else self._grace_seconds + _TAKE_DOWN_SECONDS)
            self._leaving_changed.set()
            self._leaving_changed = asyncio.Event()

    def preempted(self, source: str) -> None:
        """A notice (``signal``, ``file`` or ``url``) that the machine is about to be taken away: drain now."""
        log.warning("worker.preemption_notice", source=source, runs=len(self._holdings.runs))
        self._instruments.preemption_notices.labels(source).inc()
        if self._leaving < Leaving.DRAIN:
            self._preempted = True
            self.leave(Leaving.DRAIN, "preemption notice")

    def drain(self, drain: worker_pb2.Drain) -> None:
        """A master asks to take no more tasks (cordon), to hand back what runs too, or to go on as usual."""
        log.info("worker.drain", active=drain.active, cordon=drain.cordon, reason=drain.reason)
        self._holdings.set_open(not drain.active and self._leaving is Leaving.NOT)
        if not drain.active:
            for slot in self._holdings.slots:
                slot.uncordon()
        if drain.active and not drain.cordon:
            self._holdings.stop_all(StopReason.DRAIN, self._settings.drain_grace_seconds)

    def standing(self) -> str:
        """How it stands, in a line for people."""
        return standing(self._link, self._holdings, self._leaving is not Leaving.NOT)

    # -- its life -------------------------------------------------------------------------------------------------

    async def run(self) -> ExitCode:
        """From start to end.

        Raises:
            StartupError: The worker can't start; nothing of it is left.
        """
        try:
            if not await self._unless(Leaving.FINISH, self._start()):
                return ExitCode.OK
            return await self._serve()
        finally:
            self._notifier.stopping(_TAKE_DOWN_SECONDS)
            await self._take_down()

    async def _start(self) -> None:
        try:
            await self._holdings.recover()
        except OSError as error:
            raise unusable_work_dir(self._identity.work_dir, error) from error
        self._link = self._make_link(await self._servers.start(self._make_servicer()))
        await self._start_slots()
        self._instruments.info.labels(self._identity.worker_id, __version__, self._settings.dispatch).set(1)
        disks = Disks.of(self._identity.work_dir, self._settings.checkpoints)
        self._instruments.registry.register(StateCollector(self._holdings, self._machine, self._watch, disks))
        self._watch.start()
        self._holdings.link = self._link
        self._holdings.open = True
        self._spawn(self._link.run(), "link")
        for slot in self._holdings.slots:
            self._spawn(slot.serve(), f"slot-{slot.index}")
        self._spawn(self._instruments.losses.keep(), "losses")
        if self._settings.notices.watched:
            self._spawn(self._watch_notices(), "preemption")
        self._servers.serving(True)
        if self._settings.ready_file is not None:
            write_ready_file(self._settings.ready_file, self._identity.worker_id, self._servers)
        log.info(
            "worker.ready",
            grpc=str(self._servers.grpc_address),
            http=str(self._servers.http_address),
            slots=self._slot_count,
            gpus=[list(devices.gpus) for devices in self._devices],
            dispatch=self._settings.dispatch,
            work_dir=str(self._identity.work_dir),
        )
        self._notifier.ready()

    async def _start_slots(self) -> None:
        """Start every executor; this is where an evaluator that can't be imported is found out."""
        programs = make_programs(
            self._settings,
            self._identity.work_dir,
            lambda: {slot.fitting.program.code for slot in self._holdings.slots},
            self._instruments.call_ended,
        )
        settings = SlotSettings.of(self._settings, self._machine, self._devices, programs)
        slots = [self._make_slot(index, devices, settings) for index, devices in enumerate(self._devices)]
        self._holdings.slots = slots
        results = await asyncio.gather(*(slot.start() for slot in slots), return_exceptions=True)
        for error in filter(None, results):
            if isinstance(error, ExecutorUnusable):
                raise InvalidSetting(
                    f"can't be used: {error}",
                    field="evaluator",
                    given=self._settings.evaluator,
                    expected="it must be importable in the executors: install it there, or name its directory by "
                    "--python-path",
                ) from None
            raise error

    def _make_slot(self, index: int, devices: SlotDevices, settings: SlotSettings) -> Slot:
        return Slot(
            index,
            devices=devices,
            environment=executor_environment(
                os.environ, gpus=devices.gpus, python_path=self._settings.python_path, slots=self._slot_count
            ),
            settings=settings,
            observer=self._holdings,
            logs=self._logs,
            scratch=Scratch(self._identity.work_dir / "runs", index),
        )

    def _make_servicer(self) -> WorkerServicer:
        return WorkerServicer(
            worker_id=self._identity.worker_id,
            instance_id=self._identity.instance_id,
            holdings=self._holdings,
            takes_pushes=self._settings.dispatch == "push",
            metrics=self._wire_metrics,
            shut_down=lambda graceful, why: self.leave(Leaving.FINISH if graceful else Leaving.DRAIN, why),
            delivery_seconds=self._settings.rpc_timeout_seconds,
        )

    def _make_link(self, advertised: tuple[str, int]) -> Link:
        registration = registration_of(self._settings, self._identity, advertised, self._devices)
        registration.slot_memory_bytes = slot_memory_bytes(self._settings, self._machine, self._devices)
        common = (self._settings, self._holdings, registration, self._wire_metrics, self.drain)
        if self._settings.dispatch == "pull":
            return SessionLink(*common)
        return PushLink(*common, on_shutdown=lambda why: self.leave(Leaving.DRAIN, why))

    async def _serve(self) -> ExitCode:
        """Until it is to leave, or something ends it."""
        while self._leaving is Leaving.NOT:
            changed = asyncio.create_task(self._leaving_changed.wait())
            await asyncio.wait({changed, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            try:
                self._raise_failures()
            except Superseded as error:
                log.error("worker.superseded", error=str(error))
                self._holdings.set_open(False)
                self._holdings.stop_all(StopReason.SUPERSEDED)
                patience = self._settings.stop_grace_seconds + _KILL_SECONDS
                await self._unless(Leaving.KILL, self._idle_within(patience))
                return ExitCode.SUPERSEDED
            except Refused as error:
                log.error("worker.refused", error=str(error))
                return ExitCode.REFUSED
        return await self._leave()

    async def _watch_notices(self) -> None:
        watch = PreemptionWatch(self._settings.notices, self._instruments.preemption_poll_failures.inc)
        self.preempted(await watch.notice())

    async def _leave(self) -> ExitCode:
        """Leave as told: finish or hand back, deliver, say goodbye."""
        loop = asyncio.get_running_loop()
        self._holdings.set_open(False)
        self._servers.serving(False)
        if self._leaving is Leaving.FINISH:
            await self._unless(Leaving.DRAIN, self._holdings.wait_until_idle())
        grace = self._grace_seconds
        reason = StopReason.PREEMPTED if self._preempted else StopReason.DRAIN
        deadline = loop.time() + grace
        if self._leaving is Leaving.DRAIN:
            self._holdings.stop_all(reason, _STOPPING_SHARE * grace)
            await self._unless(Leaving.KILL, self._idle_within(_STOPPING_SHARE * grace + _KILL_SECONDS))
        if self._leaving is Leaving.KILL:
            # What they were doing is still handed back: on disk at least.
            self._holdings.stop_all(reason, 0.0)
            await self._idle_within(_KILL_SECONDS)
        else:
            left = max(0.0, deadline - loop.time())
            await self._unless(Leaving.KILL, self._spool.acknowledged(None, left))
        if len(self._spool):
            log.warning("spool.left", outcomes=len(self._spool), directory=str(self._identity.work_dir))
        if self._link is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._link.leave("drained"), _GOODBYE_SECONDS)
        killed = self._leaving is Leaving.KILL
        log.info("worker.left", killed=killed, preempted=self._preempted)
        if killed:
            return ExitCode.NO
        return ExitCode.PREEMPTED if self._preempted else ExitCode.OK

    async def _take_down(self) -> None:
        """Whatever is there: tasks, executors, servers, files."""
        self._watch.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for slot in self._holdings.slots:
            await slot.close()
        await self._servers.stop()
        await self._holdings.settle_background()
        await self._spool.close()
        self._instruments.losses.write()

    async def _idle_within(self, seconds: float) -> None:
        """Wait for the runs to end, but no longer."""
        try:
            async with asyncio.timeout(seconds):
                await self._holdings.wait_until_idle()
        except TimeoutError:
            for run in self._holdings.runs.values():
                log.error("worker.run_left", **run.log_fields)

    @property
    def _grace_seconds(self) -> float:
        return self._settings.preemption_grace_seconds if self._preempted else self._settings.drain_grace_seconds

    # -- small parts ----------------------------------------------------------------------------------------------

    async def _unless(self, how: Leaving, work: Coroutine[Any, Any, Any]) -> bool:
        """Do ``work``; False if the worker was told to leave like that, or harder, before it was done."""
        task = asyncio.create_task(work)
        try:
            while not task.done() and self._leaving < how:
                changed = asyncio.create_task(self._leaving_changed.wait())
                await asyncio.wait((task, changed), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
        if task.cancelled():
            return False
        task.result()
        return True

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.add(asyncio.create_task(work, name=name))

    def _raise_failures(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    def _wire_metrics(self) -> worker_pb2.WorkerMetrics:
        return wire_metrics(
            self._machine.figures(),
            completed=self._instruments.completed,
            failed=self._instruments.failed,
            slots_busy=len(self._holdings.runs),
            spooled=len(self._spool),
            slots=self._holdings.slots,
            watch=self._watch,
        )

    def _take_incident(self, incident: Incident) -> None:
        log.warning("gpu.incident", gpu=incident.gpu, xid=incident.xid, what=incident.text)
        for slot in self._holdings.slots:
            slot.take_incident(incident)

    def _readiness(self) -> tuple[bool, dict[str, Any]]:
        return readiness(self._link, self._holdings)
