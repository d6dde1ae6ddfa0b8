"""The ticker: advances the lease clock, and with each tick lets the reaper and the promoter do what is due.

The lease clock moves only here. While no master ticks it, or the store is away, it stands still, and so no lease
expires for time in which nobody could have renewed it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from tenure.common.errors import TenureError
from tenure.common.limits import BATCH_TASKS_MAX
from tenure.master.core.reaping import Brake
from tenure.master.metrics import MasterMetrics
from tenure.master.settings import MasterSettings
from tenure.master.store import Store
from tenure.master.task_spans import tell_expired

log = structlog.get_logger()

# Batches a tick may take, so that a mass expiry or a wave of retries is spread over many ticks.
REAP_BATCHES_MAX = 5
PROMOTE_BATCHES_MAX = 50


class Ticker:
    """See the module. ``run`` until cancelled.

    Args:
        rolled_back: Called, with why, when the lease clock has gone back.

    Attributes:
        last_tick: When the last tick of all shards succeeded, on the monotonic clock; 0 before the first.
        last_turn: When the store last answered a call of the ticker, or failed to.
    """

    def __init__(
        self,
        store: Store,
        settings: MasterSettings,
        metrics: MasterMetrics,
        rolled_back: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._store = store
        self._interval = settings.tick_seconds
        self._cap_ms = round(2 * settings.tick_seconds * 1000)
        self._metrics = metrics
        self._rolled_back = rolled_back
        self._clocks_ms = [0] * store.keys.shards
        self._brakes = [Brake(hold_ms=settings.lease_ttl_ms) for _ in range(store.keys.shards)]
        self.last_tick = 0.0
        self._started = time.monotonic()
        metrics.lease_clock_lag_seconds.set_function(lambda: time.monotonic() - (self.last_tick or self._started))
        self.last_turn = time.monotonic()

    async def run(self) -> None:
        """Tick for ever; a store that is away only makes ticks fail."""
        while True:
            started = self.last_turn = time.monotonic()
            try:
                await self._find_all_shards()
                for shard in range(self._store.keys.shards):
                    await self._tick(shard)
                self.last_tick = time.monotonic()
                self._store.patience.store_found()
            except TenureError as error:
                log.warning("ticker.interrupted", error=str(error))
            await asyncio.sleep(max(0.0, self._interval - (time.monotonic() - started)))

    async def _find_all_shards(self) -> None:
        """Shards on several servers tick together or not at all. A renewal names leases of several shards, and fails
        with any of them: the clock of one must not go on while another is away."""
        if self._store.keys.shards > 1:
            await asyncio.gather(*(self._store.tasks.due(shard) for shard in range(self._store.keys.shards)))

    async def _tick(self, shard: int) -> None:
        clock_ms, _, skipped_ms = await self._store.tasks.tick(shard, self._cap_ms)
        self.last_turn = time.monotonic()
        if clock_ms < self._clocks_ms[shard]:
            self._rolled_back(f"the lease clock went back by {self._clocks_ms[shard] - clock_ms} ms")
        self._clocks_ms[shard] = clock_ms
        self._metrics.lease_clock_seconds.labels(f"{shard:x}").set(clock_ms / 1000)
        if skipped_ms:
            self._metrics.lease_clock_skipped_seconds.inc(skipped_ms / 1000)
            log.info("ticker.skipped", shard=shard, skipped_ms=skipped_ms, why="no master ticked, or the clock jumped")
        await self._reap(shard, clock_ms)
        for _ in range(PROMOTE_BATCHES_MAX):
            self.last_turn = time.monotonic()
            if await self._store.tasks.promote(shard, BATCH_TASKS_MAX) < BATCH_TASKS_MAX:
                break

    async def _reap(self, shard: int, clock_ms: int) -> None:
        brake = self._brakes[shard]
        for _ in range(REAP_BATCHES_MAX):
            due, leases, workers = await self._store.tasks.due(shard)
            self.last_turn = time.monotonic()
            was_on = brake.on
            count = brake.allowed(clock_ms=clock_ms, due=due, leases=leases, workers_due=workers)
            if brake.on and not was_on:
                log.error("reaper.paused", due=due, leases=leases, workers=workers, why="most leases would go at once")
            self._metrics.reaper_paused.set(any(each.on for each in self._brakes))
            if count == 0:
                return
            start_ns = time.time_ns()
            for lease in await self._store.tasks.expire(shard, count):
                self._metrics.leases_expired.labels(lease.cause).inc()
                fields = {"task": lease.task_id, "worker": lease.worker_id, "state": lease.state.value}
                known = lease.lease.log_fields() if lease.lease is not None else {}
                log.warning("task.expire", **fields, **known, cause=lease.cause)
                tell_expired(lease, start_ns)
