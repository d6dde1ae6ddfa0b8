"""Which tasks a worker can be given."""

from __future__ import annotations

import pytest

from tenure.common.spec import Requirements
from tenure.master.core.matching import Capabilities, servable_classes


@pytest.mark.parametrize(
    ("requirements", "capabilities", "meets"),
    [
        (Requirements(), Capabilities(), True),
        (Requirements(), Capabilities(8, {"zone": "a"}), True),
        (Requirements(1), Capabilities(), False),
        (Requirements(2), Capabilities(1), False),
        (Requirements(2), Capabilities(2), True),
        (Requirements(1, {"zone": "a"}), Capabilities(4, {"zone": "a", "kind": "b"}), True),
        (Requirements(0, {"zone": "a"}), Capabilities(0, {"zone": "b"}), False),
        (Requirements(0, {"zone": "a"}), Capabilities(0, {}), False),
        (Requirements(0, {"zone": "a", "kind": "b"}), Capabilities(0, {"zone": "a"}), False),
        (Requirements(0, {"zone": ""}), Capabilities(0, {}), False),
        (Requirements(memory_bytes=5), Capabilities(), False),
        (Requirements(memory_bytes=5), Capabilities(memory_bytes=4), False),
        (Requirements(memory_bytes=5), Capabilities(memory_bytes=5), True),
        (Requirements(1, memory_bytes=5), Capabilities(0, memory_bytes=9), False),
        (Requirements(0, {"zone": ""}), Capabilities(0, {"zone": ""}), True),
    ],
)
def test_all_of_the_requirements_must_be_met(
    requirements: Requirements, capabilities: Capabilities, meets: bool
) -> None:
    assert capabilities.meets(requirements) is meets


CLASSES = {
    "any": Requirements(),
    "gpu": Requirements(1),
    "gpus": Requirements(4),
    "gpu in a": Requirements(1, {"zone": "a"}),
    "in a": Requirements(0, {"zone": "a"}),
}


@pytest.mark.parametrize(
    ("capabilities", "classes"),
    [
        (Capabilities(), ("any",)),
        (Capabilities(1), ("gpu", "any")),
        (Capabilities(4), ("gpus", "gpu", "any")),
        (Capabilities(0, {"zone": "a"}), ("in a", "any")),
        (Capabilities(8, {"zone": "a"}), ("gpus", "gpu in a", "gpu", "in a", "any")),
    ],
)
def test_the_most_demanding_class_comes_first(capabilities: Capabilities, classes: tuple[str, ...]) -> None:
    """A worker that meets rare requirements should rather be given the tasks that others can't run."""
    assert servable_classes(CLASSES, capabilities) == classes


def test_the_order_does_not_depend_on_that_of_the_store() -> None:
    turned = dict(reversed(CLASSES.items()))
    capabilities = Capabilities(8, {"zone": "a"})
    assert servable_classes(turned, capabilities) == servable_classes(CLASSES, capabilities)


def test_nothing_fits_where_nothing_is_known() -> None:
    assert servable_classes({}, Capabilities(8)) == ()
