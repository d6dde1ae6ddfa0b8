"""What a master does when its store has come back older than it was: a restored backup, a lost end of the log, a
failover to a replica that was behind.

Nobody tells a master so; it sees it: the lease clock went back, or events that it has read are gone. Then everybody
must say anew what they know: workers what they hold, watchers what they wait for. Until workers have had the time for
it nothing is claimed, or what they are running would be given away.

A master that was started on the old copy has seen neither. It is told: a worker's hello shows a lease that is newer
than the store's. That is the word of one worker, which it may repeat for ever; so it is believed once in a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from tenure.master.metrics import MasterMetrics

log = structlog.get_logger()


class RollbackAlarm:
    """Where everybody reports what they see, and the one place that has claims held.

    A rollback shows in several signs. Those within one hold are of one rollback, and none of them lengthens the hold.

    Args:
        hold_seconds: For how long nothing is claimed after a sign.
        quiet_seconds: For how long after a hold no suspicion starts another one.
        hold: Called with ``hold_seconds``.
        ask_all: Called after it when the sign is certain: everybody is to say anew what they have.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        metrics: MasterMetrics,
        hold_seconds: float,
        quiet_seconds: float,
        hold: Callable[[float], None],
        ask_all: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._hold_seconds = hold_seconds
        self._quiet_seconds = quiet_seconds
        self._hold = hold
        self._ask_all = ask_all
        self._clock = clock
        self._held_until = 0.0
        self._certain_until = 0.0
        self._quiet_until = 0.0

    def noticed(self, why: str) -> None:
        """A certain sign: the lease clock went back, or events that this master has read are gone."""
        now = self._clock()
        if now < self._certain_until:
            return
        # Behind a mere suspicion, too: those who are asked now need the whole time to answer.
        self._certain_until = now + self._hold_seconds
        self._begin(why, now)
        self._ask_all()

    def suspected(self, why: str) -> None:
        """A worker said so in its hello. The others that come back hold leases that are QUEUED here; those that are
        connected have said hello to this very store, so nobody is asked again."""
        now = self._clock()
        if now >= self._quiet_until:
            self._begin(why, now)

    def _begin(self, why: str, now: float) -> None:
        if now >= self._held_until:
            log.error("store.rolled_back", why=why, claims_held_seconds=self._hold_seconds)
            self._metrics.store_rollbacks.inc()
        else:
            log.info("store.rollback_confirmed", why=why, claims_held_seconds=self._hold_seconds)
        self._held_until = now + self._hold_seconds
        self._quiet_until = self._held_until + self._quiet_seconds
        self._hold(self._hold_seconds)
