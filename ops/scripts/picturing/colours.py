"""Grafana's colours in its dark theme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PAGE, PANEL, BORDER, GRID = "#111217", "#181b1f", "#26292e", "#2a2d33"
TEXT, FAINT, LINK = "#ccccdc", "#8e8f9b", "#6e9fff"
_NAMED = {
    "green": "#73bf69",
    "yellow": "#fade2a",
    "blue": "#5794f2",
    "orange": "#ff9830",
    "red": "#f2495c",
    "purple": "#b877d9",
    "text": TEXT,
}
# The classic palette, in its order.
PALETTE = (
    "#73bf69",
    "#f2cc0c",
    "#8ab8ff",
    "#ff780a",
    "#f2495c",
    "#5794f2",
    "#b877d9",
    "#705da0",
    "#37872d",
    "#fade2a",
    "#447ebc",
    "#c15c17",
    "#890f02",
    "#0a437c",
    "#6d1f62",
    "#584477",
    "#b7dbab",
    "#f4d598",
    "#70dbed",
    "#f9ba8f",
)


def named(colour: str) -> str:
    """Its CSS value."""
    return _NAMED.get(colour, colour)


def of_value(value: float | None, panel: Mapping[str, Any]) -> str:
    """By the panel's thresholds."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    chosen = steps[0]["color"]
    for step in steps[1:]:
        if value is not None and value >= step["value"]:
            chosen = step["color"]
    return named(chosen)


def of_line(name: str, index: int, panel: Mapping[str, Any]) -> str:
    """Its own if the panel gives it one, or the next of the palette."""
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"] == {"id": "byName", "options": name}:
            for each in override["properties"]:
                if each["id"] == "color":
                    return named(each["value"]["fixedColor"])
    return PALETTE[index % len(PALETTE)]
