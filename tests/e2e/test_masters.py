"""Three masters on one store, killed and started again in the middle of a search, never all at once.

Workers and the search program are given all three addresses and see to the rest themselves.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_asyncio
from cluster import ARCHITECTURE, HEARTBEAT_SECONDS, LEASE_SECONDS, Cluster
from processes import MasterProcess, eventually, start_master
from store_server import StoreServer
from worker_process import WorkerProcess

from tenure.client import Client

MASTERS = 3
# Each round kills every master once, in an order of chance.
ROUNDS = int(os.environ.get("TENURE_TEST_MASTERS_ROUNDS", "2"))
SEEDS = [int(seed) for seed in os.environ.get("TENURE_TEST_MASTERS_SEEDS", "1").split(",")]
# Submitted and not ended, at most: more than the workers have slots.
OPEN_TASKS = 6
TASKS_MIN = 30


class ManyMasters(Cluster):
    """A cluster with more masters than one, all on a store of its own that outlives them."""

    def __init__(self, root: Path) -> None:
        self.server = StoreServer(root / "store").start()
        super().__init__(root, store=self.server.url, data_dir=None)
        with ThreadPoolExecutor(MASTERS - 1) as pool:
            self.masters = [self.master, *pool.map(self._start_master, range(2, MASTERS + 1))]
        self.addresses = ",".join(master.address for master in self.masters)
        self.client.close()
        self.client = Client(self.addresses, timeout_seconds=120)

    def _start_master(self, number: int) -> MasterProcess:
        return start_master(
            self.root / f"master-{number}",
            store=self.server.url,
            data_dir=None,
            lease_ttl_seconds=LEASE_SECONDS,
            heartbeat_seconds=HEARTBEAT_SECONDS,
        )

    async def add_workers(self) -> None:
        """Two, with three slots together, that know every master."""
        for name, slots in (("one", 1), ("two", 2)):
            self.workers[name] = WorkerProcess(self.root, name)
            await self.workers[name].start(self.addresses, slots=slots)

    def masters_of(self, name: str) -> list[str]:
        """The addresses at which the worker had a session, in order."""
        return [line["master"] for line in self.workers[name].log_lines("session.up")]

    async def destroy(self) -> None:
        await super().destroy()
        for master in self.masters:
            master.remove()
        self.server.remove()

    def explain(self) -> str:
        others = "\n".join(master.log_text()[-2000:] for master in self.masters[1:])
        return f"{super().explain()}\n{others}"


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ManyMasters]:
    made = await asyncio.to_thread(ManyMasters, tmp_path)
    try:
        yield made
    finally:
        await made.destroy()


class SearchProgram:
    """What a search does, as long as masters die: submit, wait for a result, submit the next.

    Attributes:
        submitted: The ids of what was submitted, in order.
        returned: The ids of what came back, each as often as it did.
        struck: Set when it may come to an end.
    """

    def __init__(self, client: Client) -> None:
        self.submitted: list[str] = []
        self.returned: list[str] = []
        self.struck = threading.Event()
        self._search = client.search("search")

    async def goes_on(self) -> None:
        """One result more, and what is submitted upon it."""
        submitted, returned = len(self.submitted), len(self.returned)
        await eventually(lambda: len(self.submitted) > submitted and len(self.returned) > returned, 60)

    def run(self) -> None:
        """Until nothing is open any more; blocks."""
        config = {"extra": {"steps": "4", "seconds": "0.4"}}
        waiting = deque[str]()
        while not self.struck.is_set() or len(self.submitted) < TASKS_MIN:
            task = self._search.submit(ARCHITECTURE, config, key=str(len(self.submitted)))
            self.submitted.append(task.task_id)
            waiting.append(task.task_id)
            if len(waiting) == OPEN_TASKS:
                self.returned.append(self._search.result(waiting.popleft(), timeout=60).task_id)
        for task in self._search.as_completed(map(self._search.handle, waiting), timeout=60):
            self.returned.append(task.task_id)


async def journal_grows(cluster: Cluster, lines: int) -> None:
    """The evaluations go on: what a seed's moments are counted in."""
    before = len(cluster.journal())
    await eventually(lambda: len(cluster.journal()) >= before + lines, 60, f"{lines} more lines in the journal")


async def strike(cluster: ManyMasters, program: SearchProgram, chance: random.Random) -> None:
    """Kill every master ``ROUNDS`` times. While two are down the third serves alone for a while."""
    down: deque[MasterProcess] = deque()
    for _ in range(ROUNDS):
        for victim in chance.sample(cluster.masters, MASTERS):
            await journal_grows(cluster, chance.randint(1, 8))
            if victim in down:
                down.remove(victim)
                await asyncio.to_thread(victim.restart)
            victim.kill()
            down.append(victim)
            if len(down) == MASTERS - 1:
                await program.goes_on()
                await journal_grows(cluster, chance.randint(1, 8))
                await asyncio.to_thread(down.popleft().restart)


@pytest.mark.parametrize("seed", SEEDS)
async def test_masters_killed_in_turn_cost_nothing(cluster: ManyMasters, seed: int) -> None:
    await cluster.add_workers()
    program = SearchProgram(cluster.client)
    running = asyncio.create_task(asyncio.to_thread(program.run))
    try:
        await strike(cluster, program, random.Random(seed))
    finally:
        program.struck.set()
        await running

    submitted = program.submitted
    assert sorted(program.returned) == sorted(submitted)
    assert len(set(submitted)) == len(submitted)
    records = await cluster.records(submitted)
    assert records.keys() == set(submitted)
    status = await asyncio.to_thread(cluster.client.search("search").status)
    assert (status.total, status.open) == (len(submitted), 0)
    assert {(record.state, record.attempts, record.losses) for record in records.values()} == {("SUCCEEDED", 0, 0)}, (
        cluster.explain()
    )
    # A lease that was given by a master that died before it could tell is given again: its epoch is 2, its start the
    # first.
    assert cluster.starts() == dict.fromkeys(submitted, 1)
    counters = await cluster.counters()
    assert (counters.get("leases_expired", 0), counters.get("late_accepted", 0)) == (0, 0)
    assert await cluster.fsck() == []
    for name in cluster.workers:
        # Else nothing failed over, and the test showed nothing.
        assert len(set(cluster.masters_of(name))) > 1, (name, cluster.masters_of(name))
