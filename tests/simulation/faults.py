"""Which faults strike, when, and how badly: drawn from the seed. Rates are what large clusters see, rounded up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simulation.options import Options
from simulation.world import DAY_MS

MINUTE_MS = 60_000
MTBF_DAYS = 60.0
# A process that dies takes its connections along at once; a host that dies doesn't say so.
NOTICED = 0.75
# Faults of the whole, per day. A short simulation gets at least one of each kind.
PER_DAY = {
    "waves": 0.2,
    "partitions": 2.0,
    "pauses": 60.0,
    "drains": 1.0,
    "master": 1.0,
    "masters": 0.25,
    "store": 0.3,
    "clock": 0.3,
}
WAVE_PART = 0.30
MASS_PARTITION = 0.7


class Strike(NamedTuple):
    """One fault. ``workers``: whom it hits; ``lasts_ms``: until it is over; ``noticed``: whether streams break."""

    at_ms: int
    kind: str
    workers: list[int]
    lasts_ms: int
    noticed: bool
    step_ms: int = 0


def strikes(options: Options) -> list[Strike]:
    """All faults but single crashes, in no order."""
    random = np.random.default_rng([options.seed, 2])
    found: list[Strike] = []
    for kind, rate in PER_DAY.items():
        if kind in options.faults:
            count = max(1, random.poisson(rate * options.days))
            found += [_strike(kind, options, random) for _ in range(count)]
    if "partitions" in options.faults:
        # Most of the cluster is cut off for a short time: the switch in the middle reboots.
        for noticed in (True, False):
            strike = _strike("partitions", options, random)
            everybody = random.permutation(options.workers)
            part = [int(number) for number in everybody[: int(MASS_PARTITION * options.workers)]]
            found.append(strike._replace(workers=part, lasts_ms=int(random.uniform(5, 60) * 1000), noticed=noticed))
    return found


def _strike(kind: str, options: Options, random: np.random.Generator) -> Strike:
    at_ms = int(random.uniform(0.02, 0.9) * options.days * DAY_MS)
    part = {"waves": WAVE_PART, "partitions": random.uniform(0.005, 0.05), "drains": 0.03}.get(kind, 0.0)
    count = 1 if kind == "pauses" else int(np.ceil(part * options.workers))
    workers = [int(number) for number in random.choice(options.workers, count, replace=False)] if count else []
    median_minutes, spread, most = {
        "waves": (30.0, 0.5, 120.0),
        "partitions": (2.0, 1.2, 60.0),
        "pauses": (1.5, 1.5, 60.0),
        "drains": (8.0, 0.4, 60.0),
        "master": (10.0, 1.0, 240.0),
        "masters": (10.0, 1.2, 240.0),
        "store": (0.7, 1.5, 60.0),
        "clock": (1.0, 0.1, 1.0),
    }[kind]
    lasts_ms = int(min(most, median_minutes * random.lognormal(0.0, spread)) * MINUTE_MS)
    step_ms = int(random.choice([-1, 1]) * random.uniform(1, 7200) * 1000)
    return Strike(at_ms, kind, workers, lasts_ms, bool(random.random() < 0.5), step_ms)
