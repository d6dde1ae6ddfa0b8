"""Which tasks a worker can be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tenure.common.spec import Requirements


@dataclass(frozen=True)
class Capabilities:
    """What a worker has, for each of its slots."""

    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    def meets(self, requirements: Requirements) -> bool:
        """Whether a task with these requirements can run here."""
        return self.gpus >= requirements.gpus and all(
            self.labels.get(name) == value for name, value in requirements.labels.items()
        )


def servable_classes(classes: Mapping[str, Requirements], capabilities: Capabilities) -> tuple[str, ...]:
    """The requirement classes that this worker can serve, the most demanding first.

    Between equally deserving searches the order decides, and a worker that meets rare requirements should rather be
    given the tasks that others can't run.
    """
    fitting = [name for name, requirements in classes.items() if capabilities.meets(requirements)]
    fitting.sort(key=lambda name: (-classes[name].gpus, -len(classes[name].labels), name))
    return tuple(fitting)
