"""Charts over time, as SVG: lines, stacked areas, bars and lanes, the way Grafana draws them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from picturing import colours
from picturing.panels import Answer, Line
from picturing.prometheus import Window
from picturing.units import tick_text, ticks

_BOTTOM = 20.0
_TOP = 6.0
_CHARACTER = 6.1
_TIME_STEPS = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_LANES_MAX = 40


@dataclass(frozen=True)
class Mark:
    """A vertical line at a time: something was started."""

    time: float
    colour: str


@dataclass(frozen=True)
class _Plot:
    """The inner rectangle, and where values lie in it."""

    left: float
    right: float
    top: float
    bottom: float
    window: Window
    low: float
    high: float

    def x(self, time: float) -> float:
        """Pixels from the left."""
        return self.left + (time - self.window.start) / max(self.window.seconds, 1e-9) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        share = (value - self.low) / max(self.high - self.low, 1e-12)
        return self.bottom - min(max(share, -0.02), 1.02) * (self.bottom - self.top)


def timeseries(answer: Answer, width: float, height: float, marks: Sequence[Mark]) -> str:
    """The chart of a ``timeseries`` panel."""
    custom = answer.panel["fieldConfig"]["defaults"]["custom"]
    stacked = custom["stacking"]["mode"] == "normal"
    tops = _stacked(answer.lines) if stacked else [line.values for line in answer.lines]
    plot, axis = _axes(answer, tops, width, height)
    parts = [axis, *_marks(plot, marks)]
    bars = custom.get("drawStyle") == "bars"
    floors: list[list[float | None]] = [[0.0] * len(answer.window.times), *tops] if stacked else []
    # From the back: what lies below on the stack is drawn last.
    for index in reversed(range(len(tops))):
        colour = colours.of_line(answer.lines[index].name, index, answer.panel)
        if bars:
            parts.append(_bars(plot, floors[index] if stacked else [0.0] * len(tops[index]), tops[index], colour))
            continue
        floor = floors[index] if stacked else None
        parts.append(_area(plot, floor, tops[index], colour, custom["fillOpacity"] / 100))
    parts += _limits(plot, answer)
    return _svg(width, height, parts)


def timeline(answer: Answer, width: float, height: float, marks: Sequence[Mark]) -> str:
    """The chart of a ``state-timeline`` panel: a lane for each series."""
    lines = sorted(answer.lines, key=lambda line: line.name)[:_LANES_MAX]
    left = min(max((len(line.name) for line in lines), default=0) * _CHARACTER + 14, width * 0.45)
    plot = _Plot(left, width - 8, _TOP, height - _BOTTOM, answer.window, 0, 1)
    parts = [_time_axis(plot)]
    lane = min((plot.bottom - plot.top) / max(len(lines), 1), 34.0)
    for index, line in enumerate(lines):
        top = plot.top + index * lane
        name = _cut(line.name, left)
        parts.append(_text(left - 8, top + lane / 2 + 4, name, "end", colours.TEXT))
        for start, end, value in _spans(line.values, answer.window):
            colour = colours.of_value(value, answer.panel)
            x, end_x = plot.x(start), min(plot.x(end), plot.right)
            parts.append(
                f'<rect x="{x:.1f}" y="{top + lane * 0.1:.1f}" width="{max(end_x - x, 1.5):.1f}" '
                f'height="{lane * 0.8:.1f}" fill="{colour}" fill-opacity="0.8"/>'
            )
    return _svg(width, height, [*parts, *_marks(plot, marks)])


def sparkline(line: Line, window: Window, width: float, height: float, colour: str) -> str:
    """The course behind a number."""
    values = [value for value in line.values if value is not None]
    high = max(values, default=0.0)
    plot = _Plot(0, width, 2, height, window, min(0.0, *values) if values else 0.0, high or 1.0)
    return _svg(width, height, [_area(plot, None, line.values, colour, 0.15)])


def legend(answer: Answer, most: int) -> str:
    """The names below a chart, as HTML; so many of them, then how many more there are."""
    shown = [
        f'<span class="key"><i style="background:{colours.of_line(line.name, index, answer.panel)}"></i>'
        f"{escape(line.name)}</span>"
        for index, line in enumerate(answer.lines[:most])
    ]
    if len(answer.lines) > most:
        shown.append(f'<span class="key">… {len(answer.lines) - most} more</span>')
    return "".join(shown)


def _stacked(lines: Sequence[Line]) -> list[list[float | None]]:
    """Each line on top of those before it."""
    below = [0.0] * (len(lines[0].values) if lines else 0)
    tops: list[list[float | None]] = []
    for line in lines:
        below = [base + (value or 0.0) for base, value in zip(below, line.values, strict=True)]
        # A gap of the lowest is one; above, there is something to stand on.
        tops.append(list(below))
    return tops


def _axes(answer: Answer, tops: Sequence[Sequence[float | None]], width: float, height: float) -> tuple[_Plot, str]:
    defaults = answer.panel["fieldConfig"]["defaults"]
    unit = defaults["unit"]
    values = [value for line in tops for value in line if value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if defaults.get("min") is not None:
        low = min(low, defaults["min"])
    if defaults.get("max") is not None:
        high = max(high, defaults["max"])
    if high <= low:
        around = 0.0 if defaults.get("min") is not None else 0.05 * abs(low)
        low, high = low - around, low + (around or 1.0)
    high += (high - low) * (0.0 if high == defaults.get("max") else 0.06)
    rows = ticks(low, high, unit, max(2, int((height - _BOTTOM) / 34)))
    names = [tick_text(row, unit) for row in rows]
    left = max(len(name) for name in names) * _CHARACTER + 12
    plot = _Plot(left, width - 10, _TOP, height - _BOTTOM, answer.window, low, high)
    parts = [_time_axis(plot)]
    for row, name in zip(rows, names, strict=True):
        y = plot.y(row)
        parts.append(_line(plot.left, plot.right, y, y, f'stroke="{colours.GRID}"'))
        parts.append(_text(plot.left - 6, y + 4, name, "end", colours.FAINT))
    return plot, "".join(parts)


def _time_axis(plot: _Plot) -> str:
    most = max(1, int((plot.right - plot.left) / 70))
    step = next((each for each in _TIME_STEPS if plot.window.seconds / each <= most), _TIME_STEPS[-1])
    form = "%H:%M:%S" if step < 60 else "%H:%M" if plot.window.seconds <= 2 * 86400 else "%m/%d %H:%M"
    parts = []
    time = -(-plot.window.start // step) * step
    while time <= plot.window.end:
        x = plot.x(time)
        name = datetime.datetime.fromtimestamp(time, datetime.UTC).strftime(form)
        parts.append(_line(x, x, plot.top, plot.bottom, f'stroke="{colours.GRID}"'))
        if x < plot.right - len(name) * _CHARACTER / 2 + 8:
            parts.append(_text(x, plot.bottom + 15, name, "middle", colours.FAINT))
        time += step
    return "".join(parts)


def _area(
    plot: _Plot, floor: Sequence[float | None] | None, tops: Sequence[float | None], colour: str, opacity: float
) -> str:
    """Runs of values as lines with something below them; a lonely value as a point."""
    parts = []
    for first, last in _runs(tops):
        upper = [(plot.x(plot.window.times[index]), plot.y(tops[index] or 0.0)) for index in range(first, last)]
        if len(upper) == 1:
            parts.append(f'<circle cx="{upper[0][0]:.1f}" cy="{upper[0][1]:.1f}" r="1.5" fill="{colour}"/>')
            continue
        lower = [
            (x, plot.y((floor[first + index] or 0.0) if floor is not None else max(plot.low, 0.0)))
            for index, (x, _) in enumerate(upper)
        ]
        if opacity:
            points = _points([*upper, *reversed(lower)])
            parts.append(f'<polygon points="{points}" fill="{colour}" fill-opacity="{opacity:g}"/>')
        style = f'fill="none" stroke="{colour}" stroke-width="1.3" stroke-linejoin="round"'
        parts.append(f'<polyline points="{_points(upper)}" {style}/>')
    return "".join(parts)


def _bars(plot: _Plot, floor: Sequence[float | None], tops: Sequence[float | None], colour: str) -> str:
    step = plot.x(plot.window.start + plot.window.step) - plot.left
    parts = []
    for time, base, top in zip(plot.window.times, floor, tops, strict=True):
        if top is not None and top > (base or 0.0):
            y, end = plot.y(top), plot.y(base or 0.0)
            # Over the time that it counts, which ends where it is shown.
            x = max(plot.x(time) - step * 0.9, plot.left)
            width = max(plot.x(time) - step * 0.1 - x, 1.0)
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(end - y, 0.5):.1f}" '
                f'fill="{colour}" fill-opacity="0.8"/>'
            )
    return "".join(parts)


def _limits(plot: _Plot, answer: Answer) -> list[str]:
    """The thresholds that lie within the chart, dashed."""
    steps = answer.panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]
    parts = []
    for step in steps:
        if plot.low < step["value"] < plot.high:
            y, style = plot.y(step["value"]), f'stroke="{colours.named(step["color"])}" stroke-dasharray="7 5"'
            parts.append(_line(plot.left, plot.right, y, y, style))
    return parts


def _marks(plot: _Plot, marks: Sequence[Mark]) -> list[str]:
    parts = []
    for mark in marks:
        if plot.window.start < mark.time < plot.window.end:
            x, style = plot.x(mark.time), f'stroke="{mark.colour}" stroke-dasharray="3 3" stroke-opacity="0.7"'
            parts.append(_line(x, x, plot.top, plot.bottom, style))
    return parts


def _runs(values: Sequence[float | None]) -> list[tuple[int, int]]:
    """(first, behind the last) of each run without a gap."""
    found, first = [], None
    for index, value in enumerate([*values, None]):
        if value is not None and first is None:
            first = index
        elif value is None and first is not None:
            found.append((first, index))
            first = None
    return found


def _spans(values: Sequence[float | None], window: Window) -> list[tuple[float, float, float]]:
    """(start, end, value) of each stretch of one value."""
    found: list[tuple[float, float, float]] = []
    for time, value in zip(window.times, values, strict=True):
        if value is None:
            continue
        if found and found[-1][2] == value and time - found[-1][1] < window.step / 2:
            found[-1] = (found[-1][0], time + window.step, value)
        else:
            found.append((time, time + window.step, value))
    return found


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _cut(name: str, width: float) -> str:
    most = round((width - 14) / _CHARACTER)
    return name if len(name) <= most else name[: most - 1] + "…"


def _line(left: float, right: float, top: float, bottom: float, style: str) -> str:
    return f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" {style}/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str) -> str:
    font = 'font-family="Inter, DejaVu Sans, sans-serif" font-size="11"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" {font}>{escape(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    box = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f"<svg {box}>{''.join(parts)}</svg>"
