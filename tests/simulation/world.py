"""What there is to compute and who computes: searches, tasks and workers, drawn from the seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.options import Options
from tenure.common.spec import Requirements
from tenure.master.core.matching import Capabilities

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

# How tasks end when nothing strikes their worker.
GOOD, FLAKY, WRONG, BROKEN, POISON, HUNGRY = range(6)
FATES = {GOOD: "good", FLAKY: "flaky", WRONG: "wrong", BROKEN: "broken", POISON: "poison", HUNGRY: "hungry"}
CHANCES = {FLAKY: 0.02, WRONG: 0.001, BROKEN: 0.001, POISON: 0.0005, HUNGRY: 0.001}

REQUIREMENTS = (
    Requirements(),
    Requirements(gpus=1),
    Requirements(gpus=2),
    Requirements(gpus=1, labels={"tier": "big"}),
)
CLASS_CHANCES = (0.32, 0.48, 0.15, 0.05)


@dataclass(frozen=True)
class Machine:
    """One sort of worker, and how common it is."""

    chance: float
    slots: int
    capabilities: Capabilities


MACHINES = (
    Machine(0.15, 2, Capabilities()),
    Machine(0.55, 1, Capabilities(gpus=1)),
    Machine(0.20, 2, Capabilities(gpus=2)),
    Machine(0.10, 1, Capabilities(gpus=2, labels={"tier": "big"})),
)


@dataclass(frozen=True)
class SearchPlan:
    """One search.

    Attributes:
        length: How long its tasks are, compared with others.
        share: Its part of all tasks, in proportion.
        measured: Whether fairness is measured on it: it always has tasks waiting, like the others that are measured.
        cap: Its most leased tasks as a part of all slots; 0 = no cap.
    """

    name: str
    weight: float = 1.0
    priority: int = 0
    length: float = 1.0
    share: float = 1.0
    measured: bool = True
    cap: float = 0.0


SEARCHES = (
    *(
        SearchPlan(f"weight-{weight}{letter}", weight, share=weight)
        for weight, letter in ((1, "a"), (1, "b"), (2, "a"), (3, "a"), (4, "a"), (6, "a"))
    ),
    SearchPlan("weight-2-long", 2, length=4.0, share=2),
    SearchPlan("weight-2-short", 2, length=0.25, share=2),
    SearchPlan("urgent", 1, priority=1, length=0.5, share=0.2, measured=False),
    SearchPlan("capped", 1, share=0.5, measured=False, cap=0.02),
)


class World:
    """Every task's search, needs, length and fate, and every worker's machine.

    Attributes:
        search_of, class_of, fate_of: By task number.
        duration_ms: By task number: what an undisturbed run computes for.
        weakness: By task number: how far (0 to 1) it gets before it ends badly.
        machine_of: By worker number.
        slots: Of all workers together.
    """

    def __init__(self, options: Options) -> None:
        random = np.random.default_rng([options.seed, 1])
        chances = [machine.chance for machine in MACHINES]
        self.machine_of = random.choice(len(MACHINES), options.workers, p=chances)
        self.slots = int(sum(MACHINES[number].slots for number in self.machine_of))
        shares = np.array([search.share for search in SEARCHES])
        # Each search's tasks are a stretch of numbers, submitted in order.
        ends = np.round(np.cumsum(shares) / shares.sum() * options.tasks).astype(int)
        self.ranges = [range(int(start), int(end)) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        counts = [len(numbers) for numbers in self.ranges]
        self.search_of = np.repeat(np.arange(len(SEARCHES)), counts)
        self.class_of = random.choice(len(REQUIREMENTS), options.tasks, p=CLASS_CHANCES)
        bad = list(CHANCES.values())
        self.fate_of = random.choice([GOOD, *CHANCES], options.tasks, p=[1 - sum(bad), *bad])
        self.weakness = random.random(options.tasks)
        lengths = np.repeat([search.length for search in SEARCHES], counts) * random.lognormal(0.0, 0.7, options.tasks)
        work_ms = options.load * self.slots * options.days * DAY_MS
        self.duration_ms = np.maximum(1_000, lengths * work_ms / lengths.sum()).astype(np.int64)
