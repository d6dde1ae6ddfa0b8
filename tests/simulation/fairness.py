"""How fairly searches were served, over windows in which all of them had tasks waiting."""

from __future__ import annotations

from collections.abc import Sequence

from simulation.ledger import Ledger
from simulation.world import HOUR_MS, SEARCHES, World


def jain(values: Sequence[float]) -> float:
    """Jain's index (Jain, Chiu and Hawe, 1984): 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


class Fairness:
    """See the module.

    Attributes:
        window_ms: How long one window is.
        windows: How many counted.
        claims, slot_ms: By measured search, over those windows.
        claims_index, slot_index: Jain's index of each window, over shares divided by weights.
    """

    def __init__(self, ledger: Ledger, world: World) -> None:
        self.window_ms = 6 * HOUR_MS
        self.measured = [number for number, search in enumerate(SEARCHES) if search.measured]
        self.windows = 0
        self.claims = dict.fromkeys(self.measured, 0)
        self.slot_ms = dict.fromkeys(self.measured, 0)
        self.claims_index: list[float] = []
        self.slot_index: list[float] = []
        self._ledger = ledger
        self._world = world
        self._before: dict[int, tuple[int, int]] | None = None

    def measure(self, now_ms: int) -> None:
        """A window is over."""
        ledger = self._ledger
        figures = {n: (ledger.claims[n], ledger.lease_time(n, now_ms)) for n in self.measured}
        before, self._before = self._before, figures
        if not all(ledger.submitted[n] - ledger.done[n] - ledger.running[n] > 0 for n in self.measured):
            self._before = None
        elif before is not None:
            self._count(before, figures)

    def _count(self, before: dict[int, tuple[int, int]], after: dict[int, tuple[int, int]]) -> None:
        self.windows += 1
        claims = {n: after[n][0] - before[n][0] for n in self.measured}
        slot_ms = {n: after[n][1] - before[n][1] for n in self.measured}
        for number in self.measured:
            self.claims[number] += claims[number]
            self.slot_ms[number] += slot_ms[number]
        self.claims_index.append(jain([claims[n] / SEARCHES[n].weight for n in self.measured]))
        self.slot_index.append(jain([slot_ms[n] / SEARCHES[n].weight for n in self.measured]))
