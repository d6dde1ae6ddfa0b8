"""The metrics registry of a Tenure process: its own figures, of this process alone, whatever the environment says.

prometheus_client has a mode for servers that fork: with ``PROMETHEUS_MULTIPROC_DIR`` in the environment, each value is
kept in a file of that directory, named by process id. Tenure's processes are no such server. Each has an endpoint of
its own, and whoever scrapes joins them. Several masters and workers that inherit the variable from one shell or pod
would find the figures of a dead process of the same id (1, in every container) and go on from them. So a Tenure
process keeps its figures in memory; evaluations, which run in processes of their own, may use the mode as they like.
"""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, values

OTHER = "other"


def own_registry() -> CollectorRegistry:
    """An empty registry; the metrics that are made for it, and their labels, keep their values in memory."""
    # What prometheus_client asks for each new value; it was chosen by the environment when it was imported.
    values.ValueClass = values.MutexValue
    return CollectorRegistry()


class StoreCounter(Counter):
    """A counter that the store keeps: it is shown as it was read there."""

    def set(self, value: float) -> None:
        """What the store says now."""
        # prometheus_client has no counter whose value is kept elsewhere but a collector of one's own for each.
        self._value.set(float(value))


class BoundedLabel:
    """Values of one label: the first ``most`` different ones, any other is ``other``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def value(self, text: str) -> str:
        """The label's value for this text."""
        if text in self._known:
            return text
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(text)
        return text


class KeptLabel:
    """Values of one label, of which somebody says now and then which there are to be; any other is ``other``.

    What is newer than that has a value of its own while there is room. Where there is none, only what is to be kept has
    one, and a value that was given since the last :meth:`keep` outlives the next: nothing is counted under a value that
    goes at once.

    Args:
        most: How many there are at most, besides ``other``.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: frozenset[str] | None = None
        self._used: set[str] = set()
        self._lately: set[str] = set()

    def value(self, text: str) -> str:
        """The label's value for this text. Before anybody said what to keep, there is only ``other``."""
        if self._kept is None or (text not in self._kept and len(self._kept) >= self._most):
            return OTHER
        if text not in self._used and len(self._used) >= self._most:
            return OTHER
        self._used.add(text)
        self._lately.add(text)
        return text

    def keep(self, texts: Collection[str]) -> set[str]:
        """Keep these, at most ``most``; returns what had a value and has none from now on."""
        self._kept = frozenset(texts)
        gone = self._used - self._kept - self._lately
        self._used -= gone
        self._lately.clear()
        return gone
