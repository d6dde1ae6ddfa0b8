"""The leases of one session stream: what its worker holds, says about it, and is told of it."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any

import structlog

from tenure.common import ids
from tenure.common.errors import InvalidInput
from tenure.master.core.outcomes import judge_outcome
from tenure.master.metrics import MasterMetrics
from tenure.master.rpc.census import LeaseCensus
from tenure.master.rpc.messages import checkpoint_record
from tenure.master.rpc.outcomes import Taken, end_orphans, outcome_verdict, take_outcomes, verdict_name
from tenure.master.rpc.renewals import HELD, renew, revocations
from tenure.master.settings import MasterSettings
from tenure.master.store import Store
from tenure.master.store.records import Grant, Lease, Release, RenewVerdict, RetryPolicy, TaskEvent
from tenure.proto import worker_pb2

log = structlog.get_logger()

Holders = MutableMapping[str, "StreamLeases"]
"""Task id -> the leases that it is among, of all sessions of this master."""


class StreamLeases:
    """Leases that were seen on one stream.

    Args:
        worker_id, instance_id: Whose, and which start of it.
        holders: Kept up here.
        census: Says what the store thinks the worker holds.
        send: Takes a message for the worker, as SessionDown's fields.
    """

    def __init__(
        self,
        worker_id: str,
        instance_id: str,
        store: Store,
        settings: MasterSettings,
        metrics: MasterMetrics,
        retry: RetryPolicy,
        holders: Holders,
        census: LeaseCensus,
        send: Callable[..., None],
    ) -> None:
        self._worker_id = worker_id
        self._instance_id = instance_id
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._retry = retry
        self._holders = holders
        self._census = census
        self._send = send
        # Task id -> (token, epoch), and when it was renewed last.
        self._held: dict[str, tuple[str, int]] = {}
        self._renewed_at: dict[str, float] = {}
        self._log_fields: dict[str, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._held)

    # ---- downwards ------------------------------------------------------------------------------------------------

    def note_grants(self, grants: Sequence[Grant]) -> None:
        """These are on their way to the worker."""
        now = time.monotonic()
        for grant in grants:
            self._hold(grant.task_id, grant.token, grant.epoch, grant.log_fields)
            self._renewed_at[grant.task_id] = now

    def note_event(self, event: TaskEvent) -> None:
        """Something happened to a task that the worker holds, perhaps at another master."""
        held = self._held.get(event.task_id)
        if held is None:
            return
        if event.transition == "cancel":
            self._revoke(event.task_id, "cancelled")
        elif event.transition == "complete" and (event.epoch, event.worker_id) != (held[1], self._worker_id):
            self._revoke(event.task_id, "finished_elsewhere")
        elif event.transition in ("claim", "readopt") and event.epoch > held[1]:
            self._revoke(event.task_id, "lost")

    def _revoke(self, task_id: str, reason: str) -> None:
        """Tell the worker to stop a run. Unless it is ``cancelled`` (it will release), the lease is forgotten here."""
        token, _ = self._held[task_id]
        if reason != "cancelled":
            self.forget(task_id, token)
        revocation = worker_pb2.Revocation(task_id=task_id, lease_token=token, reason=reason)
        self._send(revocations=worker_pb2.Revocations(revocations=[revocation]))

    # ---- upwards --------------------------------------------------------------------------------------------------

    async def renew(self, messages: Iterable[worker_pb2.Renewal]) -> bool:
        """Renew what the worker says it holds, and tell it what it holds no more.

        Returns:
            Whether that shows that the store came back older than it was.

        Raises:
            StoreUnavailable: Nothing is known; nothing was told.
        """
        renewed = await renew(self._store, self._metrics, messages, self._worker_id, self._instance_id)
        now = time.monotonic()
        for row, verdict in renewed:
            if verdict in HELD:
                self._hold(row.task_id, row.token, row.epoch, row.log_fields)
                self._observe_renewal(row.task_id, now)
            else:
                self.forget(row.task_id, row.token)
        lost = revocations(renewed)
        if lost:
            self._send(revocations=worker_pb2.Revocations(revocations=lost))
        self._send(renewals_done=worker_pb2.RenewalsDone(renewed=sum(verdict in HELD for _, verdict in renewed)))
        return any(verdict is RenewVerdict.AHEAD for _, verdict in renewed)

    async def end(self, outcomes: Sequence[worker_pb2.Outcome]) -> None:
        """Carry outcomes into the store and answer with their verdicts, however long the store is away."""
        # Without a token it would count as a legacy peer's, which no peer with a session is.
        named = [outcome for outcome in outcomes if outcome.lease_token]
        judged = [judge_outcome(outcome, self._worker_id, self._retry) for outcome in named]
        known: dict[int, Taken] = {}
        taken = await self._store.patience.repeat(lambda: take_outcomes(self._store, self._metrics, judged, known))
        for outcome in named:
            self.forget(outcome.task_id, outcome.lease_token)
        by_outcome = dict(zip(map(id, named), taken, strict=True))
        verdicts = [outcome_verdict(outcome, by_outcome.get(id(outcome))) for outcome in outcomes]
        self._send(outcome_verdicts=worker_pb2.OutcomeVerdicts(verdicts=verdicts))

    async def register_checkpoint(self, message: worker_pb2.RegisterCheckpoint) -> None:
        """Make a checkpoint exist and answer with the verdict, however long the store is away."""
        urls: list[str] = []
        try:
            ids.check_id(message.lease_token, "lease_token")
            record = checkpoint_record(message.checkpoint)
        except InvalidInput as error:
            # Ending the stream for it would stop the worker's other tasks, and again each time it announces it.
            fields = {**self._log_fields.get(message.task_id, {"task": message.task_id}), "worker": self._worker_id}
            log.warning("checkpoint.invalid", **fields, error=str(error))
            word = "INVALID"
        else:
            register = functools.partial(
                self._store.tasks.register_checkpoint, message.task_id, message.lease_token, self._worker_id, record
            )
            verdict, urls = await self._store.patience.repeat(register)
            word = verdict.value
        self._metrics.checkpoints.labels(word).inc()
        self._send(
            checkpoint_verdict=worker_pb2.CheckpointVerdict(
                task_id=message.task_id,
                lease_token=message.lease_token,
                url=message.checkpoint.url,
                verdict=verdict_name(word),
                delete_urls=urls,
            )
        )

    async def settle(self, named: Iterable[worker_pb2.Renewal]) -> None:
        """Settle what the store says this worker holds and its hello doesn't name: leases that were given to this very
        process never reached it and go back to the queue, those of an earlier process died with it.

        Raises:
            StoreUnavailable: Call again.
        """
        tokens = {renewal.lease_token for renewal in named}
        await self._give_up(
            [lease for lease in await self._census.leases_of(self._worker_id) if lease.token not in tokens]
        )

    async def settle_late(self) -> None:
        """Settle what another master claimed for an earlier stream before it had heard of this one.

        Such a claim is committed within moments of the hello, so it is looked for once, a grace later. What this master
        claims itself may be on its way just then: only what is unheard of for another grace is given up.

        Raises:
            StoreUnavailable: Those leases live their whole TTL.
        """
        grace_seconds = self._settings.grace_ms / 1000
        await asyncio.sleep(grace_seconds)
        suspects = self._unheard_of(await self._census.leases_of(self._worker_id))
        if suspects:
            await asyncio.sleep(grace_seconds)
            await self._give_up(self._unheard_of(suspects))

    def _unheard_of(self, leases: Iterable[Lease]) -> list[Lease]:
        return [lease for lease in leases if self._held.get(lease.task_id, ("",))[0] != lease.token]

    async def _give_up(self, leases: Sequence[Lease]) -> None:
        """End leases that nobody works under. One that has ended meanwhile is left as it is."""
        if not leases:
            return
        lost = [lease for lease in leases if lease.instance_id == self._instance_id]
        orphans = [lease for lease in leases if lease.instance_id != self._instance_id]
        for lease in lost:
            await self._store.tasks.release(Release(lease.task_id, lease.token, self._worker_id))
        await end_orphans(self._store, self._metrics, orphans, self._retry)
        log.info("session.settled", worker=self._worker_id, given_back=len(lost), orphans=len(orphans))

    # ---- the stream's end -----------------------------------------------------------------------------------------

    def forget(self, task_id: str, token: str) -> None:
        """The lease is no longer this stream's."""
        held = self._held.get(task_id)
        if held is not None and held[0] == token:
            del self._held[task_id]
            self._log_fields.pop(task_id, None)
            self._renewed_at.pop(task_id, None)
            self._drop_holder(task_id)

    def close(self) -> None:
        """Nobody is at the other end to be told anything."""
        for task_id in self._held:
            self._drop_holder(task_id)

    async def cut(self, patience_seconds: float) -> None:
        """Leave what is still held the grace.

        Raises:
            StoreUnavailable: The store was away for ``patience_seconds``; the leases live their whole TTL.
        """
        leases = [(task_id, token) for task_id, (token, _) in self._held.items()]
        cut = functools.partial(self._store.tasks.cut, leases, self._settings.grace_ms)
        await self._store.patience.repeat(cut, patience_seconds)

    def _hold(self, task_id: str, token: str, epoch: int, log_fields: dict[str, Any]) -> None:
        # What the grant says of the lease is more than its renewals say.
        if self._held.get(task_id) != (token, epoch):
            self._log_fields[task_id] = log_fields
        self._held[task_id] = (token, epoch)
        self._holders[task_id] = self

    def _drop_holder(self, task_id: str) -> None:
        if self._holders.get(task_id) is self:
            del self._holders[task_id]

    def _observe_renewal(self, task_id: str, now: float) -> None:
        before = self._renewed_at.get(task_id)
        if before is not None:
            self._metrics.renewal_lag_seconds.observe(max(0.0, now - before - self._settings.heartbeat_seconds))
        self._renewed_at[task_id] = now
