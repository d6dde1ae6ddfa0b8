"""Proves that indexes, counts and tasks agree, a few tasks at a time, while the store is in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tenure.master.store.codec import pairs, text
from tenure.master.store.keys import Keys
from tenure.master.store.payload import is_whole
from tenure.master.store.pipeline import ScriptCalls
from tenure.master.store.searches import SearchStore

# Payloads are counted by the first part of their digest, so that a store of any size needs no more memory than this.
_GROUP_DIGITS = 3
# A count is no single moment of a store in use; one that is as wrong in each of so many walks is wrong.
_WALKS_TO_BELIEVE = 3
# Asked for in one call; fewer are sent if they are large.
_PAYLOADS_AT_ONCE = 100
_TASKS_NAMED_MAX = 3


@dataclass
class _Counts:
    """What the tasks come to, less what the store's counts say: 0 everywhere where they agree."""

    payloads: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)

    def wrong(self) -> dict[tuple[str, str], int]:
        """What does not agree: (kind, name) -> tasks too many."""
        parts = (("payload", self.payloads), ("class", self.classes), ("code", self.codes))
        return {(kind, name): by for kind, counts in parts for name, by in counts.items() if by}


@dataclass(frozen=True)
class _Names:
    """What a task names; ``code`` may be empty."""

    task_id: str
    payload: str
    requirements: str
    code: str


def _some(tasks: list[str]) -> str:
    more = f" and {len(tasks) - _TASKS_NAMED_MAX} more" if len(tasks) > _TASKS_NAMED_MAX else ""
    return f"submit again what it belongs to: {', '.join(tasks[:_TASKS_NAMED_MAX]) or 'no task'}{more}"


class Fsck:
    """See the module."""

    def __init__(self, pipeline: ScriptCalls, keys: Keys, searches: SearchStore) -> None:
        self._pipeline = pipeline
        self._keys = keys
        self._searches = searches

    async def run(self) -> tuple[int, list[str]]:
        """(tasks checked, violations). Each step is one moment of the store; changes nothing."""
        checked = 0
        violations: list[str] = []
        for shard, overview in zip(self._keys.clocks, await self._searches.overview(), strict=True):
            names = [search.name for search in overview.searches]
            violations += await self._active(shard)
            for name in names:
                found = await self._pipeline.call("fsck_indexes", shard, name)
                violations += [text(item) for item in found]
            counts = _Counts()
            count, found = await self._walk(shard, names, counts, None)
            checked += count
            violations += found
            await self._subtract_said(shard, counts, None)
            violations += await self._damaged_payloads(shard, names)
            if counts.wrong():
                violations += await self._look_closer(shard, counts)
        return checked, violations

    async def _active(self, shard: str) -> list[str]:
        offset, violations = "0", []
        while offset:
            cursor, found = await self._pipeline.call("fsck_active", shard, offset)
            offset = text(cursor)
            violations += [text(item) for item in found]
        return violations

    async def _look_closer(self, shard: str, suspicious: _Counts) -> list[str]:
        """Which payloads, classes and codes are counted wrong. Tasks may come and go between the steps of a
        walk, so only what is wrong by the same number in every further walk is a violation."""
        groups = {name[:_GROUP_DIGITS] for (kind, name) in suspicious.wrong() if kind == "payload"}
        believed: dict[tuple[str, str], int] | None = None
        for _ in range(_WALKS_TO_BELIEVE):
            counts = _Counts()
            names = await self._names(shard)
            await self._walk(shard, names, counts, groups)
            await self._subtract_said(shard, counts, groups)
            wrong = counts.wrong()
            believed = (
                wrong if believed is None else {each: by for each, by in believed.items() if wrong.get(each) == by}
            )
            if not believed:
                break
        return [
            f"{kind} {name}: "
            + (f"{by} more tasks have it" if by > 0 else f"{-by} fewer tasks have it")
            + " than counted"
            for (kind, name), by in sorted((believed or {}).items())
        ]

    async def _names(self, shard: str) -> list[str]:
        overviews = await self._searches.overview()
        return [search.name for search in overviews[self._keys.clocks.index(shard)].searches]

    async def _walk(
        self, shard: str, names: list[str], counts: _Counts, groups: set[str] | None
    ) -> tuple[int, list[str]]:
        """Check every task of these searches and count their payloads (whole digests within ``groups``, if given)."""
        checked = 0
        violations: list[str] = []
        async for count, found, tasks in self._steps(shard, names):
            checked += count
            violations += found
            for task in tasks:
                self._count(counts, task.payload, 1, groups)
                counts.classes[task.requirements] += 1
                if task.code:
                    counts.codes[task.code] += 1
        return checked, violations

    async def _steps(self, shard: str, names: list[str]) -> AsyncIterator[tuple[int, list[str], list[_Names]]]:
        """All tasks of these searches, some at a time: how many, what is wrong with them, what they name."""
        for name in names:
            after = "0"
            while after:
                cursor, count, found, flat = await self._pipeline.call("fsck_tasks", shard, name, after)
                after = text(cursor)
                rows = [_Names(*map(text, flat[start : start + 4])) for start in range(0, len(flat), 4)]
                yield int(count), [text(item) for item in found], rows

    async def _damaged_payloads(self, shard: str, names: list[str]) -> list[str]:
        """What is kept under a digest and isn't what had it. What isn't kept at all, each of its tasks says."""
        cursor = b"0"
        damaged: dict[str, list[str]] = {}
        while True:
            cursor, flat, *_ = await self._pipeline.call("fsck_counts", shard, cursor)
            left = list(pairs(flat))
            while left:
                contents = await self._pipeline.call("fsck_payloads", shard, *left[:_PAYLOADS_AT_ONCE])
                for digest, content in zip(left, contents, strict=False):
                    if content is not None and not is_whole(digest, content):
                        damaged[digest] = []
                del left[: len(contents)]
            if cursor == b"0":
                break
        if damaged:
            async for _, _, tasks in self._steps(shard, names):
                for task in tasks:
                    if task.payload in damaged:
                        damaged[task.payload].append(task.task_id)
        return [f"payload {digest}: is damaged; {_some(tasks)}" for digest, tasks in sorted(damaged.items())]

    async def _subtract_said(self, shard: str, counts: _Counts, groups: set[str] | None) -> None:
        cursor = b"0"
        said: dict[str, int] = {}
        classes: dict[str, str] = {}
        codes: dict[str, str] = {}
        while True:
            cursor, flat, flat_classes, flat_codes = await self._pipeline.call("fsck_counts", shard, cursor)
            classes, codes = pairs(flat_classes), pairs(flat_codes)
            page = {name: int(number) for name, number in pairs(flat).items()}
            if groups is None:
                for name, number in page.items():
                    self._count(counts, name, -number, None)
            else:
                # A scan may name one twice while the hash changes: here each counts once.
                said |= {name: number for name, number in page.items() if name[:_GROUP_DIGITS] in groups}
            if cursor == b"0":
                break
        for name, number in said.items():
            counts.payloads[name] -= number
        for name, text_number in classes.items():
            counts.classes[name] -= int(text_number)
        for name, text_number in codes.items():
            counts.codes[name] -= int(text_number)

    @staticmethod
    def _count(counts: _Counts, payload: str, by: int, groups: set[str] | None) -> None:
        group = payload[:_GROUP_DIGITS]
        if groups is None:
            counts.payloads[group] += by
        elif group in groups:
            counts.payloads[payload] += by
