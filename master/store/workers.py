"""The worker registry: who has registered, was seen when, with which figures. Nothing about leases depends on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tenure.common.errors import UnknownWorker
from tenure.master.store.codec import pairs, text
from tenure.master.store.keys import Keys
from tenure.master.store.pipeline import Arguments, ScriptCalls
from tenure.master.store.records import WorkerView


class WorkerRegistry:
    """Workers, in a hash tag of their own."""

    def __init__(self, pipeline: ScriptCalls, keys: Keys) -> None:
        self._pipeline = pipeline
        self._keys = keys

    async def register(self, worker_id: str, instance_id: str, fields: Mapping[str, str]) -> tuple[str, str]:
        """The newer registration of an id wins: (mode, instance that was replaced or '')."""
        call = {"id": worker_id, "instance": instance_id, "fields": dict(fields)}
        _, mode, replaced = await self._pipeline.call("worker_register", self._keys.workers, json.dumps(call))
        return text(mode), text(replaced)

    async def heartbeat(self, worker_id: str, instance_id: str, fields: Mapping[str, str]) -> tuple[str, str]:
        """(OK, UNKNOWN or SUPERSEDED; mode)."""
        item = {"id": worker_id, "instance": instance_id, "fields": dict(fields)}
        verdict, mode = await self._pipeline.item("worker_heartbeat", self._keys.workers, item, _encode)
        return text(verdict), text(mode)

    async def set_mode(self, worker_id: str, mode: str) -> None:
        """active, cordoned or draining; raises UnknownWorker."""
        if await self._pipeline.call("worker_mode", self._keys.workers, worker_id, mode) != b"OK":
            raise unknown_worker(worker_id)

    async def leave(self, worker_id: str, instance_id: str) -> None:
        """The worker said goodbye."""
        await self._pipeline.call("worker_leave", self._keys.workers, worker_id, instance_id)

    async def forget(self, age_ms: int) -> int:
        """Delete at most 100 workers that were not seen for ``age_ms``."""
        return int(await self._pipeline.call("worker_leave", self._keys.workers, "", age_ms))

    async def find(self, *worker_ids: str) -> list[WorkerView]:
        """Those workers, or all, the longest unseen first; unknown ones are left out."""
        reply = await self._pipeline.call("worker_list", self._keys.workers, *worker_ids)
        return [WorkerView(text(worker), int(seen), pairs(flat)) for worker, seen, flat in reply]

    async def get(self, worker_id: str) -> WorkerView:
        """One worker; raises UnknownWorker."""
        found = await self.find(worker_id)
        if not found:
            raise unknown_worker(worker_id)
        return found[0]

    async def seen_legacy(self, worker_id: str) -> None:
        """A legacy worker is alive: its leases are judged by this."""
        for key in self._keys.clocks:
            await self._pipeline.call("legacy_seen", key, worker_id)


def unknown_worker(worker_id: str) -> UnknownWorker:
    """For an id that no worker has registered."""
    return UnknownWorker(
        "no worker of this id has registered",
        field="worker_id",
        given=worker_id,
        expected="`tenure workers list --all` shows all; a worker must call RegisterWorker first",
    )


def _encode(items: Sequence[object]) -> Arguments:
    return [json.dumps(items)]
