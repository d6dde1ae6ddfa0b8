"""What a master does when its store has come back older than it was: a restored backup, a lost end of the log, a
failover to a replica that was behind.

Nobody tells a master so; it sees it: the lease clock went back, or events that it has read are gone. Then everybody
must say anew what they know: workers what they hold, watchers what they wait for. Until workers have had the time for
it nothing is claimed, or what they are running would be given away.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from tenure.master.metrics import MasterMetrics

log = structlog.get_logger()


class RollbackAlarm:
    """Where the loops report what they see.

    Args:
        hold_seconds: For how long nothing is claimed after a sign of it.
        hold: Called with that.
        ask_all: Called after it. Both once for a rollback, however many signs of it are seen.
    """

    def __init__(
        self,
        metrics: MasterMetrics,
        hold_seconds: float,
        hold: Callable[[float], None],
        ask_all: Callable[[], None],
    ) -> None:
        self._metrics = metrics
        self._hold_seconds = hold_seconds
        self._hold = hold
        self._ask_all = ask_all
        self._quiet_until = 0.0

    def noticed(self, why: str) -> None:
        """A sign of a rollback. One rollback shows in several; those within one hold count as one."""
        now = time.monotonic()
        first = now >= self._quiet_until
        self._quiet_until = now + self._hold_seconds
        if first:
            self._hold(self._hold_seconds)
            log.error("store.rolled_back", why=why, claims_held_seconds=self._hold_seconds)
            self._metrics.store_rollbacks.inc()
            self._ask_all()
