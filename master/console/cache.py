"""Answers that are shared: however many people look, the store is asked as often as for one."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

# The largest answer, a task with fifty leases' output, has about a megabyte.
ENTRIES_MAX = 64
FRESH_SECONDS_MIN = 1.0
# An answer that took long is kept for so many times as long: looking takes at most this part of the master's time.
COST_RATIO = 20
# While somebody makes it anew, the others are given one that is older by so much: they hold threads that others need.
STALE_SECONDS_MAX = 5.0


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: Any = None
        self.good_until = float("-inf")


class SharedAnswers:
    """Answers by question; thread-safe. Each is made by one thread at a time; those who have none yet wait for it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[object, _Entry] = OrderedDict()

    def get(
        self,
        question: object,
        make: Callable[[], Any],
        cost_ratio: float = COST_RATIO,
        fresh_seconds_min: float = FRESH_SECONDS_MIN,
    ) -> Any:
        """What ``make`` returned a short time ago, or returns now. What it raises is raised, and not kept."""
        with self._lock:
            entry = self._entries.setdefault(question, _Entry())
            self._entries.move_to_end(question)
            while len(self._entries) > ENTRIES_MAX:
                self._entries.popitem(last=False)
        if not entry.lock.acquire(blocking=self._clock() >= entry.good_until + STALE_SECONDS_MAX):
            return entry.value
        try:
            started = self._clock()
            if started >= entry.good_until:
                entry.value = make()
                ended = self._clock()
                entry.good_until = ended + max(fresh_seconds_min, cost_ratio * (ended - started))
            return entry.value
        finally:
            entry.lock.release()

    def forget(self) -> None:
        """Something was changed by hand: whoever looks next is to see it."""
        with self._lock:
            self._entries.clear()
