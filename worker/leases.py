"""What names a lease on the worker's side."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from tenure.common.traceparent import log_fields

_REMEMBERED_MAX = 1000


class LeaseKey(NamedTuple):
    """One lease of one task. An empty token: the task came from a master that knows no leases."""

    task_id: str
    token: str


class _Fenced(Protocol):
    task_id: str
    lease_token: str


def key_of(message: _Fenced) -> LeaseKey:
    """The lease that a message of the wire is about."""
    return LeaseKey(message.task_id, message.lease_token)


class _Described(_Fenced, Protocol):
    search: str
    epoch: int
    attempt: int
    trace: str


def fields_of(message: _Described) -> dict[str, Any]:
    """What every log line about the lease carries; ``message`` is the task as it came, or its outcome."""
    return {
        "search": message.search,
        "task": message.task_id,
        "epoch": message.epoch,
        "attempt": message.attempt,
        **log_fields(message.trace),
    }


class LeaseFields:
    """What log lines about leases carry, also when a verdict on one comes late: of the last thousand."""

    def __init__(self) -> None:
        # In the order in which they came.
        self._fields: dict[LeaseKey, dict[str, Any]] = {}

    def note(self, key: LeaseKey, fields: dict[str, Any]) -> None:
        """This is known of the lease."""
        self._fields.setdefault(key, fields)
        if len(self._fields) > _REMEMBERED_MAX:
            del self._fields[next(iter(self._fields))]

    def of(self, key: LeaseKey) -> dict[str, Any]:
        """What a line about it carries; of one that is forgotten, or was never here, its task alone."""
        return self._fields.get(key, {"task": key.task_id})
