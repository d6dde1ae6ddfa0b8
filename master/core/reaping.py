"""How many expired leases the reaper may take back now."""

from __future__ import annotations

from dataclasses import dataclass

from tenure.common.limits import BATCH_TASKS_MAX

BRAKE_WORKERS_MIN = 3
BRAKE_FRACTION = 0.55


@dataclass
class Brake:
    """Stops mass expiry: when most leases of several workers would go in one sweep, the trouble is more likely on the
    masters' side (a network cut, a misconfigured balancer) than that all those machines died together.

    The brake holds for ``hold_ms`` on the lease clock, long enough for workers to find their way back, and then lets
    reaping go on: machines do die together, in power cuts.
    """

    hold_ms: int
    _since_ms: int | None = None

    @property
    def on(self) -> bool:
        """Whether reaping is paused; the alert metric."""
        return self._since_ms is not None

    def allowed(self, *, clock_ms: int, due: int, leases: int, workers_due: int) -> int:
        """How many leases may be taken back now: 0 while the brake holds, else at most one script's batch.

        Args:
            clock_ms: The lease clock.
            due: Leases that ran out.
            leases: Leases in all, those that ran out included.
            workers_due: Distinct workers among those that would be taken first.
        """
        suspicious = workers_due >= BRAKE_WORKERS_MIN and due > BRAKE_FRACTION * leases
        if not suspicious:
            self._since_ms = None
        elif self._since_ms is None:
            self._since_ms = clock_ms
        held = self._since_ms is not None and clock_ms - self._since_ms < self.hold_ms
        return 0 if held else min(due, BATCH_TASKS_MAX)
