"""What became of the time that a search's runs took, as the scripts count it (lua/lib/compute.lua has the rules).

The time of a run is counted once, by the transition that ends its lease: useful if it gave the result, saved as far as
a registered checkpoint kept it, else wasted. Kept in the store, so it outlives masters and is right with several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Compute:
    """Milliseconds that only grow.

    Attributes:
        useful_ms: Of accepted results, without what checkpoints of the same lease had saved before.
        saved_ms: By cause. ``checkpoint``: of runs that ended unfinished, until their last registered checkpoint.
            ``late`` and ``readopted``: counted as wasted when their lease was lost, and not lost after all. ``shared``:
            of results that an equal submission found, once a task.
        wasted_ms: By cause: ``loss``, ``failure``, ``out_of_memory``, ``release``, ``cancelled``; ``duplicate`` and
            ``stale``: of runs whose lease was lost, for as long as they went on.
    """

    useful_ms: int = 0
    saved_ms: Mapping[str, int] = field(default_factory=dict)
    wasted_ms: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def from_fields(fields: Mapping[str, str]) -> Compute:
        """Of a search's hash; nothing in those of earlier versions."""
        return Compute(int(fields.get("useful_ms", 0)), _by_cause(fields, "saved_ms:"), _by_cause(fields, "wasted_ms:"))

    @staticmethod
    def total(parts: Iterable[Compute]) -> Compute:
        """All of them together."""
        useful, saved, wasted = 0, Counter[str](), Counter[str]()
        for part in parts:
            useful += part.useful_ms
            saved.update(part.saved_ms)
            wasted.update(part.wasted_ms)
        return Compute(useful, saved, wasted)


def _by_cause(fields: Mapping[str, str], head: str) -> dict[str, int]:
    return {name.removeprefix(head): int(value) for name, value in fields.items() if name.startswith(head)}
