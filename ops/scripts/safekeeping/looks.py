"""What a store holds at a moment, and whether a copy can be of a moment between two looks.

A look reads, by shard: marks that only grow (the lease clock, the number of the last submission, how many events there
ever were) and the tasks of each search by state. Each change of a task's state is one event, so between two looks no
count can have changed by more than the events between them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError, ResponseError

from safekeeping.console import Refused
from tenure.master.store.keys import SCHEMA_VERSION, Keys
from tenure.master.store.searches import SearchStore
from tenure.master.store.server import make_topology, open_topology
from tenure.master.store.topology import Topology
from tenure.master.store.translation import translate


@dataclass(frozen=True)
class Marks:
    """Of one shard. None of them ever goes back.

    Attributes:
        clock_ms: The lease clock.
        submissions: The number of the last submission.
        events: How many there ever were.
    """

    clock_ms: int = 0
    submissions: int = 0
    events: int = 0

    def behind(self, other: Marks) -> list[str]:
        """Which of them are lower than the other's."""
        return [name for name in ("clock_ms", "submissions", "events") if getattr(self, name) < getattr(other, name)]


@dataclass
class ShardLook:
    """One shard.

    Attributes:
        first: The marks before the counts were read.
        last: The marks after that.
        counts: Tasks by (search, state).
        created: When each search was made, in ms.
        statuses: Each search's.
    """

    first: Marks
    last: Marks
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    created: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)

    @property
    def there(self) -> bool:
        """Whether anything was ever in it."""
        return bool(self.last.clock_ms or self.last.submissions or self.counts)


@dataclass
class Look:
    """A store, or what one of its servers holds of it."""

    shards: dict[int, ShardLook]

    def states(self) -> dict[str, int]:
        """Tasks by state, of all searches."""
        total: Counter[str] = Counter()
        for shard in self.shards.values():
            for (_, state), number in shard.counts.items():
                total[state] += number
        return {state: number for state, number in sorted(total.items()) if number}

    def searches(self) -> dict[str, dict[str, Any]]:
        """Each search with when it was made, its status, and its tasks by state."""
        found: dict[str, dict[str, Any]] = {}
        for shard in self.shards.values():
            for name, created in shard.created.items():
                tasks = {state: number for (search, state), number in shard.counts.items() if search == name and number}
                found[name] = {"created_unix_ms": created, "status": shard.statuses[name], "tasks": tasks}
        return dict(sorted(found.items()))


def shards_of(url: str, prefix: str) -> int:
    """How many shards the store has; 0 if there is none under this prefix. Writes nothing.

    Raises:
        Refused: Its schema is of a version that can't be read.
        StoreUnavailable, UnsuitableStore: See open_topology.
    """
    shards: int = asyncio.run(with_topology(url, lambda topology: _shards(topology, prefix)))
    return shards


def look_at(url: str, prefix: str, shards: int) -> Look:
    """Look at a store now. Writes nothing."""
    look: Look = asyncio.run(with_topology(url, lambda topology: _look(topology, Keys(prefix, shards))))
    return look


async def with_topology(url: str, read: Callable[[Topology], Awaitable[Any]]) -> Any:
    """Connect to a store's servers, read something, and give the connections back.

    Raises:
        StoreUnavailable, UnsuitableStore: The servers don't answer, or are something else than the URL says.
    """
    topology = make_topology(url)
    try:
        await open_topology(topology, url)
        try:
            return await read(topology)
        except (RedisError, OSError) as error:
            raise translate(error) from error
    finally:
        await topology.close()


async def _shards(topology: Topology, prefix: str) -> int:
    key = Keys(prefix).schema
    client: Any = topology.client_for(key)
    version, shards = await client.hmget(key, "version", "shards")
    if version is None:
        return 0
    if version != str(SCHEMA_VERSION).encode():
        raise Refused(
            f"the store holds schema version {version.decode(errors='replace')}; this Tenure reads {SCHEMA_VERSION}: "
            "use the scripts of the version that wrote it"
        )
    return int(shards or 1)


async def _look(topology: Topology, keys: Keys) -> Look:
    calls = topology.calls(None, lambda *_: None)
    try:
        first = [await _marks(topology, keys, number) for number in range(keys.shards)]
        overviews = await SearchStore(calls, keys).overview()
        last = [await _marks(topology, keys, number) for number in range(keys.shards)]
    finally:
        await calls.close()
    found: dict[int, ShardLook] = {}
    for number, overview in enumerate(overviews):
        look = found[number] = ShardLook(first[number], last[number])
        for search in overview.searches:
            look.created[search.name] = search.created_unix_ms
            look.statuses[search.name] = search.status
            look.counts |= {(search.name, state.value): count for state, count in search.counts.items()}
    return Look(found)


async def _marks(topology: Topology, keys: Keys, shard: int) -> Marks:
    clock = keys.clocks[shard]
    client: Any = topology.client_for(clock)
    now = await client.hget(clock, "now")
    submissions = await client.get(clock.removesuffix("clock") + "seq")
    try:
        events = (await client.xinfo_stream(keys.events(shard))).get("entries-added", 0)
    except ResponseError:  # there has been none yet
        events = 0
    return Marks(int(float(now or 0)), int(submissions or 0), int(events))


def between(before: Look, copy: Look, after: Look) -> list[str]:
    """Why the copy can't be of a moment between the two looks; nothing if it can."""
    wrong: list[str] = []
    for number, held in copy.shards.items():
        earlier, later = before.shards[number], after.shards[number]
        if not earlier.there and not later.there:
            continue
        for name in held.first.behind(earlier.last):
            wrong.append(
                f"shard {number}: the copy's {name} is {getattr(held.first, name)}, less than before it was made"
            )
        for name in later.first.behind(held.last):
            wrong.append(
                f"shard {number}: the copy's {name} is {getattr(held.last, name)}, more than after it was made"
            )
        wrong += _counts_between(number, "before", earlier.counts, held.counts, held.last.events - earlier.first.events)
        wrong += _counts_between(number, "after", later.counts, held.counts, later.last.events - held.first.events)
    return wrong


def _counts_between(
    number: int, when: str, one: Mapping[tuple[str, str], int], other: Mapping[tuple[str, str], int], events: int
) -> list[str]:
    differences = {key: abs(one.get(key, 0) - other.get(key, 0)) for key in {*one, *other}}
    # One event moves one task: out of one count, into another.
    if sum(differences.values()) <= 2 * max(0, events):
        return []
    search, state = max(differences, key=lambda key: differences[key])
    return [
        f"shard {number}: {sum(differences.values())} counts differ from those {when} it was made, and {events} events "
        f"explain at most {2 * max(0, events)}; most of them {search} {state}"
    ]


def merged(parts: list[Look]) -> tuple[Look, list[str]]:
    """What several servers hold together, and which shards are on more than one of them."""
    found: dict[int, ShardLook] = {}
    wrong: list[str] = []
    for part in parts:
        for number, shard in part.shards.items():
            if not shard.there:
                found.setdefault(number, shard)
            elif number in found and found[number].there:
                wrong.append(f"shard {number} is in two servers' copies: slots were moved meanwhile")
            else:
                found[number] = shard
    return Look(found), wrong
