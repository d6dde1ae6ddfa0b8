"""The pusher: calls Evaluate on workers that registered a port and never pull, as MorphML's master does.

One loop a worker, one task at a time (as many as it has slots, for a Tenure worker in push mode). What a MorphML 1.0
worker is owed is in docs/protocol.md; the hard parts:

* It registers before its server listens: nothing is claimed for it until its port answers, and a refused call gives
  the task back without burning anything.
* Its result comes by SubmitResult before Evaluate returns, or only as Evaluate's response: whichever comes first is
  taken, the other is the same outcome once more.
* After a restart of this master it only heartbeats: the loop starts from that, and what it is running by its own word
  is waited for.
* An open call is a sign of life (HTTP/2 pings run beneath it), so the lease is renewed while it is open. When it
  breaks, the worker is asked what it runs; a refused connection means that its process is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

import structlog

from tenure.common.errors import TenureError
from tenure.master.loops.push_worker import PushWorker
from tenure.master.rpc.workers import PUSH
from tenure.master.store.records import Grant, Renewal, TaskEvent

if TYPE_CHECKING:
    from tenure.master.master import Master

log = structlog.get_logger()

OTHERS_MAX = 100_000
# Transitions that end a lease.
_ENDS = ("complete", "fail", "release", "expire")


class Pusher:
    """See the module. Loops start by :meth:`note_worker` and by heartbeats; :meth:`close` ends them."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._workers: dict[str, PushWorker] = {}
        # Task id -> the worker that it is being pushed to.
        self._holders: dict[str, PushWorker] = {}
        # Workers that heartbeat here and are known not to be pushed to.
        self._others: set[str] = set()

    def note_worker(self, worker_id: str) -> None:
        """A push worker registered here: push to it."""
        self._others.discard(worker_id)
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = self._workers[worker_id] = PushWorker(self._master, worker_id, self._holders)
        worker.note_alive()
        worker.note_change()

    def forget(self, worker_id: str) -> None:
        """The worker pulls: don't push to it."""
        self._note_other(worker_id)
        worker = self._workers.pop(worker_id, None)
        if worker is not None:
            self._master.spawn(worker.close())

    async def note_heartbeat(
        self, worker_id: str, running: Collection[str], tokens: frozenset[str] | None = None
    ) -> None:
        """A worker heartbeats here and says what it runs; one that isn't known is looked up, and pushed to if that is
        its way.

        The leases of a worker that can't name tokens (``tokens`` is None) live by its heartbeats. One that is pushed to
        keeps those that it names: what it says nothing of, while no call for it is open here, is lost, and its lease
        runs out. One that pulls keeps all.

        Raises:
            StoreUnavailable: Nothing is known.
        """
        worker = self._workers.get(worker_id)
        if worker is None and worker_id not in self._others:
            worker = await self._take_back(worker_id, running)
        if worker is not None:
            worker.note_alive()
            worker.note_running(running, tokens)
        if tokens is not None:
            return
        if worker is None:
            await self._master.store.workers.seen_legacy(worker_id)
            return
        strays = [Renewal(task_id, "", 0, worker_id) for task_id in running if task_id not in worker.calls]
        for verdict in await self._master.store.tasks.renew_all(strays):
            self._master.metrics.renewals.labels(verdict.value).inc()

    def note_result(self, worker_id: str, task_id: str) -> None:
        """A Tenure worker has told a result by SubmitResult."""
        if worker_id in self._workers:
            self._workers[worker_id].note_result(task_id)

    def note_mode(self, worker_id: str) -> None:
        """The worker was drained, cordoned or uncordoned."""
        if worker_id in self._workers:
            self._workers[worker_id].note_change()

    def note_event(self, event: TaskEvent) -> None:
        """Stop what was cancelled or is done elsewhere, and wait no longer for what has ended."""
        worker = self._holders.get(event.task_id)
        call = worker.calls.get(event.task_id) if worker is not None else None
        if worker is None or call is None:
            return
        if event.transition == "cancel":
            self._master.spawn(call.say_stop("cancelled"))
        elif event.transition in _ENDS and (event.worker_id, event.epoch) == (worker.worker_id, call.grant.epoch):
            call.note_lease_ended()
        elif event.transition == "complete":
            self._master.spawn(call.say_stop("finished_elsewhere"))

    def lease_of(self, worker_id: str, task_id: str) -> Grant | None:
        """The lease under which a task is being pushed to a worker from here: a legacy result can't name it."""
        worker = self._workers.get(worker_id)
        call = worker.calls.get(task_id) if worker is not None else None
        return call.grant if call is not None else None

    async def close(self) -> None:
        """End all loops. The workers run on; their results come by SubmitResult to any master."""
        await asyncio.gather(*(worker.close() for worker in self._workers.values()))

    async def _take_back(self, worker_id: str, running: Collection[str]) -> PushWorker | None:
        try:
            view = await self._master.store.workers.get(worker_id)
        except TenureError:
            return None
        if view.fields.get("dispatch") != PUSH:
            self._note_other(worker_id)
            return None
        self.note_worker(worker_id)
        log.info("push.taken_back", worker=worker_id, running=sorted(running))
        return self._workers[worker_id]

    def _note_other(self, worker_id: str) -> None:
        if len(self._others) >= OTHERS_MAX:
            # They are looked up again.
            self._others.clear()
        self._others.add(worker_id)
