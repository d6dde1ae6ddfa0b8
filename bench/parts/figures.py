"""What the measuring programs share: where a master listens, percentiles, and words for who waits."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable

# For a master that is started again on its port: while it is away, another server of this machine that asks for any
# free port of 127.0.0.1 may be given it. On this address nobody else asks.
LISTEN = "127.77.0.1:0"


def percentile(values: Iterable[float], percent: float) -> float:
    """By the nearest rank; NaN of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan


def progress(text: str) -> None:
    """A line beside the output proper."""
    print(text, file=sys.stderr, flush=True)
