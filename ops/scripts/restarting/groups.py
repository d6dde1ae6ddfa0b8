"""Which workers are restarted together: groups by label, and how many of them at one time."""

from __future__ import annotations

import argparse
import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tenure.client import WorkerRecord

_AMOUNT = re.compile(r"^(?P<number>\d+)(?P<percent>%?)$")
_SELECTOR = re.compile(r"^(?P<key>[^=,\s]+)(?:=(?P<pattern>[^,\s]*))?$")


@dataclass(frozen=True)
class Amount:
    """A number of workers, or a share of them."""

    number: int
    percent: bool

    @classmethod
    def parse(cls, text: str) -> Amount:
        """``N`` or ``P%``, as an argument."""
        match = _AMOUNT.match(text)
        if match is None or int(match["number"]) < 1 or (match["percent"] and int(match["number"]) > 100):
            raise argparse.ArgumentTypeError(
                f"{text!r} is no amount: give a number of at least 1, or 1% to 100% of the workers"
            )
        return cls(int(match["number"]), bool(match["percent"]))

    def of(self, total: int) -> int:
        """How many of so many; at least one."""
        return max(1, total * self.number // 100) if self.percent else self.number


@dataclass(frozen=True)
class Selector:
    """``KEY=PATTERN`` or ``KEY``: a label, or ``host`` or ``id``. Without a pattern each value is a group."""

    key: str
    pattern: str | None

    @classmethod
    def parse(cls, text: str) -> Selector:
        """An argument."""
        match = _SELECTOR.match(text)
        if match is None:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no selector: give KEY or KEY=PATTERN, KEY being a label, host or id (zone, gpu=a100*)"
            )
        return cls(match["key"], match["pattern"])

    def value_of(self, worker: WorkerRecord) -> str | None:
        """What the worker has under the key; None: nothing."""
        if self.key == "id":
            return worker.worker_id
        if self.key == "host":
            return worker.host
        return worker.labels.get(self.key)


def groups_of(workers: Iterable[WorkerRecord], selectors: Sequence[Selector]) -> list[tuple[str, list[str]]]:
    """(name, worker ids) of each group, in the order in which they are restarted.

    Without selectors all are one group. Else each selector takes what those before it have left: with a pattern, one
    group; without, a group for each value. What no selector takes is in no group.
    """
    left = sorted(workers, key=lambda worker: worker.worker_id)
    if not selectors:
        return [("", [worker.worker_id for worker in left])] if left else []
    groups: list[tuple[str, list[str]]] = []
    for selector in selectors:
        found: dict[str, list[str]] = {}
        rest = []
        for worker in left:
            value = selector.value_of(worker)
            if value is None or (selector.pattern is not None and not fnmatch.fnmatchcase(value, selector.pattern)):
                rest.append(worker)
            else:
                name = value if selector.pattern is None else selector.pattern
                found.setdefault(f"{selector.key}={name}", []).append(worker.worker_id)
        groups += sorted(found.items())
        left = rest
    return groups


def batches_of(groups: Sequence[tuple[str, list[str]]], unavailable_max: Amount) -> list[tuple[str, list[str]]]:
    """(group's name, worker ids) of those that are down at the same time: never of two groups, never too many."""
    size = unavailable_max.of(sum(len(ids) for _, ids in groups))
    return [(name, ids[first : first + size]) for name, ids in groups for first in range(0, len(ids), size)]
