"""What a master process counts, read as Prometheus would."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from processes import MasterProcess
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """One look at a master's metrics."""

    def __init__(self, text: str) -> None:
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def by(self, name: str, *labels: str, **wanted: str) -> dict[tuple[str, ...], float]:
        """Samples of a series that have the ``wanted`` labels, summed by these ``labels``; without what is 0."""
        found: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for sample in self.samples:
            if sample.name == name and wanted.items() <= sample.labels.items():
                found[tuple(sample.labels[label] for label in labels)] += sample.value
        return {key: value for key, value in found.items() if value}

    def value(self, name: str, **wanted: str) -> float:
        """Their sum."""
        return sum(self.by(name, **wanted).values())


async def scrape(master: MasterProcess) -> Scrape:
    """Look at a master's metrics now."""
    return Scrape((await asyncio.to_thread(master.get, "/metrics"))[1])


async def growth(master: MasterProcess, before: Scrape, name: str, *labels: str, **wanted: str) -> dict[Any, float]:
    """What a counter's samples have grown by."""
    now, then = (await scrape(master)).by(name, *labels, **wanted), before.by(name, *labels, **wanted)
    return {key: now[key] - then.get(key, 0) for key in now if now[key] != then.get(key, 0)}
