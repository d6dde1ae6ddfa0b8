"""What the measuring programs share: percentiles, and words for who waits."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable


def percentile(values: Iterable[float], percent: float) -> float:
    """By the nearest rank; NaN of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan


def progress(text: str) -> None:
    """A line beside the output proper."""
    print(text, file=sys.stderr, flush=True)
