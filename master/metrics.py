"""Every metric of the master, in one place. Names carry their units; labels are bounded.

Label values: ``state`` by the state table, ``search`` by the first 200 searches (the rest as ``other``), ``script`` and
``method`` by the code, ``code`` by gRPC.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from tenure import __version__

SEARCH_LABELS_MAX = 200
_FAST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class MasterMetrics:
    """One registry with everything the master exports."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._tasks_and_leases()
        self._workers()
        self._calls()
        self._store()
        self._gauge("tenure_master_info", "Build of this master", ["version"]).labels(__version__).set(1)

    def _tasks_and_leases(self) -> None:
        self.tasks = self._gauge("tenure_tasks", "Tasks by search and state", ["search", "state"])
        self.oldest_queued_seconds = self._gauge(
            "tenure_oldest_queued_seconds", "Age of the oldest QUEUED task of a search; 0 when none", ["search"]
        )
        self.transitions = self._counter(
            "tenure_transitions", "Transitions seen in the event stream", ["transition", "state"]
        )
        self.outcomes = self._counter("tenure_outcomes", "Outcomes delivered to this master", ["kind", "verdict"])
        self.leases = self._gauge("tenure_leases_live", "Tasks under a lease")
        self.leases_due = self._gauge("tenure_leases_due", "Leases that ran out and wait for the reaper")
        self.leases_expired = self._counter("tenure_leases_expired", "Leases this master took back")
        self.renewals = self._counter("tenure_lease_renewals", "Lease renewals by verdict", ["verdict"])
        self.renewal_lag_seconds = self._histogram(
            "tenure_lease_renewal_lag_seconds",
            "Time between two renewals of one lease, above the heartbeat interval",
            buckets=(0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 300),
        )
        self.lease_clock_seconds = self._gauge("tenure_lease_clock_seconds", "The lease clock", ["shard"])
        self.lease_clock_skipped_seconds = self._counter(
            "tenure_lease_clock_skipped_seconds", "Time that did not count: outages and jumps of the clock"
        )
        self.reaper_paused = self._gauge(
            "tenure_reaper_paused", "1 while reaping waits because most leases would expire at once"
        )
        self.checkpoints = self._counter("tenure_checkpoints_registered", "Checkpoint registrations", ["verdict"])
        self.store_counters = self._gauge(
            "tenure_store_counter", "Counters kept in the store since it was made", ["name"]
        )

    def _workers(self) -> None:
        self.workers = self._gauge("tenure_workers", "Registered workers by status and mode", ["status", "mode"])
        self.worker_slots = self._gauge("tenure_worker_slots", "Slots of live workers", ["use"])
        self.sessions = self._gauge("tenure_sessions", "Open session streams of this master")
        self.heartbeats = self._counter("tenure_heartbeats", "Heartbeats by way and verdict", ["way", "verdict"])
        self.waiting = self._gauge("tenure_waiting_slots", "Free slots that wait for a task at this master")
        self.pushes = self._counter("tenure_pushes", "Evaluate calls to push workers by their end", ["end"])

    def _calls(self) -> None:
        self.rpc_seconds = self._histogram(
            "tenure_rpc_seconds", "Duration of unary calls", ["method", "code"], buckets=_FAST_SECONDS
        )
        self.watchers = self._gauge("tenure_watchers", "Open watches")
        self.claim_seconds = self._histogram(
            "tenure_claim_seconds", "From wanting to claim until granted or not", buckets=_FAST_SECONDS
        )

    def _store(self) -> None:
        self.script_seconds = self._histogram(
            "tenure_store_script_seconds", "Round trip that carried a script", ["script"], buckets=_FAST_SECONDS
        )
        self.script_items = self._counter("tenure_store_script_items", "Items that scripts carried", ["script"])
        self.store_up = self._gauge("tenure_store_up", "1 while the store answers")
        self.store_memory_bytes = self._gauge("tenure_store_memory_bytes", "Memory of the store", ["kind"])
        self.store_aof_ok = self._gauge("tenure_store_aof_ok", "1 while the append-only file can be written")
        self.store_restarts = self._gauge("tenure_store_restarts", "How often the embedded server was started again")
        self.store_rollbacks = self._counter(
            "tenure_store_rollbacks", "How often this master saw that the store had come back older than it was"
        )
        self.fsck_violations = self._gauge(
            "tenure_store_fsck_violations", "Found by the last `tenure fsck` that asked this master"
        )
        self.forgotten = self._counter("tenure_tasks_forgotten", "Ended tasks deleted by retention")

    def observe_script(self, script: str, seconds: float, items: int) -> None:
        """For the store's pipeline."""
        self.script_seconds.labels(script).observe(seconds)
        self.script_items.labels(script).inc(items)

    def _gauge(self, name: str, text: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(name, text, labels or [], registry=self.registry)

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(name, text, labels or [], registry=self.registry)

    def _histogram(
        self, name: str, text: str, labels: list[str] | None = None, *, buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(name, text, labels or [], registry=self.registry, buckets=buckets)
