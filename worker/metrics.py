"""Every Prometheus metric of a worker, named here and nowhere else.

Two kinds: what is counted when it happens (:class:`Instruments`), and what is looked up when somebody scrapes
(:class:`StateCollector`, from the objects themselves, so that nothing can go stale).
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tenure.worker.losses import LossRecord
from tenure.worker.machine import slots_of

if TYPE_CHECKING:
    from tenure.worker.gpu.watch import GpuWatch
    from tenure.worker.holdings import Holdings
    from tenure.worker.machine import Figures, Machine
    from tenure.worker.runs import Run
    from tenure.worker.slots.slot import Slot

OUTCOMES = ("success", "failure", "loss", "out_of_memory", "release", "dropped")
REPLACEMENTS = (
    "crash",
    "killed",
    "out_of_memory",
    "device_lost",
    "gpu_memory_leak",
    "host_memory_leak",
    "processes_left",
    "threads_left",
    "tasks_limit",
    "other_code",
    "stuck",
    "start_failed",
)
NOTICES = ("signal", "file", "url")
LEFTOVERS = ("process", "thread")
# By the attribute of GpuFigures. ``slot``: all slots that use the GPU, separated by commas.
_GPU_FIGURES = (
    ("gpu_utilization_ratio", "Time in which the GPU did anything, 0 to 1.", "utilization_ratio"),
    ("gpu_memory_used_bytes", "Memory of the GPU in use by anybody.", "memory_used_bytes"),
    ("gpu_memory_total_bytes", "Memory of the GPU.", "memory_total_bytes"),
    ("gpu_temperature_celsius", "Temperature of the GPU.", "temperature_celsius"),
    ("gpu_power_watts", "Power that the GPU draws.", "power_watts"),
)
_RUN_BUCKETS = (0.1, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 72 * 3600)
_GAP_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30, 300)


_CHECKPOINT_COUNTERS = (
    ("saved", "checkpoints_saved", "Checkpoints written."),
    ("failures", "checkpoint_failures", "Checkpoints that could not be written."),
    (
        "superseded",
        "checkpoints_superseded",
        "Checkpoints never written because a newer one came before their turn.",
    ),
    (
        "skipped",
        "checkpoints_skipped",
        "Registered checkpoints that were missing or damaged when a run resumed.",
    ),
    ("bytes_written", "checkpoint_written_bytes", "Bytes of checkpoints written."),
    ("write_seconds", "checkpoint_write_seconds", "Time spent writing checkpoints, beside the training."),
    ("stall_seconds", "checkpoint_stall_seconds", "Time for which trainings were held up by their checkpoints."),
    ("read_seconds", "checkpoint_read_seconds", "Time spent reading checkpoints."),
)


class Instruments:
    """What is counted when it happens. ``registry`` is what /metrics exports."""

    def __init__(self, losses: LossRecord | None = None) -> None:
        self.losses = losses or LossRecord()
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.info = Info("tenure_worker", "This worker.", registry=registry)
        self.tasks = Counter(
            "tenure_worker_tasks",
            "Runs that ended, by outcome; dropped: the lease was gone, nobody was told.",
            ["outcome"],
            registry=registry,
        )
        self.run_seconds = Histogram(
            "tenure_worker_run_seconds", "Duration of runs.", ["outcome"], buckets=_RUN_BUCKETS, registry=registry
        )
        self.idle_gap_seconds = Histogram(
            "tenure_worker_idle_gap_seconds",
            "From the end of a run to the start of the next in the same slot, waiting for tasks included.",
            buckets=_GAP_BUCKETS,
            registry=registry,
        )
        self.executor_restarts = Counter(
            "tenure_worker_executor_restarts", "Executors replaced, by reason.", ["reason"], registry=registry
        )
        self.leftovers = Counter(
            "tenure_worker_run_leftovers",
            "Processes (ended) and threads (going on) that runs left behind.",
            ["kind"],
            registry=registry,
        )
        # By the field of CheckpointCounters.
        self._checkpoint_counters = {
            field: Counter(f"tenure_worker_{name}", meaning, registry=registry)
            for field, name, meaning in _CHECKPOINT_COUNTERS
        }
        self.checkpoint_size_bytes = Gauge(
            "tenure_worker_checkpoint_size_bytes", "Size of the last checkpoint.", registry=registry
        )
        self.preemption_notices = Counter(
            "tenure_worker_preemption_notices", "Preemption notices, by source.", ["source"], registry=registry
        )
        self.preemption_poll_failures = Counter(
            "tenure_worker_preemption_poll_failures",
            "Looks at the preemption URL or file that gave no answer.",
            registry=registry,
        )
        for kind in LEFTOVERS:
            self.leftovers.labels(kind)
        for source in NOTICES:
            self.preemption_notices.labels(source)
        for outcome in OUTCOMES:
            self.tasks.labels(outcome)
        for reason in REPLACEMENTS:
            self.executor_restarts.labels(reason)
        self._costs: dict[int, dict[str, float]] = {}
        self._ended: Tally[str] = Tally()

    @property
    def completed(self) -> int:
        """Runs that ended in success."""
        return self._ended["success"]

    @property
    def failed(self) -> int:
        """Runs that ended in failure of any kind; released and dropped ones are neither."""
        return self._ended["failure"] + self._ended["loss"] + self._ended["out_of_memory"]

    def run_started(self, slot: Slot) -> None:
        """A run is in the slot's executor."""
        self.losses.run_started()
        if slot.idle_gap_seconds is not None:
            self.idle_gap_seconds.observe(slot.idle_gap_seconds)

    def run_ended(self, run: Run, outcome: str) -> None:
        """A run is over."""
        self.tasks.labels(outcome).inc()
        self._ended[outcome] += 1
        self._costs.pop(run.number, None)
        if run.started_at is not None:
            preempted = run.stop_reason is not None and run.stop_reason.value == "preempted"
            self.losses.run_ended(lost=preempted or outcome == "loss")
            self.run_seconds.labels(outcome).observe(run.seconds())

    def checkpoint_costs(self, run: Run, costs: Mapping[str, float]) -> None:
        """The run's checkpoints have cost so much in all (the fields of CheckpointCounters)."""
        before = self._costs.get(run.number, {})
        for name, counter in self._checkpoint_counters.items():
            counter.inc(max(0.0, costs.get(name, 0) - before.get(name, 0)))
        self._costs[run.number] = dict(costs)


