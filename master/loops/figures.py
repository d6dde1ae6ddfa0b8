"""What the master exports of the store: read in each round of the sweeper, put into the metrics. Decides nothing.

Every master reads the same figures, so they are joined over masters by max. Labels are bounded by rules that all
masters agree on: the newest searches, requirements and labels by the alphabet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tenure.common.registry import OTHER
from tenure.common.spec import Requirements
from tenure.common.states import TaskState
from tenure.master.core.liveness import worker_status
from tenure.master.metrics import (
    REQUIREMENT_LABELS_MAX,
    SAVING_CAUSES,
    SEARCH_LABELS_MAX,
    WASTE_CAUSES,
    WORKER_LABELS_MAX,
    MasterMetrics,
)
from tenure.master.rpc.devices import capabilities_of
from tenure.master.store.looks import Queue
from tenure.master.store.records import ACCEPTS_CODE_LABEL, Overview, SearchView, WorkerView
from tenure.master.store.server_figures import ServerFigures

Values = dict[tuple[str, ...], float]

ANY = "any"
_GIB = 1 << 30
_MIB = 1 << 20


class StoreFigures:
    """Puts what was read into the metrics.

    Args:
        lease_ttl_ms: After which silence a worker counts as silent.
    """

    def __init__(self, metrics: MasterMetrics, lease_ttl_ms: int) -> None:
        self._metrics = metrics
        self._lease_ttl_ms = lease_ttl_ms
        # What had tasks waiting once is shown with 0 from then on: an absent series is not the same to an autoscaler.
        self._queues: set[tuple[str, str]] = set()

    def show_server(self, figures: ServerFigures, durability: str) -> None:
        """The store's server."""
        metrics = self._metrics
        metrics.show(metrics.store_info, {(figures.server, figures.version, durability): 1})
        metrics.store_memory_bytes.labels("used").set(figures.used_bytes)
        metrics.store_memory_bytes.labels("max").set(figures.max_bytes)
        metrics.store_aof_ok.set(figures.aof_healthy)
        metrics.store_aof_bytes.labels("current").set(figures.aof_bytes)
        metrics.store_aof_bytes.labels("base").set(figures.aof_base_bytes)
        metrics.store_aof_rewrite_in_progress.set(figures.rewrite_in_progress)
        metrics.store_aof_rewrite_failed.set(figures.rewrite_failed)
        metrics.store_fsync_delayed.set(figures.fsyncs_delayed)
        metrics.store_fsync_pending.set(figures.fsyncs_pending)
        metrics.store_fork_seconds.set(figures.fork_seconds)
        metrics.store_clients.set(figures.clients)
        metrics.store_replicas.set(figures.replicas)

    def show_searches(
        self, overviews: Sequence[Overview], queues: Sequence[Queue], classes: Mapping[str, Requirements]
    ) -> None:
        """Tasks, queues, leases, compute time and best results."""
        metrics = self._metrics
        metrics.leases.set(sum(overview.leases for overview in overviews))
        metrics.leases_due.set(sum(overview.leases_due for overview in overviews))
        counters: Values = defaultdict(float)
        for overview in overviews:
            for name, value in overview.counters.items():
                counters[(name,)] += value
        metrics.show(metrics.store_counters, counters)
        searches = [search for overview in overviews for search in overview.searches]
        # The newest keep their own label; old searches are done.
        searches.sort(key=lambda search: (-search.created_unix_ms, search.name))
        named = {search.name for search in searches[:SEARCH_LABELS_MAX]}
        metrics.keep_searches(named)
        labels = {search.name: search.name if search.name in named else OTHER for search in searches}
        self._show_tasks(searches, labels)
        self._show_queues(labels, queues, classes)
        self._show_compute(searches, labels)

    def _show_tasks(self, searches: Sequence[SearchView], labels: Mapping[str, str]) -> None:
        tasks: Values = defaultdict(float)
        best: Values = {}
        for search in searches:
            label = labels[search.name]
            for state in TaskState:
                tasks[label, state.value] += search.counts[state]
            if search.best_fitness is not None:
                best[(label,)] = max(best.get((label,), search.best_fitness), search.best_fitness)
        self._metrics.show(self._metrics.tasks, tasks)
        self._metrics.show(self._metrics.best_fitness, best)

    def _show_queues(
        self, labels: Mapping[str, str], queues: Sequence[Queue], classes: Mapping[str, Requirements]
    ) -> None:
        texts = {queue: requirements_text(classes.get(queue.requirement_class, Requirements())) for queue in queues}
        present = set(labels.values())
        shown = {(label, text) for label, text in self._queues if label in present}
        known = {text for _, text in shown} - {OTHER}
        kept = _first({*texts.values(), *known, ANY}, REQUIREMENT_LABELS_MAX, before_all=ANY)
        self._queues = {(label, text) for label, text in shown if text in {*kept, OTHER}}
        self._queues |= {(label, ANY) for label in present - {label for label, _ in self._queues}}
        depth: Values = dict.fromkeys(self._queues, 0)
        oldest: Values = dict.fromkeys(self._queues, 0)
        for queue in queues:
            if queue.search not in labels:
                continue  # it is newer than what was read of the searches
            pair = labels[queue.search], texts[queue] if texts[queue] in kept else OTHER
            self._queues.add(pair)
            depth[pair] = depth.get(pair, 0) + queue.tasks
            oldest[pair] = max(oldest.get(pair, 0), queue.oldest_wait_ms / 1000)
        self._metrics.show(self._metrics.queue_depth, depth)
        self._metrics.show(self._metrics.queue_oldest_seconds, oldest)

    def _show_compute(self, searches: Sequence[SearchView], labels: Mapping[str, str]) -> None:
        present = set(labels.values())
        # From 0 on, so that the first second of each shows in a rate.
        useful: Values = {(label,): 0 for label in present}
        saved: Values = {(label, cause): 0 for label in present for cause in SAVING_CAUSES}
        wasted: Values = {(label, cause): 0 for label in present for cause in WASTE_CAUSES}
        for search in searches:
            label = labels[search.name]
            useful[(label,)] += search.compute.useful_ms / 1000
            # Causes of a newer master of the same store are of no label here.
            _add_known(saved, label, search.compute.saved_ms)
            _add_known(wasted, label, search.compute.wasted_ms)
        self._metrics.show(self._metrics.compute_useful_seconds, useful)
        self._metrics.show(self._metrics.compute_saved_seconds, saved)
        self._metrics.show(self._metrics.compute_wasted_seconds, wasted)

    def show_workers(self, workers: Iterable[WorkerView]) -> None:
        """Workers, and the slots and GPUs of those that live."""
        counts: Values = defaultdict(float)
        slots: Values = {("busy",): 0, ("free",): 0}
        gpus: Values = {("busy",): 0, ("free",): 0}
        by_label: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for worker in workers:
            status = worker_status(
                seen_ms_ago=worker.seen_ms_ago,
                left=worker.fields.get("left") == "1",
                lease_ttl_ms=self._lease_ttl_ms,
            )
            counts[status, worker.fields.get("mode", "active")] += 1
            if status != "live":
                continue
            able = capabilities_of(worker)
            usable = max(0, int(worker.number("slots") - worker.number("slots_cordoned")))
            busy = min(usable, int(worker.number("slots_busy")))
            _add_slots(slots, gpus, (), (busy, usable - busy, able.gpus))
            for name, value in able.labels.items():
                by_label[f"{name}={value}" if value else name].append((busy, usable - busy, able.gpus))
        label_slots: Values = defaultdict(float)
        label_gpus: Values = defaultdict(float)
        kept = _first(by_label, WORKER_LABELS_MAX)
        for label, rows in by_label.items():
            for row in rows:
                _add_slots(label_slots, label_gpus, (label if label in kept else OTHER,), row)
        metrics = self._metrics
        metrics.show(metrics.workers, counts)
        metrics.show(metrics.slots, slots)
        metrics.show(metrics.gpus, gpus)
        metrics.show(metrics.label_slots, label_slots)
        metrics.show(metrics.label_gpus, label_gpus)


