"""Questions to a Prometheus, by its HTTP API."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 60.0


class PrometheusError(Exception):
    """Prometheus doesn't answer, or refuses a query."""


@dataclass(frozen=True)
class Window:
    """A time range, Unix seconds, asked in steps."""

    start: float
    end: float
    step: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start

    @property
    def times(self) -> list[float]:
        """Every step."""
        return [self.start + index * self.step for index in range(int(self.seconds / self.step + 1e-6) + 1)]


@dataclass(frozen=True)
class Series:
    """A series over a window's steps: None where it has no sample."""

    labels: dict[str, str]
    values: list[float | None]


class Prometheus:
    """The server at ``url``.

    Raises, from every method:
        PrometheusError: No answer, or a refusal; it says which query and why.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def instant(self, expression: str, at: float) -> list[Series]:
        """The newest sample of each series."""
        data = self._get("query", query=expression, time=f"{at:.3f}")
        if data["resultType"] == "scalar":
            return [Series({}, [_number(data["result"][1])])]
        return [Series(each["metric"], [_number(each["value"][1])]) for each in data["result"]]

    def range(self, expression: str, window: Window) -> list[Series]:
        """Each series at each step."""
        data = self._get(
            "query_range",
            query=expression,
            start=f"{window.start:.3f}",
            end=f"{window.end:.3f}",
            step=f"{window.step:g}",
        )
        found = []
        for each in data["result"]:
            values: list[float | None] = [None] * len(window.times)
            for time, value in each["values"]:
                values[round((float(time) - window.start) / window.step)] = _number(value)
            found.append(Series(each["metric"], values))
        return found

    def label_values(self, selector: str, label: str, window: Window) -> list[str]:
        """The values of a label among the series of a selector within the window."""
        found: list[str] = self._get(
            f"label/{label}/values",
            start=f"{window.start:.3f}",
            end=f"{window.end:.3f}",
            **{"match[]": selector},
        )
        return found

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                why = error.read().decode(errors="replace")
            raise PrometheusError(f"{self.url} refuses {parameters}: {why}") from None
        except (OSError, ValueError) as error:
            raise PrometheusError(f"{self.url} gives no answer: {error}") from error


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None
