"""The tasks of a seed: most are trainings that end well, some meet a fate in their first run, some never end well.

Everything follows from the seed and the task's number, so that a search program that is killed and started again
submits the same tasks under the same keys, and the checker knows what each must come to.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from pure_training import undisturbed_fitness

SEARCH = "chaos"
ARCHITECTURE = {"nodes": [{"id": "out", "operation": "flatten"}], "edges": []}
# Bad luck may strike one task many times; only what kills workers on purpose shall run out of losses.
LOSSES_MAX = 25
ATTEMPTS_MAX = 12
POISON_LOSSES_MAX = 2
POISON_ATTEMPTS_MAX = 2
# A hanging evaluation is stopped after this long without a step.
PROGRESS_DEADLINE_SECONDS = 3.0
# Longer than the lease of a chaos cluster: only a supervisor that renews beside the evaluation keeps the task.
GIL_SECONDS = 5.0

# What may happen to an evaluation in its task's first run, and how often in a hundred tasks.
PASSING_FATES = {"error": 4, "exit": 3, "kill": 3, "segfault": 3, "memory": 2, "exhaust": 3, "hang": 3, "gil": 3}
LASTING_FATES = {"segfault": 2, "error": 2, "fatal": 2}
# What each fate is counted as, in the words of attempt records.
OUTCOME_OF_FATE = {
    "error": "failure",
    "fatal": "failure",
    "hang": "failure",
    "exit": "loss",
    "kill": "loss",
    "segfault": "loss",
    "memory": "out_of_memory",
    "exhaust": "out_of_memory",
    "gil": "success",
}


@dataclass(frozen=True)
class ChaosTask:
    """One task.

    Attributes:
        key: Names it in the search.
        fate: What its evaluation meets; ``ok`` for nothing.
        lasting: In every run; else in the first only.
    """

    key: str
    fate: str
    lasting: bool
    steps: int
    seconds: float

    @property
    def ends_well(self) -> bool:
        """Whether it must end SUCCEEDED unless somebody cancels it."""
        return not self.lasting

    def fitness(self) -> float:
        """Of an undisturbed run."""
        return undisturbed_fitness(self.key, self.steps)

    def spec(self) -> dict[str, Any]:
        """Arguments of ``Search.submit``."""
        extra = {
            "steps": str(self.steps),
            "seconds": f"{self.seconds:g}",
            "checkpoint": "2",
            "training": self.key,
            "fate": self.fate,
            "fate_step": "3",
        }
        if self.fate == "gil":
            # The evaluator's GIL fate is as long as ``seconds``; its steps then take no time.
            extra["seconds"] = f"{GIL_SECONDS:g}"
        if not self.lasting:
            extra["fate_epochs"] = "1"
        return {
            "architecture": ARCHITECTURE,
            "config": {"extra": extra},
            "key": self.key,
            "max_losses": POISON_LOSSES_MAX if self.lasting else LOSSES_MAX,
            "max_attempts": POISON_ATTEMPTS_MAX if self.lasting else ATTEMPTS_MAX,
            "progress_deadline_seconds": PROGRESS_DEADLINE_SECONDS if self.fate == "hang" else 0,
        }


def make_task(seed: int, number: int) -> ChaosTask:
    """The ``number``-th task of a seed."""
    chance = random.Random(f"{seed}/{number}")
    fates = [(fate, False, weight) for fate, weight in PASSING_FATES.items()]
    fates += [(fate, True, weight) for fate, weight in LASTING_FATES.items()]
    fates.append(("ok", False, 100 - sum(weight for _, _, weight in fates)))
    ((fate, lasting, _),) = chance.choices(fates, [weight for _, _, weight in fates])
    return ChaosTask(f"{seed}-{number}", fate, lasting, chance.randint(6, 12), round(chance.uniform(0.6, 2.0), 2))


def task_of_key(key: str) -> ChaosTask:
    """The task that a key names."""
    seed, _, number = key.partition("-")
    return make_task(int(seed), int(number))