def requirements_text(requirements: Requirements) -> str:
    """A requirement class for people: ``any``, or for example ``gpus=2,memory=16GiB,labels=arch:a100``; ``code`` if the
    worker must let tasks name their evaluator."""
    parts = [f"gpus={requirements.gpus}"] if requirements.gpus else []
    if requirements.memory_bytes:
        size = requirements.memory_bytes
        parts.append(f"memory={size / _GIB:g}GiB" if size >= _GIB else f"memory={size / _MIB:g}MiB")
    labels = [f"{name}:{value}" if value else name for name, value in sorted(requirements.labels.items())]
    plain = [label for label in labels if not label.startswith(ACCEPTS_CODE_LABEL)]
    if plain:
        parts.append("labels=" + "+".join(plain))
    if len(plain) < len(labels):
        parts.append("code")
    return ",".join(parts) or ANY


def _first(texts: Iterable[str], most: int, *, before_all: str = "") -> set[str]:
    return set(sorted(texts, key=lambda text: (text != before_all, text))[:most])


def _add_known(values: Values, label: str, by_cause_ms: Mapping[str, int]) -> None:
    for cause, ms in by_cause_ms.items():
        if (label, cause) in values:
            values[label, cause] += ms / 1000


def _add_slots(slots: Values, gpus: Values, label: tuple[str, ...], row: tuple[int, int, int]) -> None:
    busy, free, gpus_per_slot = row
    for use, count in (("busy", busy), ("free", free)):
        slots[(*label, use)] += count
        gpus[(*label, use)] += count * gpus_per_slot
