"""Operators' word that a worker is to take tasks again, for workers that hear of it with a heartbeat's answer."""

from __future__ import annotations

import time

# An older one was for a process that another master has told, or that never came.
_AGE_SECONDS_MAX = 120.0
_WORKERS_MAX = 10_000


class Uncordons:
    """Who is still to be told. A worker with a session hears of it there."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def note(self, worker_id: str) -> None:
        """An operator has uncordoned the worker, at any master."""
        self._at.pop(worker_id, None)
        self._at[worker_id] = time.monotonic()
        while len(self._at) > _WORKERS_MAX:
            del self._at[next(iter(self._at))]

    def take(self, worker_id: str) -> bool:
        """Whether the worker is to be told now; true once."""
        at = self._at.pop(worker_id, None)
        return at is not None and time.monotonic() - at <= _AGE_SECONDS_MAX
