"""What of a worker's metrics is looked up when somebody scrapes, from the objects themselves: nothing can go stale.

Their names stand in :data:`tenure.worker.metrics.LOOKED_UP`.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tenure.worker.machine import slots_of
from tenure.worker.metrics import LOOKED_UP, SLOT_STATES

if TYPE_CHECKING:
    from tenure.worker.disks import Disks
    from tenure.worker.gpu.watch import GpuWatch
    from tenure.worker.holdings import Holdings
    from tenure.worker.machine import Figures, Machine

# By the attribute of GpuFigures; the metrics' names are these behind ``gpu_``. ``slot``: all slots that use the GPU,
# separated by commas.
_GPU_FIGURES = ("utilization_ratio", "memory_used_bytes", "memory_total_bytes", "temperature_celsius", "power_watts")


class StateCollector(Collector):
    """What is looked up at a scrape, in the scraping thread."""

    def __init__(self, holdings: Holdings, machine: Machine, watch: GpuWatch, disks: Disks) -> None:
        self._holdings = holdings
        self._machine = machine
        self._watch = watch
        self._disks = disks

    def describe(self) -> Iterable[Metric]:
        """The names; looking up would need a running worker."""
        return [row.family() for row in LOOKED_UP.values()]

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        yield from self._link()
        yield from self._slots()
        yield from self._figures()
        free = _family("disk_free_bytes")
        for kind, free_bytes in self._disks.free_bytes().items():
            free.add_metric([kind], free_bytes)
        yield free

    def _link(self) -> Iterable[Metric]:
        holdings = self._holdings
        contact = holdings.link.contact if holdings.link is not None else None
        yield _single("session_up", bool(contact and contact.up))
        yield _single("session_reconnects", contact.reconnects if contact else 0)
        yield _single("session_contact_age_seconds", contact.age_seconds() if contact else 0.0)
        yield _single("draining", not holdings.open)
        yield _single("spool_outcomes", len(holdings.spool))
        yield _single("spool_bytes", holdings.spool.size_bytes)
        yield _single("spool_write_failures", holdings.spool.write_failures)
        yield _single("checkpoints_unregistered", len(holdings.announcements))
        yield _single("leases", len(holdings.runs))

    def _slots(self) -> Iterable[Metric]:
        slots = list(self._holdings.slots)
        states = _family("slots")
        tally = Tally(slot.state.value for slot in slots)
        for state in SLOT_STATES:
            states.add_metric([state], tally[state])
        yield states
        memory = _family("executor_resident_bytes")
        step = _family("training_step")
        rate = _family("training_samples_per_second")
        progress_age = _family("progress_age_seconds")
        checkpoint_age = _family("checkpoint_age_seconds")
        cordoned = _family("slot_cordoned")
        now = time.monotonic()
        for slot in slots:
            label = [str(slot.index)]
            cordoned.add_metric([*label, slot.health.cause], slot.health.cordoned)
            if (executor := slot.executor) is not None:
                memory.add_metric(label, executor.resident_bytes())
            run = slot.run
            if run is None or run.started_at is None:
                continue
            step.add_metric(label, run.progress.step)
            if "samples_per_second" in run.progress.metrics:
                rate.add_metric(label, run.progress.metrics["samples_per_second"])
            progress_age.add_metric(label, now - run.reported_at)
            checkpoint_age.add_metric(label, now - (run.checkpointed_at or run.started_at))
        yield from (memory, step, rate, progress_age, checkpoint_age, cordoned)

    def _figures(self) -> Iterable[Metric]:
        figures = self._machine.figures()
        yield _single("cpu_usage_ratio", figures.cpu_ratio)
        yield _single("memory_usage_ratio", figures.memory_ratio)
        yield _single("memory_used_bytes", figures.memory_used_bytes)
        slots = list(self._holdings.slots)
        labels = {gpu.name: [",".join(map(str, slots_of(gpu.name, slots))), gpu.name] for gpu in figures.gpus}
        for attribute in _GPU_FIGURES:
            family = _family(f"gpu_{attribute}")
            for gpu in figures.gpus:
                if (value := getattr(gpu, attribute)) is not None:
                    family.add_metric(labels[gpu.name], value)
            yield family
        yield from self._gpu_troubles(figures, labels)

    def _gpu_troubles(self, figures: Figures, labels: Mapping[str, list[str]]) -> Iterable[Metric]:
        unusable = _family("gpu_unusable")
        throttled = _family("gpu_throttled")
        ecc = _family("gpu_ecc_errors")
        xids = _family("gpu_xid_errors")
        for gpu in figures.gpus:
            unusable.add_metric(labels[gpu.name], bool(gpu.fault))
            for reason in gpu.throttling:
                throttled.add_metric([*labels[gpu.name], reason], 1)
            for kind, count in (("corrected", gpu.ecc_corrected), ("uncorrected", gpu.ecc_uncorrected)):
                if count is not None:
                    ecc.add_metric([*labels[gpu.name], kind], count)
        for name, counts in self._watch.xid_counts().items():
            for xid, count in counts.items():
                xids.add_metric([*labels.get(name, ["", name]), str(xid)], count)
        yield from (unusable, throttled, ecc, xids)


def _family(name: str) -> GaugeMetricFamily | CounterMetricFamily:
    return LOOKED_UP[name].family()


def _single(name: str, value: float) -> Metric:
    family = LOOKED_UP[name].family()
    family.add_metric([], float(value))
    return family
