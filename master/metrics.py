"""Every Prometheus metric of the master, named here and nowhere else. Names carry their units; labels are bounded.

Two kinds. What a master counts itself, when it happens, is **its own**: over several masters it is joined by ``sum``.
What it reads from the store is **the store's**: every master exports the same, joined by ``max``
(:mod:`tenure.master.loops.figures` reads it). :attr:`MasterMetrics.join` says which; docs/metrics.md is generated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, TypeVar

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from tenure.common.build import build_info
from tenure.common.registry import OTHER, BoundedLabel, KeptLabel, StoreCounter, own_registry

SEARCH_LABELS_MAX = 200
REQUIREMENT_LABELS_MAX = 100
WORKER_LABELS_MAX = 50
CAUSE_LABELS_MAX = 50

WASTE_CAUSES = ("loss", "failure", "out_of_memory", "release", "cancelled", "duplicate", "stale")
EXPIRY_CAUSES = ("silent", "disconnected")
OUTCOME_KINDS = ("success", "failure", "loss", "out_of_memory", "release")
SUCCESS_VERDICTS = ("accepted", "late", "resent", "duplicate", "unknown")
SAVING_CAUSES = ("checkpoint", "late", "shared", "readopted")

# Every label of the metrics below: its values, and what bounds them.
LABEL_BOUNDS: dict[str, str] = {
    "search": f"names of searches: the {SEARCH_LABELS_MAX} newest, all others together as `{OTHER}`",
    "requirements": f"requirement classes as text (`any`, `gpus=2,memory=16GiB,labels=arch:a100`): the first "
    f"{REQUIREMENT_LABELS_MAX} by alphabet, all others together as `{OTHER}`",
    "label": f"labels of live workers, `name=value`: the first {WORKER_LABELS_MAX} by alphabet, all others `{OTHER}`",
    "state": "the six states of a task; of transitions of searches their status",
    "transition": "the transitions of docs/states.md",
    "kind": "a few words, said with each metric",
    "cause": f"a few words, said with each metric; error classes: the first {CAUSE_LABELS_MAX} that this master met, "
    f"later ones as `{OTHER}`",
    "verdict": "a few words by the code",
    "status": "`live`, `silent`, `gone`",
    "mode": "`active`, `cordoned`, `draining`",
    "use": "`busy`, `free`",
    "way": "`session`, `unary`",
    "end": "`response`, and gRPC's seventeen status codes",
    "name": "counters of the scripts, about fifteen",
    "script": "the scripts of `master/store/lua`",
    "method": "the calls of `proto/worker.proto` and `proto/tenure.proto`",
    "code": "gRPC's seventeen status codes",
    "shard": "the store's shards, 1 to 256",
    "server": "one: `redis` or `valkey`",
    "version": "one: that of Tenure or of the server",
    "durability": "one: `strict` or `relaxed`",
    "python": "one: Python's version",
    "grpc": "one: grpcio's version",
    "protobuf": "one: protobuf's version",
}

Join = Literal["max", "sum", "each"]
_M = TypeVar("_M", bound=MetricWrapperBase)
_HOUR = 3600
_FAST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_WAIT_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, _HOUR, 4 * _HOUR, 12 * _HOUR, 24 * _HOUR, 72 * _HOUR)
_RUN_SECONDS = (0.1, 1, 5, 15, 60, 300, 900, _HOUR, 4 * _HOUR, 12 * _HOUR, 24 * _HOUR, 72 * _HOUR)
_LAG_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 300)


class MasterMetrics:
    """One registry with everything the master exports.

    Attributes:
        registry: What ``/metrics`` serves.
        join: By the metric's name, without ``_total``, how the same metric of several masters is one figure: ``max``
            (the store's), ``sum`` (each master's own), or ``each`` (it says something of one master only).
        causes: Bounds the error classes among causes.
    """

    def __init__(self) -> None:
        self.registry = own_registry()
        self.join: dict[str, Join] = {}
        self.causes = BoundedLabel(CAUSE_LABELS_MAX)
        self._searches = KeptLabel(SEARCH_LABELS_MAX)
        self._shown: dict[MetricWrapperBase, set[tuple[str, ...]]] = {}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._tasks()
        self._compute()
        self._leases()
        self._workers()
        self._calls()
        self._store()
        self._store_server()
        self._begin_at_nought()
        build = build_info()
        self._gauge("tenure_build_info", "1; what this master is built of", [*build], join="each").labels(**build).set(
            1
        )

    def _tasks(self) -> None:
        self.tasks = self._gauge("tenure_tasks", "Tasks by search and state", ["search", "state"])
        self.queue_depth = self._gauge(
            "tenure_queue_depth", "QUEUED tasks by search and what they require", ["search", "requirements"]
        )
        self.queue_oldest_seconds = self._gauge(
            "tenure_queue_oldest_seconds",
            "For how long the task that has waited longest could have been taken; 0 when none waits. Of each priority "
            "the first in line are looked at, and every 2nd, 4th, 8th … behind them",
            ["search", "requirements"],
        )
        self.schedule_to_start_seconds = self._histogram(
            "tenure_schedule_to_start_seconds",
            "From when a task could be taken (it was queued, or due) until this master leased it",
            ["search"],
            buckets=_WAIT_SECONDS,
        )
        self.run_seconds = self._histogram(
            "tenure_run_seconds",
            "From a lease's grant until its outcome, by kind: success, failure, loss, out_of_memory, release. What the "
            "worker says its run took, if that is less. Outcomes that were taken, each once",
            ["kind"],
            buckets=_RUN_SECONDS,
        )
        self.outcomes = self._counter(
            "tenure_outcomes",
            "Outcomes delivered to this master. Kind: success, failure, loss, out_of_memory, release. Cause: a signal "
            "(SIGKILL) or else the error class; of a release why; of a success nothing. Verdict: accepted, late (a "
            "success of an outdated lease, accepted), resent (it was taken before), duplicate, stale, unknown",
            ["kind", "cause", "verdict"],
        )
        self.transitions = self._counter(
            "tenure_transitions",
            "Transitions that this master saw in the event stream, its own and others'",
            ["transition", "state"],
            join="max",
        )
        self.checkpoints = self._counter("tenure_checkpoints_registered", "Checkpoint registrations", ["verdict"])
        self.forgotten = self._counter("tenure_tasks_forgotten", "Ended tasks that retention deleted")
        self.best_fitness = self._gauge(
            "tenure_best_fitness", "Highest metric `fitness` of a search's accepted results", ["search"]
        )

    def _compute(self) -> None:
        self.compute_useful_seconds = self._store_counter(
            "tenure_compute_useful_seconds",
            "Run time of accepted results, without what `saved` by checkpoint has of the same lease",
            ["search"],
        )
        self.compute_saved_seconds = self._store_counter(
            "tenure_compute_saved_seconds",
            "Run time that was kept, by cause. checkpoint: of a run that ended unfinished, until its last registered "
            "checkpoint. late, readopted: counted as wasted when the lease was lost, and then its success came, or its "
            "holder came back. shared: the result of a task that an equal submission found, once a task",
            ["search", "cause"],
        )
        self.compute_wasted_seconds = self._store_counter(
            "tenure_compute_wasted_seconds",
            "Run time since the last registered checkpoint of runs that gave no result, by cause: loss, failure, "
            "out_of_memory, release, cancelled, duplicate (another success came first), stale. Of a lost worker until "
            "it was heard last. Less saved late and readopted, it is gone for good",
            ["search", "cause"],
        )

    def _leases(self) -> None:
        self.leases = self._gauge("tenure_leases_live", "Tasks under a lease")
        self.leases_due = self._gauge("tenure_leases_due", "Leases that ran out and wait for the reaper")
        self.leases_expired = self._counter(
            "tenure_leases_expired",
            "Leases this master took back, by cause: silent (its time ran out), disconnected (its session broke)",
            ["cause"],
        )
        self.renewals = self._counter("tenure_lease_renewals", "Lease renewals by verdict", ["verdict"])
        self.renewal_lag_seconds = self._histogram(
            "tenure_lease_renewal_lag_seconds",
            "Time between two renewals of one lease on one session, above the heartbeat interval",
            buckets=_LAG_SECONDS,
        )
        self.lease_clock_seconds = self._gauge("tenure_lease_clock_seconds", "The lease clock", ["shard"])
        self.lease_clock_lag_seconds = self._gauge(
            "tenure_lease_clock_lag_seconds",
            "Since this master's last tick of the lease clock that succeeded, or since its start",
            join="each",
        )
        self.lease_clock_skipped_seconds = self._counter(
            "tenure_lease_clock_skipped_seconds", "Time that did not count: outages and jumps of the clock"
        )
        self.reaper_paused = self._gauge(
            "tenure_reaper_paused", "1 while reaping waits because most leases would expire at once"
        )

    def _workers(self) -> None:
        self.workers = self._gauge("tenure_workers", "Registered workers by status and mode", ["status", "mode"])
        self.slots = self._gauge("tenure_slots", "Slots of live workers that are not cordoned", ["use"])
        self.gpus = self._gauge("tenure_gpus", "GPUs of those slots", ["use"])
        self.label_slots = self._gauge(
            "tenure_label_slots",
            "Slots by their worker's labels; one of several labels counts for each",
            ["label", "use"],
        )
        self.label_gpus = self._gauge("tenure_label_gpus", "GPUs of those slots, likewise", ["label", "use"])
        self.sessions = self._gauge("tenure_sessions", "Open session streams of this master", join="sum")
        self.heartbeats = self._counter("tenure_heartbeats", "Heartbeats by way and verdict", ["way", "verdict"])
        self.waiting = self._gauge("tenure_waiting_slots", "Free slots that wait for a task at this master", join="sum")
        self.pushes = self._counter("tenure_pushes", "Evaluate calls to push workers by their end", ["end"])

    def _calls(self) -> None:
        self.rpc_seconds = self._histogram(
            "tenure_rpc_seconds", "Duration of unary calls", ["method", "code"], buckets=_FAST_SECONDS
        )
        self.rpc_streams_open = self._gauge(
            "tenure_rpc_streams_open", "Open streams of this master", ["method"], join="sum"
        )
        self.rpc_streams_ended = self._counter(
            "tenure_rpc_streams",
            "Streams that ended. OK: in order, by their peer. CANCELLED: they broke, or their peer gave them up. Any "
            "other code: this master ended them with it",
            ["method", "code"],
        )
        self.watchers = self._gauge("tenure_watchers", "Open watches", join="sum")
        self.claim_seconds = self._histogram(
            "tenure_claim_seconds", "From wanting to claim until granted or not", buckets=_FAST_SECONDS
        )

    def _store(self) -> None:
        self.script_seconds = self._histogram(
            "tenure_store_script_seconds", "Round trip that carried a script", ["script"], buckets=_FAST_SECONDS
        )
        self.script_items = self._counter("tenure_store_script_items", "Items that scripts carried", ["script"])
        self.store_counters = self._gauge(
            "tenure_store_counter", "Counters kept in the store since it was made", ["name"]
        )
        self.store_up = self._gauge("tenure_store_up", "1 while the store answers this master", join="each")
        self.store_restarts = self._gauge("tenure_store_restarts", "How often the embedded server was started again")
        self.store_rollbacks = self._counter(
            "tenure_store_rollbacks",
            "How often this master saw that the store had come back older than it was",
            join="max",
        )
        self.fsck_violations = self._gauge(
            "tenure_store_fsck_violations", "Found by the last `tenure fsck` that asked this master"
        )
        self.fsck_timestamp_seconds = self._gauge(
            "tenure_store_fsck_timestamp_seconds", "When that was, as Unix time; 0 = never since this master's start"
        )

    def _store_server(self) -> None:
        self.store_info = self._gauge(
            "tenure_store_info",
            "1; the store's server, and what an acknowledgement means",
            ["server", "version", "durability"],
            join="each",
        )
        self.store_memory_bytes = self._gauge(
            "tenure_store_memory_bytes",
            "Memory of the store, by kind: used, max (0 = no limit). Of a cluster that of its fullest node",
            ["kind"],
        )
        self.store_aof_ok = self._gauge(
            "tenure_store_aof_ok", "1 while the append-only file can be written, everywhere"
        )
        self.store_aof_bytes = self._gauge(
            "tenure_store_aof_bytes",
            "Size of the append-only file, by kind: current, base (after the last rewrite). Sum of a cluster's nodes",
            ["kind"],
        )
        self.store_aof_rewrite_in_progress = self._gauge(
            "tenure_store_aof_rewrite_in_progress", "1 while a node rewrites its append-only file"
        )
        self.store_aof_rewrite_failed = self._gauge(
            "tenure_store_aof_rewrite_failed", "1 while the last rewrite of a node's append-only file has failed"
        )
        self.store_fsync_delayed = self._store_counter(
            "tenure_store_fsync_delayed", "Writes that waited for an fsync that was slow. Sum of a cluster's nodes"
        )
        self.store_fsync_pending = self._gauge(
            "tenure_store_fsync_pending", "Fsyncs that wait in the background. Sum of a cluster's nodes"
        )
        self.store_fork_seconds = self._gauge(
            "tenure_store_fork_seconds",
            "For how long the last fork held the server up. The slowest of a cluster's nodes",
        )
        self.store_clients = self._gauge("tenure_store_clients", "Connections. Sum of a cluster's nodes")
        self.store_replicas = self._gauge(
            "tenure_store_replicas", "Replicas that are connected. The fewest of any node"
        )

    def _begin_at_nought(self) -> None:
        """What has few labels is there from the start: the first of its kind is an increase, too.

        The first ones may come many at a time, and Prometheus sees only what a series grows by.
        """
        for cause in EXPIRY_CAUSES:
            self.leases_expired.labels(cause)
        for kind in OUTCOME_KINDS:
            self.run_seconds.labels(kind)
        for verdict in SUCCESS_VERDICTS:
            self.outcomes.labels("success", "", verdict)

    # ---- what is said of it ---------------------------------------------------------------------------------------

    def observe_script(self, script: str, seconds: float, items: int) -> None:
        """For the store's pipeline."""
        self.script_seconds.labels(script).observe(seconds)
        self.script_items.labels(script).inc(items)

    def observe_start(self, search: str, waited_seconds: float) -> None:
        """A task of the search was leased after waiting so long."""
        self.schedule_to_start_seconds.labels(self._searches.value(search)).observe(waited_seconds)

    def keep_searches(self, names: Collection[str]) -> None:
        """Only these keep labels of their own."""
        for name in self._searches.keep(names):
            self.schedule_to_start_seconds.remove(name)

    def show(self, metric: Gauge | StoreCounter, values: Mapping[tuple[str, ...], float]) -> None:
        """Set the metric for these labels and take it from all others. A scrape meanwhile never finds one of them
        missing."""
        for labels, value in values.items():
            metric.labels(*labels).set(value)
        for gone in self._shown.get(metric, set()).difference(values):
            metric.remove(*gone)
        self._shown[metric] = set(values)

    # ---- making them ----------------------------------------------------------------------------------------------

    def _gauge(self, name: str, text: str, labels: Collection[str] = (), *, join: Join = "max") -> Gauge:
        return self._joined(join, name, Gauge(name, text, labels, registry=self.registry))

    def _counter(self, name: str, text: str, labels: Collection[str] = (), *, join: Join = "sum") -> Counter:
        return self._joined(join, name, Counter(name, text, labels, registry=self.registry))

    def _store_counter(self, name: str, text: str, labels: Collection[str] = ()) -> StoreCounter:
        return self._joined("max", name, StoreCounter(name, text, labels, registry=self.registry))

    def _histogram(
        self, name: str, text: str, labels: Collection[str] = (), *, buckets: tuple[float, ...]
    ) -> Histogram:
        return self._joined("sum", name, Histogram(name, text, labels, registry=self.registry, buckets=buckets))

    def _joined(self, join: Join, name: str, metric: _M) -> _M:
        self.join[name] = join
        return metric
