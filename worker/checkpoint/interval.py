"""How often a checkpoint is worth its cost.

J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future Generation Computer
Systems 22 (2006) 303-312, equation 37: with a checkpoint that costs δ seconds and M seconds between two losses on
average, the work lost and the work spent on checkpoints are together least with

    √(2δM) · (1 + ⅓·√(δ/2M) + ⅑·δ/2M) − δ    seconds of work between two checkpoints; M, if δ ≥ 2M.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

OVERHEAD_DEFAULT = 0.01
# Until something is known: a worker loses one run in a day of running.
PRIOR_SECONDS_BETWEEN_LOSSES = 24 * 3600.0
# What a run's first checkpoint is taken to cost, as a small network's does: with the rest at its defaults it is due
# after a minute, and can be afforded after two seconds.
FIRST_COST_SECONDS = 0.02
# Of each new measurement in the cost that counts: one slow write must not decide for hours.
_NEWEST_SHARE = 0.5


def daly_interval_seconds(cost_seconds: float, seconds_between_losses: float) -> float:
    """The best time between the end of one checkpoint and the start of the next (see the module's text)."""
    if cost_seconds >= 2 * seconds_between_losses:
        return seconds_between_losses
    ratio = cost_seconds / (2 * seconds_between_losses)
    first_order = math.sqrt(2 * cost_seconds * seconds_between_losses)
    return first_order * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost_seconds


@dataclass(frozen=True)
class CheckpointPolicy:
    """When a checkpoint is due.

    Attributes:
        overhead: The largest share of the time that checkpoints may cost; 0: none is ever due.
        mean_seconds_between_losses: Of run time on this worker.
    """

    overhead: float = OVERHEAD_DEFAULT
    mean_seconds_between_losses: float = PRIOR_SECONDS_BETWEEN_LOSSES

    def interval_seconds(self, cost_seconds: float) -> float:
        """Between two checkpoints of such a cost: Daly's optimum, or longer if that would cost more than allowed."""
        return max(
            daly_interval_seconds(cost_seconds, self.mean_seconds_between_losses), self.pause_seconds(cost_seconds)
        )

    def pause_seconds(self, cost_seconds: float) -> float:
        """The least time between two checkpoints of such a cost."""
        return cost_seconds / self.overhead if self.overhead > 0 else math.inf


class CostEstimate:
    """What a checkpoint of this run costs its training, from those written so far."""

    def __init__(self) -> None:
        self.seconds = FIRST_COST_SECONDS
        self._measured = False
        self._cpu_clock = BusyCores()

    def measured(self, stall_seconds: float, write_cpu_seconds: float) -> None:
        """A checkpoint held the training up for so long, and took so much CPU time beside it.

        Of the latter the training pays the share of the cores that are busy anyway: none of it while cores idle.
        """
        cost = stall_seconds + write_cpu_seconds * self._cpu_clock.share()
        if self._measured:
            cost = _NEWEST_SHARE * cost + (1 - _NEWEST_SHARE) * self.seconds
        self.seconds, self._measured = cost, True


class BusyCores:
    """How busy the cores are that this process may use: 1 if a thread more takes its time from the others."""

    def __init__(self) -> None:
        self._started = (time.monotonic(), time.process_time())

    def share(self) -> float:
        """From 0 to 1: the larger of this process's own share since it began, and the machine's load of a minute."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        elapsed = time.monotonic() - self._started[0]
        own = (time.process_time() - self._started[1]) / (elapsed * usable) if elapsed > 0 else 1.0
        try:
            machine = os.getloadavg()[0] / (os.cpu_count() or 1)
        except OSError:
            machine = 1.0
        return min(1.0, max(own, machine))
