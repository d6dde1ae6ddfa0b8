"""Numbers as people read them, by Grafana's names of units."""

from __future__ import annotations

import math
import re

_SI = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " K"))
_BYTES = ((2.0**40, " TiB"), (2.0**30, " GiB"), (2.0**20, " MiB"), (2.0**10, " KiB"))
_TIMES = ((86400.0 * 7, " weeks"), (86400.0, " days"), (3600.0, " hours"), (60.0, " mins"), (1.0, " s"))
_SUFFIXES = {"ops": " ops/s", "reqps": " req/s", "celsius": " °C", "watt": " W", "short": ""}


def text_of(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit: 1536 bytes are ``1.50 KiB``, 90 s are ``1.50 mins``."""
    match unit:
        case "percentunit":
            return f"{plain(value * 100, decimals)}%"
        case "bool_yes_no":
            return "Yes" if value else "No"
        case "s":
            return _time(value, decimals)
        case "bytes":
            return _scaled(value, _BYTES, " B", decimals)
        case "Bps":
            return f"{_scaled(value, _BYTES, ' B', decimals)}/s"
    scaled = _scaled(value, _SI, "", decimals)
    return f"{scaled}{_SUFFIXES.get(unit, ' ' + unit)}"


def tick_text(value: float, unit: str) -> str:
    """The same on an axis, where values are round: ``0.5 s``, not ``0.500 s``."""
    return re.sub(r"(\.\d*?)0+(?=\D|$)", lambda match: "" if match[1] == "." else match[1], text_of(value, unit))


def plain(value: float, decimals: int | None = None) -> str:
    """A number with as many decimals as it deserves: three digits in all, none behind a whole number."""
    if decimals is None:
        decimals = 0 if value == round(value) else max(0, min(4, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:.{decimals}f}"


def tick_steps(unit: str) -> tuple[float, tuple[float, ...]]:
    """How an axis of this unit is divided: (base, round multiples of its powers)."""
    return (2.0, (1.0,)) if unit in ("bytes", "Bps") else (10.0, (1.0, 2.0, 5.0))


def ticks(low: float, high: float, unit: str, most: int) -> list[float]:
    """Round values from ``low`` to ``high``, at most so many."""
    span = high - low
    if span <= 0:
        return [low]
    step = _time_step(span / most) if unit == "s" else _round_step(span / most, unit)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _round_step(least: float, unit: str) -> float:
    base, multiples = tick_steps(unit)
    power = base ** math.floor(math.log(least, base))
    return next(each * scale for scale in (power, power * base) for each in multiples if each * scale >= least)


def _time_step(least: float) -> float:
    whole = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
    if least <= 1:
        return _round_step(least, "short")
    return float(next((step for step in whole if step >= least), _round_step(least, "short")))


def _scaled(value: float, scales: tuple[tuple[float, str], ...], otherwise: str, decimals: int | None) -> str:
    for size, name in scales:
        if abs(value) >= size:
            return f"{plain(value / size, decimals)}{name}"
    return f"{plain(value, decimals)}{otherwise}"


def _time(value: float, decimals: int | None) -> str:
    if value and abs(value) < 1e-3:
        return f"{plain(value * 1e6, decimals)} µs"
    if value and abs(value) < 1:
        return f"{plain(value * 1e3, decimals)} ms"
    return _scaled(value, _TIMES, " s", decimals)
