"""What names a lease on the worker's side."""

from __future__ import annotations

from typing import NamedTuple, Protocol


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
