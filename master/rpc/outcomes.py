"""Carries judged outcomes into the store and words the answer. One way in for the session, SubmitResult and pushes."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from tenure.common import ids
from tenure.common.errors import InvalidInput
from tenure.master.core.outcomes import Judged
from tenure.master.metrics import MasterMetrics
from tenure.master.store import Store
from tenure.master.store.records import Failure, Success, Verdict

log = structlog.get_logger()

_MESSAGES = {
    Verdict.OK: "",
    Verdict.DUPLICATE: "the task had ended already; this outcome is not needed",
    Verdict.STALE: "the lease is outdated: another worker has the task; stop that run",
    Verdict.UNKNOWN_TASK: "no task of this id",
}


@dataclass(frozen=True)
class Taken:
    """What became of an outcome: the verdict, and URLs of checkpoints that the worker deletes now."""

    verdict: Verdict
    delete_urls: list[str] = field(default_factory=list)

    @property
    def message(self) -> str:
        """The verdict for people."""
        return _MESSAGES[self.verdict]


async def take_outcome(store: Store, metrics: MasterMetrics, judged: Judged) -> Taken:
    """Put an outcome into the store. Safe to call again: the answer is the same.

    Raises:
        StoreUnavailable: Whether it was taken is unknown; call again.
    """
    try:
        ids.check_id(judged.task_id, "task_id")
    except InvalidInput:
        return Taken(Verdict.UNKNOWN_TASK)
    if isinstance(judged, Success):
        kind = "success"
        verdict, urls = await store.tasks.complete(judged)
    elif isinstance(judged, Failure):
        kind = judged.kind.value
        verdict, state = await store.tasks.fail(judged)
        urls = []
        log.warning(
            "task.fail",
            task=judged.task_id,
            worker=judged.worker_id,
            kind=kind,
            verdict=verdict.value,
            state=state,
            error=judged.evidence.error_class,
            message=judged.evidence.error_message[:500],
            exit_signal=judged.evidence.exit_signal,
        )
    else:
        kind = "release"
        verdict, urls = await store.tasks.release(judged)
    metrics.outcomes.labels(kind, verdict.value).inc()
    log.debug("task.outcome", task=judged.task_id, worker=judged.worker_id, kind=kind, verdict=verdict.value)
    return Taken(verdict, urls)


def verdict_message(verdict: Verdict) -> str:
    """A verdict as the protocol's enum names it; messages take enum values by name."""
    return f"VERDICT_{verdict.value}"
