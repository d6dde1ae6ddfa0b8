"""The curves of the searches that somebody looks at, kept up to date by reading on from where the last look ended.

The results of a search are indexed in the store by the time they came, so a long search costs its first viewer one pass
over it, in small pieces, and after that only what is new.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence

from tenure.common.states import TaskState
from tenure.master.console.curve import Curve, Point, Step
from tenure.master.store.looks import Ended, Piece
from tenure.master.store.records import SearchView

CURVES_MAX = 64
PIECE = 250
# One look reads no longer than this, half of it pauses; a long search's first curve comes in several.
LOOK_SECONDS_MAX = 0.4
REREAD_SECONDS_MIN = 60.0

Read = Callable[[str, int, int, int], Piece]
"""(search, unix ms to begin with, how many of that very millisecond to pass over, at most so many; maybe fewer)."""


class _Followed:
    """One search's curve, and the place up to which its results were read."""

    def __init__(self, created_unix_ms: int, now: float) -> None:
        self.lock = threading.Lock()
        self.created_unix_ms = created_unix_ms
        self.curve = Curve()
        self.begun = now
        self.start_unix_ms = 0
        self.skip = 0
        self.whole = False
        self.missed = False

    def take(self, rows: Sequence[Ended]) -> None:
        for row in rows:
            self.curve.add(row.task_id, row.ended_unix_ms, row.fitness)
        last = rows[-1].ended_unix_ms
        same = Counter(row.ended_unix_ms for row in rows)[last]
        self.skip = same + (self.skip if last == self.start_unix_ms else 0)
        self.start_unix_ms = last


class Look:
    """A curve at one moment; what it holds doesn't change.

    Attributes:
        whole: Whether every result so far is in it.
    """

    def __init__(self, curve: Curve, *, whole: bool) -> None:
        self.count = curve.count
        self.points: list[Point] = list(curve.points)
        self.steps: list[Step] = list(curve.steps)
        self.whole = whole

    def thinned(self, points_max: int) -> Iterator[Point]:
        """At most about ``points_max`` of the points, evenly, with the last."""
        stride = max(1, len(self.points) // points_max)
        yield from self.points[::stride]
        if self.points and (len(self.points) - 1) % stride:
            yield self.points[-1]


class Curves:
    """Curves by search; thread-safe. Of more than CURVES_MAX searches, those looked at last are kept.

    Args:
        read: Reads results in the order of their ends.
        clock: Seconds, monotonic.
        pause: Waits so many seconds.
    """

    def __init__(
        self,
        read: Read,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._read = read
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._followed: OrderedDict[str, _Followed] = OrderedDict()

    def look(self, search: SearchView) -> Look:
        """The search's curve, with what came since the last look, as far as there was time to read it."""
        followed = self._followed_of(search)
        with followed.lock:
            self._read_on(search.name, followed)
            # The search was looked up before: no result that it counts can have come since.
            followed.missed = followed.whole and search.counts.get(TaskState.SUCCEEDED, 0) > followed.curve.count
            return Look(followed.curve, whole=followed.whole)

    def _read_on(self, name: str, followed: _Followed) -> None:
        end = self._clock() + LOOK_SECONDS_MAX
        while True:
            started = self._clock()
            rows, more = self._read(name, followed.start_unix_ms, followed.skip, PIECE)
            if rows:
                followed.take(rows)
            followed.whole = not more
            now = self._clock()
            if followed.whole or now >= end:
                return
            # Others want the store and the master, too.
            self._pause(min(now - started, end - now))

    def _followed_of(self, search: SearchView) -> _Followed:
        now = self._clock()
        with self._lock:
            followed = self._followed.get(search.name)
            if followed is None or self._is_outdated(search, followed, now):
                followed = self._followed[search.name] = _Followed(search.created_unix_ms, now)
            self._followed.move_to_end(search.name)
            while len(self._followed) > CURVES_MAX:
                self._followed.popitem(last=False)
            return followed

    @staticmethod
    def _is_outdated(search: SearchView, followed: _Followed, now: float) -> bool:
        """Whether it must be read anew: it is another search of this name, or the store's clock was set back, so that
        results came to stand before the place that was read."""
        if followed.created_unix_ms != search.created_unix_ms:
            return True
        return followed.missed and now - followed.begun > REREAD_SECONDS_MIN
