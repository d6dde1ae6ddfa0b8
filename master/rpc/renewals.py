"""What holders say they hold, put into the store, and what they are told of it; for sessions and heartbeats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog

from tenure.master.metrics import MasterMetrics
from tenure.master.rpc.workers import read_renewal
from tenure.master.store import Store
from tenure.master.store.records import Renewal, RenewVerdict
from tenure.proto import worker_pb2

log = structlog.get_logger()

Renewed = list[tuple[Renewal, RenewVerdict]]

HELD = frozenset({RenewVerdict.OK, RenewVerdict.READOPTED, RenewVerdict.AHEAD, RenewVerdict.CANCEL})
_REASONS = {
    RenewVerdict.CANCEL: "cancelled",
    RenewVerdict.LOST: "lost",
    RenewVerdict.FINISHED: "finished_elsewhere",
    RenewVerdict.UNKNOWN: "unknown",
}


async def renew(
    store: Store, metrics: MasterMetrics, messages: Iterable[worker_pb2.Renewal], worker_id: str, instance_id: str
) -> Renewed:
    """Renew what a process of a worker says it holds.

    Only legacy peers live without tokens, and they don't send renewals: one that names no token holds nothing.

    Raises:
        StoreUnavailable: Nothing is known; the lease clock stands still meanwhile.
    """
    rows = [read_renewal(each, worker_id, instance_id) for each in messages]
    named = [row for row in rows if row.token]
    verdicts = dict(zip(map(id, named), await store.tasks.renew_all(named), strict=True))
    renewed = [(row, verdicts.get(id(row), RenewVerdict.LOST)) for row in rows]
    for row, verdict in renewed:
        if verdict is RenewVerdict.AHEAD:
            log.warning("task.readopt", **row.log_fields, why="the store had lost it")
        elif verdict is RenewVerdict.ORPHAN:
            log.debug("task.orphan", **row.log_fields, why="the store has lost it")
        metrics.renewals.labels(verdict.value).inc()
    return renewed


def revocations(renewed: Sequence[tuple[Renewal, RenewVerdict]]) -> list[worker_pb2.Revocation]:
    """What the holder has to stop."""
    return [
        worker_pb2.Revocation(task_id=row.task_id, lease_token=row.token, reason=_REASONS[verdict])
        for row, verdict in renewed
        if verdict in _REASONS
    ]
