"""What a case of an alert is."""

from __future__ import annotations

from dataclasses import dataclass, field

from ops.alert_series import START_MINUTES, Grid, Values, masters


@dataclass(frozen=True)
class Case:
    """What is laid over the quiet cluster, and what comes of it.

    Attributes:
        alert: Which fires; no other does but ``also``.
        series: Instead of those of the quiet cluster, or beside them.
        fires: Minutes after it went bad, by when it fires.
        clears: Minutes after it went bad, by when it has cleared.
        labels: Of the alert.
        also: Alerts that rightly fire with it.
        step: Between samples: ``1m``, or ``4m`` for what is measured in days.
    """

    alert: str
    series: dict[str, Values]
    fires: float
    clears: float
    labels: dict[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    step: str = "1m"


W1 = {"instance": "w1"}


def outcomes(kind: str, cause: str, values: Values) -> dict[str, Values]:
    """Both masters count these outcomes."""
    return masters("tenure_outcomes_total", values, f'kind="{kind}", cause="{cause}", verdict="accepted"')


def restarts(grid: Grid) -> str:
    """The start time of a process that is started once a minute for five minutes."""
    starts = [-18000, *(60 * (START_MINUTES + minute) for minute in range(5))]
    lengths = [START_MINUTES, 1, 1, 1, 1, grid.end_minutes]
    return " ".join(f"{start}x{grid.steps(length) - 1}" for start, length in zip(starts, lengths, strict=True))
