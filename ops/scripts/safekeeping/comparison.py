"""What changes when one state of a store takes the place of another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tenure.common.states import TaskState
from tenure.master.store import StoreOptions, open_store

_PAGE = 1000
_NAMED_MAX = 10


class Row(NamedTuple):
    """What is compared of one task."""

    search: str
    state: TaskState
    epoch: int


def read_rows(url: str, prefix: str, shards: int, on_rows: Callable[[int], None] = lambda _: None) -> dict[str, Row]:
    """Every task of a store that nobody writes to, by id."""
    return asyncio.run(_read(StoreOptions(url=url, prefix=prefix, shards=shards, durability="relaxed"), on_rows))


async def _read(options: StoreOptions, on_rows: Callable[[int], None]) -> dict[str, Row]:
    store = await open_store(options)
    rows: dict[str, Row] = {}
    try:
        for overview in await store.searches.overview():
            for search in overview.searches:
                after = "0"
                while after:
                    after, ids = await store.tasks.page(search.name, (), after, _PAGE)
                    for task_id, view in (await store.tasks.show(ids)).items():
                        rows[task_id] = Row(search.name, view.state, view.number("epoch"))
                    on_rows(len(rows))
    finally:
        await store.close()
    return rows


@dataclass
class Changes:
    """From what stands there to what takes its place.

    Attributes:
        searches_gone: Searches that only the present store has.
        searches_back: Those that only the backup has.
        gone: Tasks that only the present store has: submitted since, unless the backup is the newer of the two.
        back: Those that only the backup has: forgotten by retention since, or the backup is the newer.
        undone: Tasks that have a result now and will have none: they are evaluated again.
        moved: How many go from one state to another: (from, to).
        unchanged: Tasks that stay as they are.
    """

    searches_gone: list[str] = field(default_factory=list)
    searches_back: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    back: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    moved: Counter[tuple[TaskState, TaskState]] = field(default_factory=Counter)
    unchanged: int = 0

    @property
    def foreign(self) -> bool:
        """Whether the two have nothing in common: most likely they are two stores."""
        return not self.unchanged and not self.moved and bool(self.gone) and bool(self.back)

    def lines(self) -> list[str]:
        """For people."""
        told = [f"{self.unchanged} tasks stay as they are"]
        for names, what in (
            (self.searches_gone, "searches will be gone"),
            (self.searches_back, "searches come back"),
            (
                self.gone,
                "tasks will be gone, which the backup hasn't (run their search programs again)",
            ),
            (self.back, "tasks come back, which what stands there hasn't (any more, or yet)"),
            (self.undone, "tasks lose their result and are evaluated again"),
        ):
            if names:
                more = f", … {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
                told.append(f"{len(names)} {what}: {', '.join(names[:_NAMED_MAX])}{more}")
        told += [f"{number} tasks go from {one} to {other}" for (one, other), number in sorted(self.moved.items())]
        return told

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        moved = {f"{one.value} to {other.value}": number for (one, other), number in sorted(self.moved.items())}
        names = ("searches_gone", "searches_back", "gone", "back", "undone", "unchanged")
        return {**{name: getattr(self, name) for name in names}, "moved": moved}


def compare(present: Mapping[str, Row], backup: Mapping[str, Row]) -> Changes:
    """See Changes."""
    changes = Changes()
    here, there = ({row.search for row in rows.values()} for rows in (present, backup))
    changes.searches_gone, changes.searches_back = sorted(here - there), sorted(there - here)
    changes.back = sorted(backup.keys() - present.keys())
    for task_id, row in present.items():
        earlier = backup.get(task_id)
        if earlier is None:
            changes.gone.append(task_id)
        elif earlier == row:
            changes.unchanged += 1
        else:
            if row.state is not earlier.state:
                changes.moved[row.state, earlier.state] += 1
            else:
                changes.unchanged += 1
            if row.state is TaskState.SUCCEEDED and earlier.state is not TaskState.SUCCEEDED:
                changes.undone.append(task_id)
    return changes
