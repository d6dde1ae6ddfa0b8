"""The loop of a push worker ends when it is told to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from tenure.master.loops.push_worker import PushWorker
from tenure.master.rpc.workers import PUSH
from tenure.master.store.records import WorkerView


async def get(worker_id: str) -> WorkerView:
    return WorkerView(worker_id=worker_id, fields={"dispatch": PUSH, "mode": "draining"}, seen_ms_ago=0)


@pytest.mark.parametrize("turns", range(6))
async def test_it_ends_though_something_has_just_happened(turns: int) -> None:
    """The end may come in the very turn in which it is woken."""
    settings = SimpleNamespace(lease_ttl_seconds=30.0)
    master = SimpleNamespace(settings=settings, store=SimpleNamespace(workers=SimpleNamespace(get=get)))
    worker = PushWorker(master, "w", {})  # type: ignore[arg-type]
    worker.note_alive()
    for _ in range(10):
        await asyncio.sleep(0)
    worker.note_change()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await worker.close()
