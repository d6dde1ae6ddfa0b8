"""The sweeper: slow housekeeping. Retention, forgotten workers, searches whose cancellation was interrupted, and the
figures that are exported but that nothing is decided by."""

from __future__ import annotations

import asyncio
import random

import structlog

from tenure.common.errors import TenureError
from tenure.common.states import OPEN, TaskState
from tenure.master.core.liveness import worker_status
from tenure.master.metrics import SEARCH_LABELS_MAX, MasterMetrics
from tenure.master.settings import DAY_MS, MasterSettings
from tenure.master.store import Store
from tenure.master.store.records import Overview, SearchView
from tenure.master.store.tasks import TaskStore

log = structlog.get_logger()

INTERVAL_SECONDS = 5.0
# Batches of 100 forgotten a round, so that retention never keeps others waiting.
FORGET_BATCHES_MAX = 20
CANCEL_PAGE = 100
# Between its upload and the first task that names it, and from the last one's end on.
CODE_KEPT_MS = 3_600_000
# Submits are refused above this part of the store's maxmemory; heartbeats and results still pass.
MEMORY_SHED_FRACTION = 0.9


class Sweeper:
    """See the module. ``run`` until cancelled.

    Attributes:
        memory_short: Whether submits are to be shed.
        memory_left_bytes: What the store may grow by until they are; None without a limit, or before the first look.
    """

    def __init__(self, store: Store, settings: MasterSettings, metrics: MasterMetrics) -> None:
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self.memory_short = False
        self.memory_left_bytes: int | None = None

    async def run(self) -> None:
        """Sweep for ever; a store that is away only makes rounds fail."""
        while True:
            try:
                await self.sweep()
            except TenureError as error:
                log.debug("sweeper.interrupted", error=str(error))
            # Several masters sweep one store: not in step.
            await asyncio.sleep(INTERVAL_SECONDS * random.uniform(0.8, 1.2))

    async def sweep(self) -> None:
        """One round."""
        await self._check_memory()
        overviews = await self._store.searches.overview()
        self._export(overviews)
        await self._export_workers()
        for overview in overviews:
            for search in overview.searches:
                await self._forget(search)
                if search.status == "cancelled" and any(search.counts[state] for state in OPEN):
                    await cancel_open_tasks(self._store.tasks, search.name)
        for shard in range(self._store.keys.shards):
            while await self._store.tasks.forget_orphans(shard, self._settings.retention_ms):
                pass
            await self._store.code.forget(shard, min(CODE_KEPT_MS, self._settings.retention_ms))
        await self._store.workers.forget(DAY_MS)

    async def _check_memory(self) -> None:
        figures = await self._store.memory()
        short = figures.max_bytes > 0 and figures.used_bytes > MEMORY_SHED_FRACTION * figures.max_bytes
        if short and not self.memory_short:
            log.error("store.memory_short", used_bytes=figures.used_bytes, max_bytes=figures.max_bytes)
        self.memory_short = short
        room = int(MEMORY_SHED_FRACTION * figures.max_bytes) - figures.used_bytes
        self.memory_left_bytes = max(0, room) if figures.max_bytes > 0 else None
        self._metrics.store_memory_bytes.labels("used").set(figures.used_bytes)
        self._metrics.store_memory_bytes.labels("max").set(figures.max_bytes)
        self._metrics.store_aof_ok.set(figures.aof_healthy)
        if self._store.embedded is not None:
            self._metrics.store_restarts.set(self._store.embedded.restarts)

    async def _forget(self, search: SearchView) -> None:
        for _ in range(FORGET_BATCHES_MAX):
            count = await self._store.tasks.forget(
                search.name, self._settings.retention_tasks, self._settings.retention_ms
            )
            self._metrics.forgotten.inc(count)
            if count == 0:
                return

    def _export(self, overviews: list[Overview]) -> None:
        metrics = self._metrics
        metrics.leases.set(sum(overview.leases for overview in overviews))
        metrics.leases_due.set(sum(overview.leases_due for overview in overviews))
        for name in {name for overview in overviews for name in overview.counters}:
            metrics.store_counters.labels(name).set(sum(overview.counters.get(name, 0) for overview in overviews))
        searches = [search for overview in overviews for search in overview.searches]
        # The newest keep their own label: bounded cardinality, and old searches are done.
        searches.sort(key=lambda search: -search.created_unix_ms)
        oldest_of_rest = max((search.oldest_queued_ms or 0 for search in searches[SEARCH_LABELS_MAX:]), default=0)
        metrics.tasks.clear()
        metrics.queue_oldest_seconds.clear()
        for index, search in enumerate(searches):
            label = search.name if index < SEARCH_LABELS_MAX else "other"
            for state in TaskState:
                metrics.tasks.labels(label, state.value).inc(search.counts[state])
            oldest = search.oldest_queued_ms or 0 if index < SEARCH_LABELS_MAX else oldest_of_rest
            metrics.queue_oldest_seconds.labels(label, "any").set(oldest / 1000)

    async def _export_workers(self) -> None:
        self._metrics.workers.clear()
        slots = busy = 0.0
        for worker in await self._store.workers.find():
            status = worker_status(
                seen_ms_ago=worker.seen_ms_ago,
                left=worker.fields.get("left") == "1",
                lease_ttl_ms=self._settings.lease_ttl_ms,
            )
            self._metrics.workers.labels(status, worker.fields.get("mode", "active")).inc()
            if status == "live":
                slots += worker.number("slots") - worker.number("slots_cordoned")
                busy += worker.number("slots_busy")
        self._metrics.slots.labels("busy").set(busy)
        self._metrics.slots.labels("free").set(max(0.0, slots - busy))


async def cancel_open_tasks(tasks: TaskStore, search: str) -> int:
    """Cancel every task of a search that has not ended; returns how many were cancelled or asked to stop."""
    cursor, cancelled = "", 0
    while True:
        cursor, ids = await tasks.page(search, OPEN, cursor, CANCEL_PAGE)
        if ids:
            verdicts = await tasks.cancel(ids)
            cancelled += sum(verdict in ("ok", "cancel_requested") for verdict, _ in verdicts.values())
        if not cursor:
            return cancelled
