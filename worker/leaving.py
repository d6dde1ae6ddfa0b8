"""How a worker leaves."""

from __future__ import annotations

import enum


class Leaving(enum.IntEnum):
    """How the worker leaves; a higher one replaces a lower one."""

    NOT = 0
    FINISH = 1
    """The runs go on to their end."""
    DRAIN = 2
    """The runs are handed back with their checkpoints."""
    KILL = 3
    """At once."""
