"""Which leases the store says a worker holds: asked when a worker comes back, to find those that never reached it.

A master that is killed between a claim and the message that carries it leaves a lease that nobody knows of. When its
worker says hello (to any master), what the store says it holds is compared with what it says it holds. A herd that
comes back after an outage shares its censuses: whoever asks while one is under way waits for the next.

There is no index of leases by worker: it would cost every claim and every end a write, for a question that is asked
once a connection. The store looks through all leases itself, a part at a time, and tells only of those asked for.
"""

from __future__ import annotations

import asyncio

from tenure.master.store import Store
from tenure.master.store.records import Lease

ByWorker = dict[str, list[Lease]]


class LeaseCensus:
    """Reads the leases of all who ask at the same time in one go."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: asyncio.Task[ByWorker] | None = None
        self._next: asyncio.Task[ByWorker] | None = None
        self._asking: set[str] = set()

    async def leases_of(self, worker_id: str) -> list[Lease]:
        """The worker's leases, by a census that began after this call.

        Raises:
            StoreUnavailable: The store is away; ask again.
        """
        self._asking.add(worker_id)
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._take(self._running))
        by_worker = await asyncio.shield(self._next)
        return by_worker.get(worker_id, [])

    async def _take(self, before: asyncio.Task[ByWorker] | None) -> ByWorker:
        if before is not None:
            await asyncio.wait([before])
        # From here on whoever asks must wait for another one.
        self._running, self._next = self._next, None
        asked, self._asking = self._asking, set()
        by_worker: ByWorker = {}
        for lease in await self._store.tasks.leases(asked):
            by_worker.setdefault(lease.worker_id, []).append(lease)
        return by_worker
