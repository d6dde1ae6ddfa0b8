"""Searches: their settings, status and counts, and the figures of the shards they live in."""

from __future__ import annotations

import json
from typing import Any

from tenure.common.errors import UnknownSearch, WrongState
from tenure.common.spec import Requirements
from tenure.master.store import codec
from tenure.master.store.code import unknown_code
from tenure.master.store.codec import pairs, text
from tenure.master.store.keys import Keys
from tenure.master.store.pipeline import ScriptCalls
from tenure.master.store.records import Overview, SearchView, requirements_from_json


class SearchStore:
    """Searches of all shards."""

    def __init__(self, pipeline: ScriptCalls, keys: Keys) -> None:
        self._pipeline = pipeline
        self._keys = keys

    async def put(self, name: str, settings: dict[str, Any], *, status: str | None = None, create: bool = True) -> None:
        """Create a search or change it. Settings: priority, weight, max_leased, format, evaluator, code, and the retry
        policy as ``retry`` (JSON text) with ``retry_id``; absent ones stay.

        Raises:
            UnknownSearch: There is none of this name, and ``create`` is false.
            UnknownCode: The code is not in the store.
            WrongState: The format would change under tasks that exist.
        """
        call: dict[str, Any] = {"name": name, "create": create, "settings": settings}
        if status is not None:
            call["status"] = status
        reply = await self._pipeline.call("search", self._key(name), json.dumps(call))
        if reply == b"UNKNOWN_SEARCH":
            raise unknown_search(name)
        if reply == b"UNKNOWN_CODE":
            raise unknown_code(settings["code"])
        if reply == b"FORMAT_IN_USE":
            raise WrongState(
                "can't change: the search has tasks",
                field="architecture_format",
                given=settings.get("format"),
                expected="use another search",
            )

    async def get(self, name: str) -> SearchView:
        """One search; raises UnknownSearch."""
        overview = await self._overview(self._key(name), name)
        if not overview.searches:
            raise unknown_search(name)
        return overview.searches[0]

    async def overview(self, *, with_waits: bool = True) -> list[Overview]:
        """Every shard with its searches; without waits, no ``oldest_queued_ms`` is known."""
        return [await self._overview(key, with_waits=with_waits) for key in self._keys.clocks]

    async def requirement_classes(self) -> dict[str, Requirements]:
        """All requirement classes that tasks have."""
        classes: dict[str, Requirements] = {}
        for key in self._keys.clocks:
            flat = await self._pipeline.call("classes", key)
            classes.update({name: requirements_from_json(value) for name, value in pairs(flat).items()})
        return classes

    async def _overview(self, key: str, *names: str, with_waits: bool = True) -> Overview:
        offset: str = "0"
        searches: list[SearchView] = []
        while offset:
            figures, counters, rows, cursor = await self._pipeline.call(
                "overview", key, offset, int(with_waits), *names
            )
            searches += [codec.search_view(*row) for row in rows]
            offset = text(cursor)
        clock, _, leases, due, scheduled, _ = figures
        return Overview(
            lease_clock_ms=int(clock),
            leases=int(leases),
            leases_due=int(due),
            scheduled=int(scheduled),
            counters={name: int(value) for name, value in pairs(counters).items()},
            searches=searches,
        )

    def _key(self, name: str) -> str:
        return self._keys.clocks[self._keys.shard_of_search(name)]


def unknown_search(name: str) -> UnknownSearch:
    """For a name that no search has."""
    return UnknownSearch(
        "no search of this name", field="search", given=name, expected="`tenure searches list` shows all"
    )
