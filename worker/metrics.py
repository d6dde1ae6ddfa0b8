"""Every Prometheus metric of a worker, named here and nowhere else. Names carry their units; labels are bounded.

Two kinds: what is counted when it happens (:class:`Instruments`), and what is looked up when somebody scrapes
(:data:`LOOKED_UP`, by :mod:`tenure.worker.state_metrics`). docs/metrics.md is generated from this module.
"""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tenure.common.build import build_info, installed_version
from tenure.common.registry import own_registry
from tenure.worker.losses import LossRecord

if TYPE_CHECKING:
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
SLOT_STATES = ("starting", "free", "running", "cleaning", "broken", "cordoned")
_RUN_BUCKETS = (0.1, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 72 * 3600)
_GAP_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30, 300)
_WRITE_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# Every label of the metrics below: its values, and what bounds them.
LABEL_BOUNDS: dict[str, str] = {
    "outcome": f"{', '.join(f'`{word}`' for word in OUTCOMES)}",
    "reason": "of a replacement: " + ", ".join(f"`{word}`" for word in REPLACEMENTS) + "; of a throttled GPU: NVML's, "
    "ten at most",
    "kind": "a few words, said with each metric",
    "source": ", ".join(f"`{word}`" for word in NOTICES),
    "method": "the calls of `proto/worker.proto`, and `Check` of gRPC's health service",
    "code": "gRPC's seventeen status codes",
    "state": ", ".join(f"`{word}`" for word in SLOT_STATES),
    "slot": "the slots of this worker, 0, 1, …; several of one GPU separated by commas",
    "gpu": "the worker's GPUs, as `CUDA_VISIBLE_DEVICES` names them",
    "cause": "empty, `xid`, `fault` or `device_losses`",
    "xid": "NVIDIA's numbers that this worker has seen",
    "worker": "one: this worker's id",
    "dispatch": "one: `pull` or `push`",
    "version": "one: Tenure's",
    "python": "one: Python's version",
    "grpc": "one: grpcio's version",
    "protobuf": "one: protobuf's version",
    "torch": "one: torch's version, empty when it isn't installed",
}


