"""Answers that are shared: however many people look, the store is asked as often as for one."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

ENTRIES_MAX = 256
FRESH_SECONDS_MIN = 1.0
# An answer that took long is kept for so many times as long: looking takes at most this part of the master's time.
COST_RATIO = 20


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: Any = None
        self.good_until = float("-inf")


class SharedAnswers:
    """Answers by question; thread-safe. Each is made by one thread at a time, and the others wait for it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[object, _Entry] = OrderedDict()

    def get(self, question: object, make: Callable[[], Any], cost_ratio: float = COST_RATIO) -> Any:
        """What ``make`` returned a short time ago, or returns now. What it raises is raised, and not kept."""
        with self._lock:
            entry = self._entries.setdefault(question, _Entry())
            self._entries.move_to_end(question)
            while len(self._entries) > ENTRIES_MAX:
                self._entries.popitem(last=False)
        with entry.lock:
            started = self._clock()
            if started >= entry.good_until:
                entry.value = make()
                ended = self._clock()
                entry.good_until = ended + max(FRESH_SECONDS_MIN, cost_ratio * (ended - started))
            return entry.value

    def forget(self) -> None:
        """Something was changed by hand: whoever looks next is to see it."""
        with self._lock:
            self._entries.clear()
