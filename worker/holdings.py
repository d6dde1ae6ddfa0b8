"""What this worker holds: live leases, their runs in slots, and what no master has acknowledged yet.

Here a task becomes a run and a run an outcome; here a lease is renewed, revoked, handed back. How that is said to a
master is the link's business, how it is carried out the slots'.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import structlog

from tenure.proto import worker_pb2
from tenure.worker.announcements import Announcements
from tenure.worker.deletions import delete_checkpoints
from tenure.worker.gpu.devices import best_slot
from tenure.worker.leases import LeaseFields, LeaseKey, fields_of, key_of
from tenure.worker.link import Link
from tenure.worker.metrics import Instruments
from tenure.worker.output import RunLogs
from tenure.worker.run_spans import Deliveries, tell_left_over
from tenure.worker.runs import Kind, Run, StopReason, outcome_of_leftover, release_of
from tenure.worker.settings import WorkerSettings
from tenure.worker.slots.slot import Slot
from tenure.worker.spool import Spool
from tenure.worker.wire_words import kind_name, verdict_name

log = structlog.get_logger()

# A task that comes while no slot is free (the number wanted and the task crossed on the wire) may wait this long.
_OVERFLOW_SECONDS = 1.0

Verdict = worker_pb2.Verdict
_GONE = (Verdict.VERDICT_STALE, Verdict.VERDICT_UNKNOWN_TASK, Verdict.VERDICT_WRONG_STATE)


class Holdings:
    """Live leases and unacknowledged outcomes. One event loop uses it.

    Attributes:
        runs: By lease, from acceptance to the end.
        spool: Outcomes without a verdict.
        announcements: Checkpoints without a verdict.
        logs: What the runs print.
        slots: Set once by the supervisor.
        link: Set once by the supervisor; woken when there is something to tell.
        open: Whether tasks are taken at all.
        call_ended: Told of each call to a master.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        instruments: Instruments,
        spool: Spool,
        leftovers: Sequence[worker_pb2.EvaluateRequest],
        logs: RunLogs,
        *,
        registers_checkpoints: bool,
    ) -> None:
        self.runs: dict[LeaseKey, Run] = {}
        self.spool = spool
        self.announcements = Announcements()
        self.logs = logs
        self.slots: Sequence[Slot] = ()
        self.link: Link | None = None
        self.open = False
        self.call_ended = instruments.call_ended
        self._settings = settings
        self._instruments = instruments
        self._leftovers = leftovers
        self._registers_checkpoints = registers_checkpoints
        self._overflow: deque[Run] = deque()
        self._numbers = itertools.count(1)
        self._background: set[asyncio.Task[None]] = set()
        self._deliveries = Deliveries()
        self._fields = LeaseFields()

    async def recover(self) -> None:
        """Take up what an earlier process of this worker left: outcomes, and leases it died under."""
        await self.spool.open()
        if self._settings.dispatch == "pull":
            for outcome in self.spool.pending():
                if not outcome.lease_token:
                    # Of a MorphML master this worker was pushed to by; those keep nothing, so nobody waits for it.
                    log.error("outcome.undeliverable", **fields_of(outcome), outcome=kind_name(outcome.kind))
                    self.spool.forget(key_of(outcome))
        for request in self._leftovers:
            key = key_of(request)
            if not key.token or key in self.spool:
                continue
            for checkpoint in request.checkpoints[:1]:
                # Maybe registered, maybe not: the master knows.
                self.announcements.add(key, checkpoint)
            self._instruments.losses.lost()
            log.warning("task.left_over", **fields_of(request))
            tell_left_over(request)
            await self.spool.put(outcome_of_leftover(request))
        for outcome in self.spool.pending():
            self._fields.note(key_of(outcome), fields_of(outcome))
            self._deliveries.begin(outcome)
        if len(self.spool):
            log.info("spool.recovered", outcomes=len(self.spool))

    # -- capacity -------------------------------------------------------------------------------------------------

    def claimable(self) -> int:
        """How many tasks more could start now."""
        if not self.open:
            return 0
        return max(0, sum(slot.claimable for slot in self.slots) - len(self._overflow))

    def set_open(self, value: bool) -> None:
        """Take tasks, or take no more."""
        if self.open != value:
            self.open = value
            self.wake_link()

    def capacity_changed(self) -> None:
        """A slot may have become free: what waits for one gets it."""
        for slot in self.slots:
            if self._overflow and slot.claimable:
                slot.assign(self._overflow.popleft())
        self.wake_link()

    def wake_link(self) -> None:
        """There may be something to tell."""
        if self.link is not None:
            self.link.wake()

    # -- from task to run -----------------------------------------------------------------------------------------

    def accept(self, request: worker_pb2.EvaluateRequest, *, may_wait: bool = True) -> Run | None:
        """Carry the task out.

        The same lease given twice is one run. A new lease of a task that is still running here under an older one
        ends the older: it is lost, or there would be no new one.

        Returns:
            The run; None if there is no slot for it and it may not wait. The caller then hands it back.
        """
        key = key_of(request)
        if (known := self.runs.get(key)) is not None:
            return known
        for run in self.runs.values():
            if run.key.task_id == key.task_id and run.request.epoch < request.epoch:
                self.stop(run, StopReason.LOST)
        slot = best_slot(self.slots, request) if self.open else None
        if slot is None and not (may_wait and self.open and self.slots):
            return None
        run = Run(next(self._numbers), request)
        run.checkpoint_policy = self._instruments.losses.policy(self._settings.checkpoint_overhead)
        self.runs[key] = run
        self._fields.note(key, run.log_fields)
        for checkpoint in reversed(request.checkpoints if self._registers_checkpoints and key.token else ()):
            self.announcements.registered(key, checkpoint)
        if slot is not None and not self._overflow:
            slot.assign(run)
        else:
            self._overflow.append(run)
            asyncio.get_running_loop().call_later(_OVERFLOW_SECONDS, self._give_up_waiting, run)
        return run

    def refuse(self, request: worker_pb2.EvaluateRequest, why: str) -> None:
        """Hand a task back that can't be started."""
        key = key_of(request)
        if key not in self.runs and key not in self.spool:
            log.info("task.refused", **fields_of(request), reason=why)
            self._in_background(self._keep(release_of(Run(0, request), why)))

    def _give_up_waiting(self, run: Run) -> None:
        if run in self._overflow:
            self._overflow.remove(run)
            self._in_background(self._end_without_slot(run, "no slot became free for it"))

    async def _end_without_slot(self, run: Run, why: str) -> None:
        outcome = release_of(run, why) if run.holds_lease else None
        await self._settle_end(run, outcome)

    # -- stopping -------------------------------------------------------------------------------------------------

    def stop(self, run: Run, reason: StopReason, grace_seconds: float | None = None) -> None:
        """Stop a run; it is killed when the grace (default: the setting) is over."""
        run.stop(reason, self._settings.stop_grace_seconds if grace_seconds is None else grace_seconds)
        if run in self._overflow:
            self._overflow.remove(run)
        elif not any(slot.withdraw(run) for slot in self.slots):
            return
        self._in_background(self._end_without_slot(run, f"stopped before it started: {reason.value}"))

    def stop_all(self, reason: StopReason, grace_seconds: float | None = None) -> None:
        """Stop every run."""
        for run in list(self.runs.values()):
            self.stop(run, reason, grace_seconds)

    def revoke(self, revocation: worker_pb2.Revocation) -> None:
        """A master says that a lease is lost, or to be given up."""
        key = key_of(revocation)
        reason = StopReason.of_revocation(revocation.reason)
        log.info("lease.revoked", **self._fields.of(key), reason=revocation.reason, known=key in self.runs)
        if (run := self.runs.get(key)) is not None:
            self.stop(run, reason)
        elif (
            (outcome := self.spool.get(key)) is not None
            and outcome.kind != Kind.OUTCOME_SUCCESS
            and reason.rule.kind is None
        ):
            # Nobody waits for the failure of a lease that is gone; a success is still offered.
            self._delete(self.announcements.drop(key))
            self.spool.forget(key)

    def find(self, task_id: str, token: str = "") -> Run | None:
        """The newest run of a task, of that lease if a token is given."""
        matching = [
            run for run in self.runs.values() if run.key.task_id == task_id and (not token or run.key.token == token)
        ]
        return max(matching, key=lambda run: run.request.epoch, default=None)

    # -- what slots tell (SlotObserver) -----------------------------------------------------------------------------

    def run_started(self, slot: Slot, run: Run) -> None:
        """See SlotObserver."""
        self._instruments.run_started(slot)
        log.info("task.started", **run.log_fields, slot=slot.index)

    def run_progressed(self, run: Run) -> None:
        """See SlotObserver."""
        self.wake_link()

    def run_resumed(self, run: Run) -> None:
        """See SlotObserver."""
        log.info("task.resumed", **run.log_fields, step=run.steps_start)

    def checkpoint_saved(self, run: Run, checkpoint: worker_pb2.Checkpoint) -> None:
        """See SlotObserver."""
        run.checkpointed(checkpoint)
        self._instruments.checkpoint_size_bytes.set(checkpoint.size_bytes)
        self._delete(self.announcements.add(run.key, checkpoint))
        self.wake_link()

    def checkpoint_costs(self, run: Run, costs: Mapping[str, float], write_seconds: float | None = None) -> None:
        """See SlotObserver."""
        self._instruments.checkpoint_costs(run, costs, write_seconds)

    def executor_replaced(self, slot: Slot, reason: str) -> None:
        """See SlotObserver."""
        self._instruments.executor_restarts.labels(reason).inc()

    def left_behind(self, slot: Slot, processes: int, threads: int) -> None:
        """See SlotObserver."""
        self._instruments.leftovers.labels("process").inc(processes)
        self._instruments.leftovers.labels("thread").inc(threads)

    async def run_ended(self, slot: Slot, run: Run, outcome: worker_pb2.Outcome | None) -> None:
        """See SlotObserver."""
        await self._settle_end(run, outcome)

    # -- from end to verdict --------------------------------------------------------------------------------------

    async def _settle_end(self, run: Run, outcome: worker_pb2.Outcome | None) -> None:
        kind = "dropped" if outcome is None else kind_name(outcome.kind)
        self._instruments.run_ended(run, kind)
        fields: dict[str, Any] = {"outcome": kind, "seconds": round(run.seconds(), 3)}
        stop_reason = run.stop_reason.value if run.stop_reason is not None else ""
        if stop_reason:
            fields["stop_reason"] = stop_reason
        if outcome is not None and outcome.error_class:
            fields |= {"error_class": outcome.error_class, "error": outcome.error_message[:500]}
        log.info("task.ended", **run.log_fields, **fields)
        if outcome is None or not self._registers_checkpoints:
            self._delete(self.announcements.drop(run.key))
        if outcome is not None:
            await self._keep(outcome)
        run.spans.end(outcome, kind, stop_reason)
        del self.runs[run.key]
        run.ended.set_result(outcome)
        self.wake_link()

    async def _keep(self, outcome: worker_pb2.Outcome) -> None:
        await self.spool.put(outcome)
        self._deliveries.begin(outcome)
        self.wake_link()

    def take_outcome_verdict(
        self, key: LeaseKey, verdict: worker_pb2.Verdict, delete_urls: Sequence[str] = (), message: str = ""
    ) -> None:
        """A master has judged an outcome; unless it could not, the outcome is forgotten."""
        if verdict == Verdict.VERDICT_UNSPECIFIED:
            return
        if verdict not in (Verdict.VERDICT_OK, Verdict.VERDICT_DUPLICATE):
            fields = {"verdict": verdict_name(verdict), "message": message or None}
            log.warning("outcome.not_taken", **self._fields.of(key), **fields)
        if (outcome := self.spool.get(key)) is not None:
            self._deliveries.end(outcome, verdict_name(verdict))
        self._delete([*delete_urls, *self.announcements.drop(key)])
        self.spool.forget(key)

    def take_checkpoint_verdict(self, verdict: worker_pb2.CheckpointVerdict) -> None:
        """A master has judged an announced checkpoint."""
        key = key_of(verdict)
        if verdict.verdict == Verdict.VERDICT_UNSPECIFIED:
            return
        run = self.runs.get(key)
        # The store has lost the task, until it is submitted again: the run goes on, and what it wrote stays.
        orphaned = verdict.verdict == Verdict.VERDICT_UNKNOWN_TASK and run is not None and bool(run.request.origin)
        registered = verdict.verdict == Verdict.VERDICT_OK or orphaned
        sent_once = self.announcements.settle(key, verdict.url, registered=registered)
        fields = {**self._fields.of(key), "url": verdict.url}
        if verdict.verdict == Verdict.VERDICT_OK:
            log.info("checkpoint.registered", **fields)
            self.announcements.retired(key, verdict.delete_urls)
            self._delete(verdict.delete_urls)
            return
        log.warning("checkpoint.not_registered", **fields, verdict=verdict_name(verdict.verdict))
        if orphaned:
            return
        if sent_once:
            # Sent once and refused, so it is certainly not registered. One sent before may be what the lease's next
            # holder goes on from; should it be debris after all, that holder sweeps it.
            self._delete([verdict.url])
        if verdict.verdict in _GONE and run is not None:
            self.stop(run, StopReason.LOST)

    def discard(self, urls: Sequence[str]) -> None:
        """A master names checkpoints that nobody needs any more."""
        self._delete(urls)

    # -- renewal --------------------------------------------------------------------------------------------------

    def renewals(self) -> list[worker_pb2.Renewal]:
        """Every lease that is still ours: running, or ended without a verdict."""
        held = [run.renewal() for run in self.runs.values() if run.holds_lease and run.key.token]
        for outcome in self.spool.pending():
            if outcome.lease_token:
                held.append(
                    worker_pb2.Renewal(
                        task_id=outcome.task_id,
                        lease_token=outcome.lease_token,
                        epoch=outcome.epoch,
                        origin=outcome.origin,
                    )
                )
        return held

    def news(self) -> list[worker_pb2.Renewal]:
        """Renewals of the runs that have reported since the last call."""
        fresh = []
        for run in self.runs.values():
            if run.holds_lease and run.progress.sequence > run.progress_sent:
                run.progress_sent = run.progress.sequence
                fresh.append(run.renewal())
        return fresh

    # -- background -----------------------------------------------------------------------------------------------

    async def wait_until_idle(self) -> None:
        """Until no run is left."""
        while self.runs:
            await asyncio.wait([run.ended for run in self.runs.values()])

    async def settle_background(self) -> None:
        """Wait for what was begun in the background: deletions, files."""
        while self._background:
            await asyncio.wait(set(self._background))

    def _delete(self, urls: Sequence[str]) -> None:
        if urls:
            self._in_background(delete_checkpoints(list(urls)))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
