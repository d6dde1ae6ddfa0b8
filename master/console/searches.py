"""Searches as the console shows them: how far, how fast, how good."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tenure.common import ids
from tenure.common.states import TaskState
from tenure.master.console.asking import Asker
from tenure.master.console.curves import Curves, Look
from tenure.master.console.forecast import WINDOWS_MS, Forecast, forecast
from tenure.master.console.plain import plain
from tenure.master.rpc import messages
from tenure.master.store.looks import Piece
from tenure.master.store.records import Overview, SearchView

CURVE_POINTS = 800
SMALL_CURVE_POINTS = 60
SMALL_CURVES_MAX = 16


class Searches:
    """Thread-safe; raises what the client API would."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._curves = Curves(self._ended)

    def all(self) -> tuple[list[Overview], list[SearchView]]:
        """Every shard's figures, and every search: those with open tasks first, then the newest."""

        def read() -> tuple[list[Overview], list[SearchView]]:
            overviews = self._asker.ask(self._asker.master.store.searches.overview())
            searches = [search for overview in overviews for search in overview.searches]
            searches.sort(key=lambda search: (not open_tasks(search), -search.created_unix_ms))
            return overviews, searches

        return self._asker.shared("searches", read)

    def view(self, name: str) -> SearchView:
        """One search as the store has it; raises UnknownSearch."""
        ids.check_search_name(name, "name")
        store = self._asker.master.store
        return self._asker.shared(("search", name), lambda: self._asker.ask(store.searches.get(name)))

    def show(self, name: str) -> dict[str, Any]:
        """One search, and how fast it goes."""

        def make() -> dict[str, Any]:
            view = self.view(name)
            ahead = self._forecast(view)
            compute = view.compute
            return {
                "search": plain(messages.search_message(view)),
                "forecast": vars(ahead),
                "compute": {
                    "useful_ms": compute.useful_ms,
                    "saved_ms": dict(compute.saved_ms),
                    "wasted_ms": dict(compute.wasted_ms),
                },
            }

        return self._asker.shared(("show", name), make)

    def _forecast(self, view: SearchView) -> Forecast:
        looks = self._asker.master.store.looks
        pace = self._asker.ask(looks.pace(view.name, WINDOWS_MS))
        if open_tasks(view) or not view.last_ended_unix_ms:
            return forecast(view, pace.ended, pace.unix_ms)
        # How fast a search was that has ended doesn't change any more: it is counted back from its last end.
        since = max(0, pace.unix_ms - view.last_ended_unix_ms)
        pace = self._asker.ask(looks.pace(view.name, [window + since for window in WINDOWS_MS]))
        return forecast(view, pace.ended, view.last_ended_unix_ms)

    def curve(self, name: str) -> dict[str, Any]:
        """A search's results over time: a point each, or of many an even part; and each new best."""

        def make() -> dict[str, Any]:
            return _curve(self._curves.look(self.view(name)), CURVE_POINTS)

        # Reading pauses by itself, so a long search is read on soon.
        return self._asker.shared(("curve", name), make, cost_ratio=1.0, fresh_seconds_min=0.25)

    def small_curves(self, names: Iterable[str]) -> dict[str, Any]:
        """Small curves of at most SMALL_CURVES_MAX searches, for a list; those that don't exist are left out."""
        known = {search.name: search for search in self.all()[1]}
        found: dict[str, Any] = {}
        for name in list(dict.fromkeys(names))[:SMALL_CURVES_MAX]:
            if name in known:
                found[name] = self._asker.shared(("small", name), lambda name=name: self._small(known[name]), 4.0)  # type: ignore[misc]
        return found

    def _small(self, search: SearchView) -> dict[str, Any]:
        return _curve(self._curves.look(search), SMALL_CURVE_POINTS)

    def _ended(self, search: str, start_unix_ms: int, skip: int, count: int) -> Piece:
        work = self._asker.master.store.looks.ended(
            search, TaskState.SUCCEEDED, start_unix_ms=start_unix_ms, skip=skip, count=count, with_fitness=True
        )
        return self._asker.ask(work)


def open_tasks(search: SearchView) -> int:
    """How many of its tasks have not ended."""
    return sum(number for state, number in search.counts.items() if not state.terminal)


def _curve(look: Look, points_max: int) -> dict[str, Any]:
    return {
        "count": look.count,
        "whole": look.whole,
        "points": [list(point) for point in look.thinned(points_max)],
        "steps": [list(step) for step in look.steps],
    }