class LookedUp(NamedTuple):
    """A metric that is looked up at a scrape; ``name`` without ``tenure_worker_``."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"

    def family(self) -> GaugeMetricFamily | CounterMetricFamily:
        """Without samples yet."""
        make = GaugeMetricFamily if self.kind == "gauge" else CounterMetricFamily
        return make(f"tenure_worker_{self.name}", self.meaning, labels=self.labels)


_SLOT = ("slot",)
_GPU = ("slot", "gpu")
LOOKED_UP = {
    row.name: row
    for row in (
        LookedUp("session_up", "Whether a master has accepted this worker."),
        LookedUp("session_reconnects", "Connections to a master after the first.", kind="counter"),
        LookedUp("session_contact_age_seconds", "Since a master was last heard."),
        LookedUp("draining", "Whether the worker takes no tasks."),
        LookedUp("leases", "Leases held by runs."),
        LookedUp("spool_outcomes", "Outcomes that no master has acknowledged."),
        LookedUp("spool_bytes", "Size of the outcomes that no master has acknowledged."),
        LookedUp("spool_write_failures", "Outcomes that the disk refused.", kind="counter"),
        LookedUp("checkpoints_unregistered", "Checkpoints written and not yet known to be registered."),
        LookedUp(
            "disk_free_bytes",
            "Room that the worker's user has where it writes, by kind: work_dir, and checkpoints when they go to a "
            "directory. Absent while a file system doesn't answer.",
            ("kind",),
        ),
        LookedUp("slots", "Slots by state.", ("state",)),
        LookedUp("slot_cordoned", "Whether its GPU's errors have cordoned the slot.", ("slot", "cause")),
        LookedUp("executor_resident_bytes", "Memory of the slot's executor and its children.", _SLOT),
        LookedUp("training_step", "The step that the slot's run has reported.", _SLOT),
        LookedUp("training_samples_per_second", "Throughput that the slot's run has reported.", _SLOT),
        LookedUp("progress_age_seconds", "Since the slot's run last reported.", _SLOT),
        LookedUp("checkpoint_age_seconds", "Since the slot's run last wrote a checkpoint, or since it started.", _SLOT),
        LookedUp("cpu_usage_ratio", "Of all cores of the machine, 0 to 1."),
        LookedUp(
            "memory_usage_ratio",
            "In use of the machine's memory, or of its container's limit if that is fuller, 0 to 1. Files that were "
            "read don't count, tmpfs and shared memory do.",
        ),
        LookedUp("memory_used_bytes", "Of the machine's memory."),
        LookedUp("gpu_utilization_ratio", "Time in which the GPU did anything, 0 to 1.", _GPU),
        LookedUp("gpu_memory_used_bytes", "Memory of the GPU in use by anybody.", _GPU),
        LookedUp("gpu_memory_total_bytes", "Memory of the GPU.", _GPU),
        LookedUp("gpu_temperature_celsius", "Temperature of the GPU.", _GPU),
        LookedUp("gpu_power_watts", "Power that the GPU draws.", _GPU),
        LookedUp("gpu_unusable", "Whether NVML says that it is lost or needs a reset.", _GPU),
        LookedUp("gpu_throttled", "Whether its clocks are held down, by reason.", (*_GPU, "reason")),
        LookedUp(
            "gpu_ecc_errors",
            "Memory errors since its driver was loaded, by kind: corrected, uncorrected.",
            (*_GPU, "kind"),
            "counter",
        ),
        LookedUp("gpu_xid_errors", "XID errors since the worker started.", (*_GPU, "xid"), "counter"),
    )
}

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
        registry = self.registry = own_registry()
        ProcessCollector(registry=registry)
        self.info = Gauge("tenure_worker_info", "1; this worker.", ["worker", "version", "dispatch"], registry=registry)
        build = {**build_info(), "torch": installed_version("torch")}
        Gauge("tenure_worker_build_info", "1; what this worker is built of.", list(build), registry=registry).labels(
            **build
        ).set(1)
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
            "What runs left behind, by kind: process (ended), thread (going on).",
            ["kind"],
            registry=registry,
        )
        self._checkpoints(registry)
        self.preemption_notices = Counter(
            "tenure_worker_preemption_notices", "Preemption notices, by source.", ["source"], registry=registry
        )
        self.preemption_poll_failures = Counter(
            "tenure_worker_preemption_poll_failures",
            "Looks at the preemption URL or file that gave no answer.",
            registry=registry,
        )
        self.rpc_seconds = Histogram(
            "tenure_worker_rpc_seconds",
            "Duration of this worker's unary calls to masters; of a session, until it is welcomed.",
            ["method", "code"],
            buckets=_CALL_BUCKETS,
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

    def _checkpoints(self, registry: CollectorRegistry) -> None:
        # By the field of CheckpointCounters.
        self._checkpoint_counters = {
            field: Counter(f"tenure_worker_{name}", meaning, registry=registry)
            for field, name, meaning in _CHECKPOINT_COUNTERS
        }
        self.checkpoint_write_duration_seconds = Histogram(
            "tenure_worker_checkpoint_write_duration_seconds",
            "Duration of single writes of checkpoints, failed ones too.",
            buckets=_WRITE_BUCKETS,
            registry=registry,
        )
        self.checkpoint_size_bytes = Gauge(
            "tenure_worker_checkpoint_size_bytes", "Size of the last checkpoint.", registry=registry
        )

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """A call to a master is over (:data:`tenure.worker.channels.CallObserver`)."""
        self.rpc_seconds.labels(method, code).observe(seconds)

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

    def checkpoint_costs(self, run: Run, costs: Mapping[str, float], write_seconds: float | None = None) -> None:
        """The run's checkpoints have cost so much in all (the fields of CheckpointCounters), the last write this."""
        if write_seconds is not None and math.isfinite(write_seconds):
            self.checkpoint_write_duration_seconds.observe(max(0.0, write_seconds))
        before = self._costs.get(run.number, {})
        for name, counter in self._checkpoint_counters.items():
            counter.inc(max(0.0, costs.get(name, 0) - before.get(name, 0)))
        self._costs[run.number] = dict(costs)
