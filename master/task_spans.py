"""What a master tells of tasks in traces (docs/traces.md); nothing while they are off.

Everything is told when it is over, from what the store knows: a master that was started a moment ago tells the lease
that its predecessor gave out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tenure.common import tracing
from tenure.common.spec import TaskSpec
from tenure.common.traceparent import lease_traceparent, span_id_of
from tenure.common.tracing import Span
from tenure.master.store.lease_facts import LeaseFacts
from tenure.master.store.records import Expired, Grant, Submitted

_NS_PER_MS = 1_000_000


class Submits:
    """The ``submit`` spans of one request's tasks.

    Attributes:
        specs: The tasks, each in a trace: its client's, else one that begins here.
    """

    def __init__(self, search: str, specs: Sequence[TaskSpec]) -> None:
        self.specs = list(specs)
        self._search = search
        self._start_ns = time.time_ns()
        self._roots: list[Span] = []
        if tracing.on():
            self._roots = [
                Span() if spec.trace else tracing.begin("submit", kind="server", search=search) for spec in specs
            ]
            self.specs = [
                replace(spec, trace=root.traceparent) if root else spec
                for spec, root in zip(specs, self._roots, strict=True)
            ]

    def end(self, submitted: Sequence[Submitted]) -> None:
        """The store has them."""
        for spec, root, each in zip(self.specs, self._roots, submitted, strict=bool(self._roots)):
            if root:
                root.set(task=each.task_id, created=each.created)
                root.end()
                continue
            # An equal task that was there already has a trace of its own.
            links = [each.trace] if not each.created and each.trace else []
            facts: dict[str, Any] = {"search": self._search, "task": each.task_id, "created": each.created}
            tracing.told("submit", parent=spec.trace, kind="server", start_ns=self._start_ns, links=links, **facts)

    def refused(self, error: Exception) -> None:
        """None of them was taken."""
        for spec, root in zip(self.specs, self._roots, strict=bool(self._roots)):
            if root:
                root.end(str(error))
            else:
                started: dict[str, Any] = {"start_ns": self._start_ns, "search": self._search}
                tracing.told("submit", parent=spec.trace, kind="server", error=str(error), **started)


def tell_queued(grant: Grant, worker_id: str) -> None:
    """A task was leased: for how long it could have been."""
    if grant.trace and tracing.on():
        end_ns = time.time_ns()
        tracing.told(
            "queued",
            parent=grant.trace,
            start_ns=end_ns - grant.waited_ms * _NS_PER_MS,
            end_ns=end_ns,
            search=grant.search,
            task=grant.task_id,
            epoch=grant.epoch,
            attempt=grant.attempt,
            worker=worker_id,
        )


def tell_transition(
    transition: str, task_id: str, token: str, lease: LeaseFacts | None, start_ns: int, **attributes: Any
) -> None:
    """``complete``, ``fail`` or ``release``: an outcome of the lease ``token`` was put into the store."""
    if lease is not None and lease.trace and tracing.on():
        parent = lease_traceparent(lease.trace, token or lease.token, "lease")
        facts = {"search": lease.search, "task": task_id, **attributes}
        tracing.told(transition, parent=parent, kind="server", start_ns=start_ns, **facts)


def tell_lease(task_id: str, lease: LeaseFacts | None, outcome: str, error: str = "", **attributes: Any) -> None:
    """A lease has ended, which lived until now."""
    if lease is not None and lease.trace and lease.token and tracing.on():
        tracing.told(
            "lease",
            parent=lease.trace,
            span_id=span_id_of(lease.token, "lease"),
            start_ns=lease.leased_unix_ms * _NS_PER_MS,
            error=error,
            search=lease.search,
            task=task_id,
            epoch=lease.epoch,
            attempt=lease.attempt,
            worker=lease.worker_id,
            outcome=outcome,
            **attributes,
        )


def tell_expired(expired: Expired, start_ns: int) -> None:
    """The reaper took a lease back: its worker may never tell anything of it."""
    facts = {"state": expired.state.value, "cause": expired.cause}
    tell_transition(
        "expire", expired.task_id, expired.token, expired.lease, start_ns, worker=expired.worker_id, **facts
    )
    error = f"the lease ran out: its worker was {expired.cause}"
    tell_lease(expired.task_id, expired.lease, "expired", error, **facts)
