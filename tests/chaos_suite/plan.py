"""What a seed stands for: a topology, and which faults strike it in which order."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

STRIKES_DEFAULT = 9


@dataclass(frozen=True)
class Plan:
    """One seed's.

    Attributes:
        store: ``embedded`` in the one master, or ``external``: a server process of its own.
        masters: 1 or 2, active at once.
        slots: Of each worker that there is from the start.
        max_leased: The search's cap on leases; 0 = none.
        kinds: Names of fault kinds in the order in which they strike.
    """

    seed: int
    store: str
    masters: int
    slots: tuple[int, ...]
    max_leased: int
    kinds: tuple[str, ...]


def make_plan(
    seed: int, kinds: Collection[str], *, only_external: Collection[str], strikes: int = STRIKES_DEFAULT
) -> Plan:
    """The plan of a seed; the same on every machine that can do the same kinds of faults.

    Args:
        seed: Any number from 0 on.
        kinds: All kinds that can strike here.
        only_external: Those that need a store outside its master.
        strikes: How many faults.
    """
    chance = random.Random(seed)
    store = "external" if chance.random() < 2 / 3 else "embedded"
    slots = tuple(chance.choice((1, 2)) for _ in range(chance.choice((3, 3, 4))))
    masters = chance.choice((1, 2)) if store == "external" else 1
    possible = [kind for kind in sorted(kinds) if store == "external" or kind not in only_external]
    dealt = [
        kind if kind in possible else chance.choice(possible) for kind in _deal(sorted(kinds), seed * strikes, strikes)
    ]
    chance.shuffle(dealt)
    return Plan(seed, store, masters, slots, chance.choice((0, 0, sum(slots) - 1)), tuple(dealt))


def _deal(kinds: Sequence[str], start: int, count: int) -> list[str]:
    """Cards from a row of shuffled decks, so that few seeds in a row have every kind struck equally often."""
    dealt = []
    for position in range(start, start + count):
        deck = list(kinds)
        random.Random(f"deck {position // len(deck)}").shuffle(deck)
        dealt.append(deck[position % len(deck)])
    return dealt
