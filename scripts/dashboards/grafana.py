"""Grafana's dashboard JSON from short descriptions of panels. What the dashboards are written in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GRID_WIDTH = 24
RATE = "[$__rate_interval]"

Query = tuple[str, str]
"""(PromQL, legend)."""


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        unit: Grafana's name of the unit.
        text: What it means, shown behind the (i).
        kind: ``timeseries`` or ``stat``.
        good: ``stat`` only: ``zero`` (anything else is red), ``some`` (0 is red) or '' (no colour).
        stacked: ``timeseries`` only.
    """

    title: str
    unit: str
    queries: tuple[Query, ...]
    text: str
    kind: str = "timeseries"
    good: str = ""
    stacked: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) on the grid."""
        return (3, 4) if self.kind == "stat" else (8, 8)


def graph(title: str, unit: str, *queries: Query, text: str, stacked: bool = False) -> Panel:
    """Lines over time."""
    return Panel(title, unit, queries, text, stacked=stacked)


def stat(title: str, unit: str, expression: str, *, text: str, good: str = "") -> Panel:
    """One number."""
    return Panel(title, unit, ((expression, ""),), text, kind="stat", good=good)


def quantiles(metric: str, by: str = "", where: str = "") -> tuple[Query, ...]:
    """Median and 99th percentile of a histogram, for each value of ``by`` the 99th only."""
    buckets = f"sum by (le{', ' + by if by else ''}) (rate({metric}_bucket{where}{RATE}))"
    if by:
        return ((f"histogram_quantile(0.99, {buckets})", "{{" + by + "}}"),)
    return tuple((f"histogram_quantile({q / 100}, {buckets})", f"p{q}") for q in (50, 99))


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard: ``query`` lists the values; all are chosen at first."""

    name: str
    label: str
    query: str


def dashboard(uid: str, title: str, variable: Variable, rows: Mapping[str, Sequence[Panel]]) -> str:
    """The JSON of a dashboard: rows of panels, laid out from left to right."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row, members in rows.items():
        panels.append(_row(len(panels) + 1, row, top))
        top += 1
        left = 0
        for panel in members:
            width, height = panel.size
            if left + width > GRID_WIDTH:
                left, top = 0, top + height
            place = {"h": height, "w": width, "x": left, "y": top}
            panels.append(_panel(len(panels) + 1, panel, place))
            left += width
        top += members[-1].size[1]
    document = {
        "uid": uid,
        "title": title,
        "tags": ["tenure"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "links": [_link_to_others()],
        "templating": {"list": [_datasource_variable(), _variable(variable)]},
        "annotations": {"list": []},
        "panels": panels,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _row(number: int, title: str, top: int) -> dict[str, Any]:
    place = {"h": 1, "w": GRID_WIDTH, "x": 0, "y": top}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "expr": expression,
            "legendFormat": legend,
            "instant": panel.kind == "stat",
            "range": panel.kind != "stat",
        }
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _field_defaults(panel), "overrides": []},
        "options": _STAT_OPTIONS if panel.kind == "stat" else _GRAPH_OPTIONS,
        "targets": targets,
    }


def _field_defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.kind == "timeseries":
        fill, mode = (30, "normal") if panel.stacked else (0, "none")
        defaults["custom"] = {"fillOpacity": fill, "showPoints": "never", "stacking": {"mode": mode, "group": "A"}}
    steps = {
        "zero": [{"color": "green", "value": None}, {"color": "red", "value": 1}],
        "some": [{"color": "red", "value": None}, {"color": "green", "value": 1}],
        "": [{"color": "text", "value": None}],
    }
    defaults["thresholds"] = {"mode": "absolute", "steps": steps[panel.good]}
    return defaults


_STAT_OPTIONS = {
    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    "colorMode": "value",
    "graphMode": "none",
    "textMode": "value",
}
_GRAPH_OPTIONS = {
    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
    "tooltip": {"mode": "multi", "sort": "desc"},
}


def _link_to_others() -> dict[str, Any]:
    return {
        "title": "Tenure",
        "type": "dashboards",
        "tags": ["tenure"],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
    }


def _datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": variable.query,
        "query": {"query": variable.query, "refId": variable.name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }
