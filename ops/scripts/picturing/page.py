"""A dashboard as an HTML page, laid out on Grafana's grid."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from picturing import charts, colours
from picturing.panels import ALL, Answer, Choices, Line, variables
from picturing.prometheus import Window
from picturing.units import text_of

WIDTH = 1600
COLUMNS = 24
_MARGIN, _ROW, _GAP = 12, 30, 8
_HEADER = 76
_TITLE = 26
_PADDING = 8
# Of a legend: lines, and names a line of this many pixels.
_KEY_PIXELS = 150
_KEYS_LINES = 2

_NAMES = {
    "page": colours.PAGE,
    "panel": colours.PANEL,
    "border": colours.BORDER,
    "text": colours.TEXT,
    "faint": colours.FAINT,
    "link": colours.LINK,
}
_STYLE = "".join(
    (
        ":root {" + "".join(f"--{name}: {colour};" for name, colour in _NAMES.items()) + "}",
        (Path(__file__).parent / "page.css").read_text(),
        f"body {{ width: {WIDTH}px; }} header {{ height: {_HEADER}px; }}",
        f".panel h2 {{ height: {_TITLE}px; }} .body {{ top: {_TITLE}px; }}",
    )
)


def height(document: Mapping[str, Any]) -> int:
    """Of the whole page, in pixels."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in document["panels"])
    return int(_HEADER + bottom * (_ROW + _GAP) + _MARGIN)


def render(
    document: Mapping[str, Any],
    answers: Mapping[int, Answer],
    choices: Choices,
    window: Window,
    marks: Sequence[charts.Mark],
) -> str:
    """The page; ``answers`` by the panels' ids."""
    parts = [_header(document, choices, window)]
    for panel in document["panels"]:
        place = _place(panel["gridPos"])
        if panel["type"] == "row":
            parts.append(f'<div class="row" style="{place.style}">{escape(panel["title"])}</div>')
            continue
        body = _body(answers[panel["id"]], place, marks)
        parts.append(
            f'<div class="panel" style="{place.style}"><h2>{escape(panel["title"])}</h2>'
            f'<div class="body">{body}</div></div>'
        )
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><style>{_STYLE}</style>'
    return f"{head}<body>{''.join(parts)}</body></html>"


class _Place:
    """Where a panel is, in pixels."""

    def __init__(self, left: float, top: float, width: float, height: float) -> None:
        self.style = f"left:{left:.1f}px;top:{top:.1f}px;width:{width:.1f}px;height:{height:.1f}px"
        self.inner_width = width - 2 * _PADDING - 2
        self.inner_height = height - _TITLE - 8


def _place(grid: Mapping[str, int]) -> _Place:
    column = (WIDTH - 2 * _MARGIN + _GAP) / COLUMNS
    return _Place(
        _MARGIN + grid["x"] * column,
        _HEADER + grid["y"] * (_ROW + _GAP),
        grid["w"] * column - _GAP,
        grid["h"] * (_ROW + _GAP) - _GAP,
    )


def _header(document: Mapping[str, Any], choices: Choices, window: Window) -> str:
    start, end = (datetime.datetime.fromtimestamp(time, datetime.UTC) for time in (window.start, window.end))
    chips = []
    for each in variables(document):
        values = ["All" if value == ALL else value for value in choices.by_name[each["name"]]]
        chips.append(f'<div class="chip"><b>{escape(each["label"])}</b><span>{escape(", ".join(values))}</span></div>')
    return (
        f'<header><span class="time">{start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC</span>'
        f'<h1>{escape(document["title"])}</h1><div class="chosen">{"".join(chips)}</div></header>'
    )


def _body(answer: Answer, place: _Place, marks: Sequence[charts.Mark]) -> str:
    if not any(line.last is not None for line in answer.lines):
        none = escape(answer.panel["fieldConfig"]["defaults"]["noValue"])
        if answer.panel["type"] == "stat":
            return f'<div class="number" style="font-size:26px">{none}</div>'
        return f'<div class="none">{none}</div>'
    match answer.panel["type"]:
        case "stat":
            return _stat(answer, place)
        case "bargauge":
            return _bars(answer, place)
        case "table":
            return _table(answer, place)
        case "state-timeline":
            return charts.timeline(answer, place.inner_width, place.inner_height, marks)
        case "timeseries":
            return _timeseries(answer, place, marks)
        case other:
            return f'<div class="none">panels of type {escape(other)} are not drawn</div>'


