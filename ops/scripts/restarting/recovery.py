"""Waits until a broker is whole again after a restart: its workers heard, the leases they hold renewed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from restarting.processes import CALL_POLL_SECONDS, wait_until
from restarting.snapshot import Snapshot, TaskLine, leased_now
from tenure.client import Client
from tenure.common.errors import TenureError
from tenure.common.states import TaskState

# Workers of these kinds have their leases prolonged when those run out, as long as they heartbeat.
_WITHOUT_RENEWALS = ("push", "pull")


@dataclass
class Recovery:
    """How far it got.

    Attributes:
        leases: How many were held at the beginning.
        silent: Workers that were live before and were not heard since.
        unrenewed: Tasks whose leases were neither renewed nor ended.
    """

    leases: int = 0
    silent: list[str] = field(default_factory=list)
    unrenewed: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.silent and not self.unrenewed

    def missing(self, seconds: float) -> list[str]:
        """What is missing after so long, a sentence each."""
        sentences = [f"worker {worker} was not heard within {seconds:g} s" for worker in self.silent]
        sentences += [f"the lease of task {task} was not renewed within {seconds:g} s" for task in self.unrenewed]
        return sentences


def await_recovery(client: Client, before: Snapshot, seconds: float) -> Recovery:
    """Wait until every worker that was live before has been heard, and every lease that is held now was renewed or has
    ended. A lease that its worker knows nothing of shows here: it is never renewed, and expires.

    Returns:
        What it has seen, and what is missing when the time is over.
    """
    watch = _Watch(client, before)
    wait_until(watch.complete, seconds, CALL_POLL_SECONDS)
    return watch.recovery


class _Watch:
    def __init__(self, client: Client, before: Snapshot) -> None:
        self.recovery = Recovery(silent=sorted(before.workers))
        self._client = client
        self._dispatch = {worker: dispatch for worker, (_, dispatch) in before.workers.items()}
        self._since = time.monotonic()
        self._unrenewed: dict[str, TaskLine] | None = None
        self._left_ms: dict[str, int] = {}

    def complete(self) -> bool:
        try:
            self._listen()
            self._look_at_leases()
        except TenureError:
            return False
        return self.recovery.complete

    def _listen(self) -> None:
        # Rather too late than early: the answer's own time counts as silence.
        since_ms = (time.monotonic() - self._since) * 1000
        heard = {
            worker.worker_id
            for worker in self._client.workers(include_gone=True)
            # Gone: it said goodbye, which is no fault of the restart; what it held tells the rest.
            if worker.status == "gone" or worker.last_seen_ms_ago < since_ms
        }
        self.recovery.silent = [worker for worker in self.recovery.silent if worker not in heard]

    def _look_at_leases(self) -> None:
        if self._unrenewed is None:
            self._unrenewed = {
                task_id: task
                for task_id, task in leased_now(self._client).items()
                if self._dispatch.get(task.worker_id) not in _WITHOUT_RENEWALS
            }
            self.recovery.leases = len(self._unrenewed)
            self._left_ms = {task_id: task.lease_left_ms for task_id, task in self._unrenewed.items()}
        records = self._client.get_tasks(list(self._unrenewed)) if self._unrenewed else {}
        for task_id, task in list(self._unrenewed.items()):
            record = records.get(task_id)
            ended = record is None or record.state is not TaskState.LEASED or record.epoch != task.epoch
            if record is None or ended or record.lease_left_ms > self._left_ms[task_id]:
                del self._unrenewed[task_id]
            else:
                self._left_ms[task_id] = record.lease_left_ms
        self.recovery.unrenewed = sorted(self._unrenewed)
