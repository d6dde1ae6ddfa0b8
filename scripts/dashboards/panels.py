"""What dashboards are written in: panels and variables, a few lines each.

A panel's text has three parts, because somebody reads it at three in the morning: what it shows, what is normal, and
what to do otherwise. grafana.py makes Grafana's JSON of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

GRID_WIDTH = 24

Query = tuple[str, str]
"""(PromQL, legend)."""

Limits = tuple[tuple[float | None, str], ...]
"""(from which value on, colour), ascending; None: from the start."""

PLAIN: Limits = ((None, "text"),)
ZERO_IS_GOOD: Limits = ((None, "green"), (1, "red"))
ZERO_IS_BAD: Limits = ((None, "red"), (1, "green"))

# One thing has one colour on every panel: by label, or "" for what panels call it themselves.
COLOURS = {
    "state": {
        "SCHEDULED": "#8e8e8e",
        "QUEUED": "yellow",
        "LEASED": "blue",
        "SUCCEEDED": "green",
        "FAILED": "red",
        "CANCELLED": "purple",
    },
    "kind": {"success": "green", "failure": "orange", "loss": "red", "out_of_memory": "purple", "release": "blue"},
    "outcome": {"success": "green", "failure": "orange", "loss": "red", "out_of_memory": "purple", "release": "blue"},
    "use": {"busy": "blue", "free": "green"},
    "": {"useful": "green", "saved": "blue", "wasted": "red", "busy": "blue", "free": "green"},
}


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        kind: Grafana's type: ``timeseries``, ``stat``, ``bargauge``, ``table`` or ``state-timeline``.
        unit: Grafana's name of the unit.
        what: What it shows.
        normal: What is seen when all is well.
        otherwise: What to do if not.
        none: What is written where there is no data.
        stacked: ``timeseries``: on top of each other.
        bars: ``timeseries``: one bar a minute, for things that happen seldom.
        minimum: Where the axis begins; None: at the smallest value.
        limits: From which values on which colour; also lines in a ``timeseries``.
        trend: ``stat``: with its course behind it. Its query must answer even when nothing else does, or the last
            value of somebody dead is shown.
        columns: ``table``: titles by label, in order; ``Value`` is the value's.
        links: (title, URL) behind a table's cells or a stat.
    """

    kind: str
    title: str
    unit: str
    queries: tuple[Query, ...]
    what: str
    normal: str
    otherwise: str
    width: int = 8
    height: int = 8
    none: str = "none"
    stacked: bool = False
    bars: bool = False
    limits: Limits = PLAIN
    trend: bool = False
    minimum: float | None = 0
    maximum: float | None = None
    decimals: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()

    @property
    def description(self) -> str:
        """What the (i) shows, in Markdown."""
        return f"{self.what}\n\n**Normal:** {self.normal}\n\n**Otherwise:** {self.otherwise}"

    @property
    def instant(self) -> bool:
        """Whether only the newest values are asked for."""
        return self.kind in ("bargauge", "table") or (self.kind == "stat" and not self.trend)

    def sized(self, width: int, height: int | None = None) -> Panel:
        """The same in another size."""
        return replace(self, width=width, height=height or self.height)


def graph(title: str, unit: str, *queries: Query, what: str, normal: str, otherwise: str, **more: Any) -> Panel:
    """Lines over time."""
    return Panel("timeseries", title, unit, queries, what, normal, otherwise, **more)


def events(title: str, *queries: Query, what: str, normal: str, otherwise: str, **more: Any) -> Panel:
    """How often something happened, a stacked bar for each minute."""
    return graph(
        title, "short", *queries, what=what, normal=normal, otherwise=otherwise, stacked=True, bars=True, **more
    )


def stat(title: str, unit: str, expression: str, *, what: str, normal: str, otherwise: str, **more: Any) -> Panel:
    """One number."""
    queries = ((expression, ""),)
    return Panel("stat", title, unit, queries, what, normal, otherwise, **{"width": 3, "height": 4, **more})


def bars(title: str, unit: str, query: Query, *, what: str, normal: str, otherwise: str, **more: Any) -> Panel:
    """Numbers side by side, as bars that lie."""
    return Panel("bargauge", title, unit, (query,), what, normal, otherwise, **more)


def table(
    title: str,
    unit: str,
    expression: str,
    columns: Mapping[str, str],
    *,
    what: str,
    normal: str,
    otherwise: str,
    **more: Any,
) -> Panel:
    """A row for each series of now."""
    return Panel("table", title, unit, ((expression, ""),), what, normal, otherwise, columns=columns, **more)


def timeline(title: str, query: Query, *, what: str, normal: str, otherwise: str, **more: Any) -> Panel:
    """A lane for each series, coloured by its value."""
    return Panel("state-timeline", title, "short", (query,), what, normal, otherwise, **more)


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard: ``query`` lists the values.

    Attributes:
        several: Several or all may be chosen, and all are at first; otherwise exactly one.
    """

    name: str
    label: str
    query: str
    several: bool = True


@dataclass(frozen=True)
class Page:
    """A dashboard: rows of panels, laid out from left to right. ``uid`` stays for ever: links and bookmarks hold it."""

    uid: str
    title: str
    about: str
    variables: Sequence[Variable]
    rows: Mapping[str, Sequence[Panel]]