def _timeseries(answer: Answer, place: _Place, marks: Sequence[charts.Mark]) -> str:
    keys = charts.legend(answer, int(place.inner_width / _KEY_PIXELS) * _KEYS_LINES + 2)
    letters = sum(len(line.name) + 6 for line in answer.lines) * 6.2
    lines = min(max(1, -(-int(letters) // int(place.inner_width))), _KEYS_LINES)
    chart = charts.timeseries(answer, place.inner_width, place.inner_height - 17 * lines - 2, marks)
    return f'{chart}<div class="keys" style="height:{17 * lines}px">{keys}</div>'


def _stat(answer: Answer, place: _Place) -> str:
    line = answer.lines[0]
    defaults = answer.panel["fieldConfig"]["defaults"]
    colour = colours.of_value(line.last, answer.panel)
    text = text_of(line.last or 0.0, defaults["unit"], defaults.get("decimals"))
    size = min(place.inner_height * 0.5, place.inner_width / max(len(text), 3) * 1.5)
    spark = ""
    if answer.panel["options"]["graphMode"] == "area" and len(line.values) > 1:
        drawn = charts.sparkline(
            line, answer.window, place.inner_width + 2 * _PADDING, place.inner_height * 0.42, colour
        )
        spark = f'<div class="spark">{drawn}</div>'
    return f'{spark}<div class="number" style="color:{colour};font-size:{size:.0f}px">{escape(text)}</div>'


def _bars(answer: Answer, place: _Place) -> str:
    lines = sorted(answer.lines, key=lambda line: -(line.last or 0.0))
    most = max(answer.panel["fieldConfig"]["defaults"].get("max") or 0.0, *(line.last or 0.0 for line in lines)) or 1.0
    each = min(place.inner_height / len(lines) - 5, 46.0)
    limits = len(answer.panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1
    parts = []
    for index, line in enumerate(lines):
        if (index + 1) * (each + 5) > place.inner_height + 1:
            break
        colour = colours.of_value(line.last, answer.panel) if limits else _bar_colour(line, index, answer)
        value = text_of(line.last or 0.0, answer.panel["fieldConfig"]["defaults"]["unit"])
        parts.append(
            f'<div class="bar" style="height:{each:.0f}px"><div class="name">{escape(line.name)}</div>'
            '<div class="track">'
            f'<div class="fill" style="width:{(line.last or 0.0) / most * 100:.1f}%;background:{colour}"></div></div>'
            f'<div class="value" style="color:{colour}">{escape(value)}</div></div>'
        )
    return "".join(parts)


def _bar_colour(line: Line, index: int, answer: Answer) -> str:
    first = colours.named(answer.panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["color"])
    return first if first != colours.TEXT else colours.of_line(line.name, index, answer.panel)


def _table(answer: Answer, place: _Place) -> str:
    """Only the columns that the panel keeps, under the titles that it gives them."""
    titles: dict[str, str] = {}
    for each in answer.panel["transformations"]:
        if each["id"] == "organize":
            titles = each["options"]["renameByName"]
    unit = answer.panel["fieldConfig"]["defaults"]["unit"]
    head = "".join(f"<th>{escape(title)}</th>" for title in titles.values())
    rows = []
    for line in sorted(answer.lines, key=lambda line: [line.labels.get(name, "") for name in titles]):
        cells = [text_of(line.last or 0.0, unit) if name == "Value" else line.labels.get(name, "") for name in titles]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    most = int((place.inner_height - 26) / 25)
    if len(rows) > most:
        rows[most - 1 :] = [f'<tr><td colspan="{len(titles)}">… {len(rows) - most + 1} more</td></tr>']
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"
