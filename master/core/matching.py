"""Which tasks a worker can be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tenure.common.spec import Requirements
from tenure.master.store.records import ACCEPTS_CODE_LABEL


@dataclass(frozen=True)
class Capabilities:
    """What a worker has, for each of its slots. ``accepts_code``: tasks may name their evaluator.
    ``memory_bytes``: 0 if it doesn't say."""

    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    accepts_code: bool = False
    memory_bytes: int = 0

    def meets(self, requirements: Requirements) -> bool:
        """Whether a task with these requirements can run here."""
        enough = self.gpus >= requirements.gpus and self.memory_bytes >= requirements.memory_bytes
        return enough and all(
            self.accepts_code if name == ACCEPTS_CODE_LABEL else self.labels.get(name) == value
            for name, value in requirements.labels.items()
        )


def servable_classes(classes: Mapping[str, Requirements], capabilities: Capabilities) -> tuple[str, ...]:
    """The requirement classes that this worker can serve, the most demanding first.

    Between equally deserving searches the order decides, and a worker that meets rare requirements should rather be
    given the tasks that others can't run.
    """
    fitting = [name for name, requirements in classes.items() if capabilities.meets(requirements)]
    fitting.sort(key=lambda name: (-classes[name].gpus, -classes[name].memory_bytes, -len(classes[name].labels), name))
    return tuple(fitting)