class StateCollector(Collector):
    """What is looked up at a scrape, in the scraping thread."""

    def __init__(self, holdings: Holdings, machine: Machine, watch: GpuWatch) -> None:
        self._holdings = holdings
        self._machine = machine
        self._watch = watch

    def describe(self) -> Iterable[Metric]:
        """Nothing to register names by: looking up would need a running worker."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        yield from self._link()
        yield from self._slots()
        yield from self._figures()

    def _link(self) -> Iterable[Metric]:
        holdings = self._holdings
        contact = holdings.link.contact if holdings.link is not None else None
        yield _gauge("session_up", "Whether a master has accepted this worker.", bool(contact and contact.up))
        reconnects = Metric("tenure_worker_session_reconnects", "Connections to a master after the first.", "counter")
        reconnects.add_sample("tenure_worker_session_reconnects_total", {}, contact.reconnects if contact else 0)
        yield reconnects
        yield _gauge(
            "session_contact_age_seconds",
            "Since a master was last heard.",
            contact.age_seconds() if contact else 0.0,
        )
        yield _gauge("draining", "Whether the worker takes no tasks.", not holdings.open)
        yield _gauge("spool_outcomes", "Outcomes that no master has acknowledged.", len(holdings.spool))
        failures = Metric("tenure_worker_spool_write_failures", "Outcomes that the disk refused.", "counter")
        failures.add_sample("tenure_worker_spool_write_failures_total", {}, holdings.spool.write_failures)
        yield failures
        yield _gauge(
            "checkpoints_unregistered",
            "Checkpoints written and not yet known to be registered.",
            len(holdings.announcements),
        )
        yield _gauge("leases", "Leases held by runs.", len(holdings.runs))

    def _slots(self) -> Iterable[Metric]:
        slots = list(self._holdings.slots)
        states = GaugeMetricFamily("tenure_worker_slots", "Slots by state.", labels=["state"])
        tally = Tally(slot.state.value for slot in slots)
        for state in ("starting", "free", "running", "cleaning", "broken", "cordoned"):
            states.add_metric([state], tally[state])
        yield states
        memory = _family("executor_resident_bytes", "Memory of the slot's executor and its children.")
        step = _family("training_step", "The step that the slot's run has reported.")
        rate = _family("training_samples_per_second", "Throughput that the slot's run has reported.")
        progress_age = _family("progress_age_seconds", "Since the slot's run last reported.")
        checkpoint_age = _family(
            "checkpoint_age_seconds", "Since the slot's run last wrote a checkpoint, or since it started."
        )
        cordoned = GaugeMetricFamily(
            "tenure_worker_slot_cordoned", "Whether its GPU's errors have cordoned the slot.", labels=["slot", "cause"]
        )
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
        yield _gauge("cpu_usage_ratio", "Of all cores of the machine, 0 to 1.", figures.cpu_ratio)
        yield _gauge("memory_usage_ratio", "Of the machine's memory, 0 to 1.", figures.memory_ratio)
        yield _gauge("memory_used_bytes", "Of the machine's memory.", figures.memory_used_bytes)
        slots = list(self._holdings.slots)
        labels = {gpu.name: [",".join(map(str, slots_of(gpu.name, slots))), gpu.name] for gpu in figures.gpus}
        for name, meaning, attribute in _GPU_FIGURES:
            family = GaugeMetricFamily(f"tenure_worker_{name}", meaning, labels=["slot", "gpu"])
            for gpu in figures.gpus:
                if (value := getattr(gpu, attribute)) is not None:
                    family.add_metric(labels[gpu.name], value)
            yield family
        yield from self._gpu_troubles(figures, labels)

    def _gpu_troubles(self, figures: Figures, labels: Mapping[str, list[str]]) -> Iterable[Metric]:
        unusable = GaugeMetricFamily(
            "tenure_worker_gpu_unusable", "Whether NVML says that it is lost or needs a reset.", labels=["slot", "gpu"]
        )
        throttled = GaugeMetricFamily(
            "tenure_worker_gpu_throttled",
            "Whether its clocks are held down, by reason.",
            labels=["slot", "gpu", "reason"],
        )
        ecc = CounterMetricFamily(
            "tenure_worker_gpu_ecc_errors", "Memory errors since its driver was loaded.", labels=["slot", "gpu", "kind"]
        )
        xids = CounterMetricFamily(
            "tenure_worker_gpu_xid_errors", "XID errors since the worker started.", labels=["slot", "gpu", "xid"]
        )
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


def _family(name: str, meaning: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tenure_worker_{name}", meaning, labels=["slot"])


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tenure_worker_{name}", meaning, value=float(value))
