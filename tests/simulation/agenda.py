"""What happens when: the heap of events."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Awaitable, Callable
from typing import Any

Action = Callable[..., Awaitable[None]]


class Agenda:
    """Events in the order of virtual time; those of one moment in the order they were entered."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Action | None, Any]] = []
        self._numbers = itertools.count()

    def enter(self, at_ms: float, action: Action | None, subject: Any = None, *, grid_ms: int = 1) -> None:
        """``action(subject)`` at that time, or at the next of a grid; without an action the end of a run, which
        ``subject`` is."""
        at = math.ceil(at_ms / grid_ms) * grid_ms
        heapq.heappush(self._heap, (at, next(self._numbers), action, subject))

    def next_ms(self) -> int | None:
        """When the next one is; None: there is none."""
        return self._heap[0][0] if self._heap else None

    def take(self, window_ms: int) -> tuple[int, Action | None, list[Any]]:
        """The next event, with those of its kind at the same moment: (when, action, subjects).

        Ends of runs are taken together, as many as there are within ``window_ms`` before anything else happens: (the
        last's time, None, runs).
        """
        at, _, action, subject = heapq.heappop(self._heap)
        subjects = [subject]
        latest = at if action is not None else at + window_ms
        while self._heap and self._heap[0][2] == action and self._heap[0][0] <= latest:
            at, _, _, subject = heapq.heappop(self._heap)
            subjects.append(subject)
        return at, action, subjects
