"""How fast a search goes, and when it may be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenure.common.states import TaskState
from tenure.master.store.records import SearchView

MINUTE_MS = 60_000
WINDOWS_MS = (2 * MINUTE_MS, 10 * MINUTE_MS, 60 * MINUTE_MS, 6 * 60 * MINUTE_MS, 24 * 60 * MINUTE_MS)
# Fewer ends say little about the pace: a longer window is looked at.
ENDS_MIN = 10
# With fewer, no time of the end is said.
ETA_ENDS_MIN = 3


@dataclass(frozen=True)
class Forecast:
    """What can be said.

    Attributes:
        per_hour: Tasks that end in an hour; None: none has ended of late.
        window_ms: Over which that was counted.
        eta_ms: Until the tasks submitted so far have ended; None: it can't be known, for the reason ``why``.
    """

    per_hour: float | None
    window_ms: int
    eta_ms: int | None
    why: str


def forecast(search: SearchView, ended: Sequence[int], now_unix_ms: int) -> Forecast:
    """From how many tasks ended within each of WINDOWS_MS."""
    windows = list(zip(WINDOWS_MS, ended, strict=True))
    window_ms, count = next((each for each in windows if each[1] >= ENDS_MIN), windows[-1])
    # A young search has not had the whole window.
    window_ms = max(1000, min(window_ms, now_unix_ms - search.created_unix_ms))
    per_ms = count / window_ms
    per_hour = per_ms * 60 * MINUTE_MS if count else None
    open_tasks = sum(number for state, number in search.counts.items() if not state.terminal)
    if not open_tasks:
        why = "every task has ended" if search.counts and sum(search.counts.values()) else "it has no tasks"
    elif search.status != "active":
        why = f"the search is {search.status}"
    elif not search.counts.get(TaskState.LEASED, 0) and not ended[0]:
        why = "none of its tasks runs"
    elif count < ETA_ENDS_MIN:
        why = "too few of its tasks have ended of late"
    else:
        return Forecast(per_hour, window_ms, round(open_tasks / per_ms), "")
    return Forecast(per_hour, window_ms, None, why)
