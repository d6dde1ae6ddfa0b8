"""What became of the time that runs took, for people."""

from __future__ import annotations

from collections.abc import Mapping

from tenure.client.broker_records import ComputeTime
from tenure.client.cli.output import span


def compute_pairs(compute: ComputeTime) -> list[tuple[str, str]]:
    """Lines of a table, the greatest causes first; empty values where there is nothing to say."""
    return [
        ("compute useful", span(compute.useful_ms) if compute.useful_ms else ""),
        ("compute saved", _by_cause(compute.saved_ms)),
        ("compute wasted", _by_cause(compute.wasted_ms)),
    ]


def _by_cause(by_cause_ms: Mapping[str, int]) -> str:
    causes = sorted(by_cause_ms.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{span(ms)} {cause.replace('_', ' ')}" for cause, ms in causes if ms)
