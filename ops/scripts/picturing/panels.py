"""What a dashboard's panels ask, and what they are answered: Grafana's part between its JSON and its drawing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from picturing.prometheus import Prometheus, Series, Window

ALL = "$__all"
_STEPS_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)
_UNITS_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class DashboardError(Exception):
    """A dashboard or a choice on it that can't be shown; says what would be right."""


@dataclass(frozen=True)
class Choices:
    """What was chosen at the top of a dashboard: values by variable; ``[ALL]`` for every one."""

    by_name: Mapping[str, Sequence[str]]
    all_values: Mapping[str, str] = field(default_factory=dict)

    def fill(self, text: str) -> str:
        """A query with its variables replaced, as Grafana does for Prometheus: several values are a pattern."""
        return re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda match: self._value(match[1], match[0]), text)

    def _value(self, name: str, otherwise: str) -> str:
        values = self.by_name.get(name)
        if values is None:
            return otherwise
        if list(values) == [ALL]:
            return self.all_values.get(name, ".*")
        if name not in self.all_values:
            return values[0]
        # Twice escaped: once for the pattern, once for the string that it stands in.
        return "|".join(re.escape(value).replace("\\", "\\\\") for value in values)


@dataclass(frozen=True)
class Line:
    """One answered series with its name on the panel."""

    name: str
    labels: dict[str, str]
    values: list[float | None]

    @property
    def last(self) -> float | None:
        """The newest value that there is."""
        return next((value for value in reversed(self.values) if value is not None), None)


@dataclass(frozen=True)
class Answer:
    """What Prometheus says to a panel: its series over ``window``; of an instant query one value each."""

    panel: dict[str, Any]
    window: Window
    lines: list[Line]


def load(path: Path) -> dict[str, Any]:
    """A dashboard's JSON.

    Raises:
        DashboardError: It is none.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DashboardError(f"{path} is no dashboard: {error}") from error
    if not isinstance(document, dict) or "panels" not in document:
        raise DashboardError(f"{path} is no dashboard: it has no `panels`")
    return document


def panels(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its panels without the rows that part them."""
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def variables(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its variables that a query lists the values of."""
    return [each for each in document["templating"]["list"] if each["type"] == "query"]


def choose(
    document: Mapping[str, Any], given: Mapping[str, Sequence[str]], prometheus: Prometheus, window: Window
) -> Choices:
    """What is chosen: what was given, or all, or the first value of a variable that takes exactly one.

    Raises:
        DashboardError: There is no such variable, or no value to choose.
    """
    known = {each["name"]: each for each in variables(document)}
    if unknown := set(given) - set(known):
        raise DashboardError(f"no variable {', '.join(sorted(unknown))}; there are: {', '.join(known) or 'none'}")
    all_values = {name: each["allValue"] for name, each in known.items() if each["multi"]}
    chosen: dict[str, Sequence[str]] = {}
    for name, each in known.items():
        if name in given:
            chosen[name] = given[name]
        elif each["multi"]:
            chosen[name] = [ALL]
        else:
            values = values_of(each, Choices(chosen, all_values), prometheus, window)
            if not values:
                raise DashboardError(f"nothing to choose for {name}: {each['query']['query']} is empty")
            chosen[name] = values[:1]
    return Choices(chosen, all_values)


def values_of(variable: Mapping[str, Any], choices: Choices, prometheus: Prometheus, window: Window) -> list[str]:
    """What can be chosen for a variable."""
    asked = re.fullmatch(r"label_values\((.*), *(\w+)\)", variable["query"]["query"])
    if asked is None:
        raise DashboardError(f"variable {variable['name']}: only label_values(…) is known: {variable['query']}")
    return prometheus.label_values(choices.fill(asked[1]), asked[2], window)


def ask(
    panel: dict[str, Any], choices: Choices, prometheus: Prometheus, window: Window, scrape_seconds: float
) -> Answer:
    """Everything that the panel asks, over the window in steps of at least its own."""
    step = max(window.step, duration_seconds(panel.get("interval") or "0s"))
    # Aligned, so that a bar is a minute of the clock.
    aligned = Window(window.start // step * step, window.end // step * step, step)
    lines = []
    for target in panel["targets"]:
        query = choices.fill(fill_intervals(target["expr"], aligned, scrape_seconds))
        found = prometheus.instant(query, window.end) if target.get("instant") else prometheus.range(query, aligned)
        lines += [Line(legend(target.get("legendFormat", ""), each), each.labels, each.values) for each in found]
    return Answer(panel, aligned, lines)


def fill_intervals(expression: str, window: Window, scrape_seconds: float) -> str:
    """Grafana's own variables: a step, the window that a rate needs, the whole range."""
    rate = max(window.step + scrape_seconds, 4 * scrape_seconds)
    for name, seconds in (("rate_interval", rate), ("interval", window.step), ("range", window.seconds)):
        expression = expression.replace(f"$__{name}", f"{round(seconds * 1000)}ms")
    return expression


def legend(template: str, series: Series) -> str:
    """A series' name: the template filled, or its labels."""
    if template in ("", "__auto"):
        return ", ".join(f"{name}={value}" for name, value in series.labels.items() if name != "__name__")
    return re.sub(r"\{\{ *(\w+) *\}\}", lambda match: series.labels.get(match[1], ""), template).strip()


def step_seconds(seconds: float, points: int, least: float) -> float:
    """The step that Grafana would take: a round one, at most so many points, never finer than scrapes are."""
    wanted = max(seconds / points, least)
    return float(next((step for step in _STEPS_SECONDS if step >= wanted), _STEPS_SECONDS[-1]))


def duration_seconds(text: str) -> float:
    """``15s``, ``1h30m``.

    Raises:
        DashboardError: It is no duration.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise DashboardError(f"no duration: {text!r}; write for example 15s, 90m or 1h30m")
    return sum(float(number) * _UNITS_SECONDS[unit] for number, unit in parts)
