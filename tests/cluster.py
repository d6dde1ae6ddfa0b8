"""A whole Tenure for end-to-end and chaos tests: a real master, real workers, the SDK as their client.

The client blocks, so tests call it by :func:`asyncio.to_thread`.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluators import read_journal
from processes import MasterProcess, eventually, start_master
from worker_process import WorkerProcess

from tenure.client import Client

ARCHITECTURE = {"nodes": [{"id": "out", "operation": "flatten"}], "edges": []}
# An outage of this length is longer than the lease below: without a lease clock it would cost every lease.
LEASE_SECONDS = 4.0
HEARTBEAT_SECONDS = 1.0


class Cluster:
    """One master on an embedded store, and workers that share a checkpoint directory and a journal."""

    def __init__(self, root: Path, **master_settings: Any) -> None:
        self.root = root
        self.master: MasterProcess = start_master(
            root / "master",
            lease_ttl_seconds=master_settings.pop("lease_ttl_seconds", LEASE_SECONDS),
            heartbeat_seconds=master_settings.pop("heartbeat_seconds", HEARTBEAT_SECONDS),
            **master_settings,
        )
        self.workers: dict[str, WorkerProcess] = {}
        self.client = Client(self.master.address, timeout_seconds=120)

    async def add_worker(self, name: str, **settings: Any) -> WorkerProcess:
        """Start a worker and wait until it serves and the master has heard it, which can be later."""
        worker = WorkerProcess(self.root, name)
        self.workers[name] = worker
        await worker.start(self.master.address, **settings)
        # By which of the two it comes depends on its dispatch.
        events = ("session.up", "worker.register")

        def is_heard() -> bool:
            return any(self.master.logged(event, worker=name) for event in events)

        await eventually(is_heard, what=f"{name} at its master")
        return worker

    async def submit(self, search: str, keys: Sequence[str], extra: Mapping[str, str], **more: Any) -> list[str]:
        """Submit tasks for tests/evaluators.py, with ``more`` of what a task can say; returns their ids."""

        def send() -> list[str]:
            handles = self.client.search(search).submit_many(
                {"architecture": ARCHITECTURE, "config": {"extra": dict(extra)}, "key": key, **more} for key in keys
            )
            return [handle.task_id for handle in handles]

        return await asyncio.to_thread(send)

    async def records(self, task_ids: Sequence[str]) -> dict[str, Any]:
        """Tasks with their attempt records, by id."""
        return await asyncio.to_thread(self.client.get_tasks, task_ids, full=True)

    async def all_ended(self, search: str, seconds: float = 120) -> None:
        """Wait until every task of the search has ended."""
        await asyncio.to_thread(self.client.search(search).wait, seconds)

    async def counters(self) -> dict[str, int]:
        """The store's counters: expired leases, late successes, refused stale writes, …"""
        return dict((await asyncio.to_thread(self.client.stats)).counters)

    async def fsck(self) -> list[str]:
        """Violations; none, one hopes."""
        return list((await asyncio.to_thread(self.client.fsck)).violations)

    def journal(self, event: str | None = None, task_id: str | None = None) -> list[dict[str, Any]]:
        """What the evaluations of all workers wrote."""
        return read_journal(self.root / "journal.jsonl", event=event, task_id=task_id)

    def starts(self) -> Counter[str]:
        """How often each task's evaluation was started."""
        return Counter(line["task_id"] for line in self.journal("start"))

    async def destroy(self) -> None:
        """End everything, whatever state it is in."""
        await asyncio.to_thread(self.client.close)
        for worker in self.workers.values():
            await worker.destroy()
        self.master.remove()

    def explain(self) -> str:
        """The ends of all logs, for a test that failed."""
        logs = {"master": self.master.log_text(), **{name: each.log_text() for name, each in self.workers.items()}}
        return json.dumps({name: text[-2000:] for name, text in logs.items()}, indent=1)
