"""The sweeper: slow housekeeping. Retention, forgotten workers, searches whose cancellation was interrupted, and the
figures of the store that are exported (:mod:`tenure.master.loops.figures`)."""

from __future__ import annotations

import asyncio
import random

import structlog

from tenure.common.errors import TenureError
from tenure.common.states import OPEN
from tenure.master.loops.figures import StoreFigures
from tenure.master.metrics import MasterMetrics
from tenure.master.settings import DAY_MS, MasterSettings
from tenure.master.store import Store
from tenure.master.store.records import SearchView
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
        self._figures = StoreFigures(metrics, settings.lease_ttl_ms)
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
        await self._look_at_server()
        # The queues tell what waits.
        overviews = await self._store.searches.overview(with_waits=False)
        queues, classes = await self._store.looks.queues(), await self._store.searches.requirement_classes()
        self._figures.show_searches(overviews, queues, classes)
        self._figures.show_workers(await self._store.workers.find())
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

    async def _look_at_server(self) -> None:
        figures = await self._store.server_figures()
        self._figures.show_server(figures, self._store.durability)
        short = figures.max_bytes > 0 and figures.used_bytes > MEMORY_SHED_FRACTION * figures.max_bytes
        if short and not self.memory_short:
            log.error("store.memory_short", used_bytes=figures.used_bytes, max_bytes=figures.max_bytes)
        self.memory_short = short
        room = int(MEMORY_SHED_FRACTION * figures.max_bytes) - figures.used_bytes
        self.memory_left_bytes = max(0, room) if figures.max_bytes > 0 else None
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
