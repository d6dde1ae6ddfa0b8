"""When a training has learned what it will."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class EarlyStopping:
    """Counts the epochs since the accuracy last became better.

    Args:
        epochs: So many without a better accuracy end the training; 0 = it never ends early.
        delta: Better means: by more than this.
    """

    def __init__(self, epochs: int, delta: float) -> None:
        self._epochs = epochs
        self._delta = delta
        self._best: float | None = None
        self._since = 0

    @property
    def reached(self) -> bool:
        """Whether the training is to end."""
        return 0 < self._epochs <= self._since

    def look(self, accuracy: float) -> None:
        """Take an epoch's accuracy on the rows held out."""
        if self._best is None or accuracy > self._best + self._delta:
            self._best, self._since = accuracy, 0
        else:
            self._since += 1

    def to_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"best": self._best, "since": self._since}

    def restore(self, state: Mapping[str, Any]) -> None:
        """What :meth:`to_state` gave."""
        self._best, self._since = state["best"], state["since"]
