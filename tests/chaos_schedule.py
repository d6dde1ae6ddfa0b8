"""A seeded schedule of faults on a real cluster, its history, and what must hold when it is over."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cluster import Cluster
from processes import eventually
from worker_process import is_alive

SLOTS = 2
WORKERS = 3


@dataclass
class Chaos:
    """Strikes a cluster until the schedule is done, then heals it.

    Attributes:
        history: (seconds since the start, what happened), printed when an invariant breaks.
        strikes: How often each kind of fault struck.
        kills: How many leases may have been lost to it: an upper bound for the losses that tasks may show.
    """

    cluster: Cluster
    seed: int
    history: list[tuple[float, str]] = field(default_factory=list)
    strikes: Counter[str] = field(default_factory=Counter)
    kills: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._started = time.monotonic()
        self._born = 0

    async def run(self, faults: int) -> None:
        """Strike ``faults`` times, then make everything well again."""
        kinds = [
            self._kill_worker,
            self._kill_executor,
            self._pause_worker,
            self._drain_worker,
            self._kill_master,
            self._stop_master,
            self._kill_store,
            self._kill_store_and_worker,
        ]
        for _ in range(faults):
            await asyncio.sleep(self._random.uniform(0.2, 1.5))
            kind = self._random.choice(kinds)
            name = kind.__name__.removeprefix("_")
            self.strikes[name] += 1
            self._note(f"strike {name}")
            await kind()
        self._note("healed")

    async def add_worker(self) -> None:
        """One more, with a name that was never used."""
        self._born += 1
        await self.cluster.add_worker(f"w{self._born}", slots=SLOTS)

    def story(self) -> str:
        """What happened, and how to have it again."""
        lines = [f"{seconds:7.2f} s  {what}" for seconds, what in self.history]
        replay = f"replay: TENURE_CHAOS_SEEDS={self.seed} make chaos ARGS='tests/chaos/test_chaos.py'"
        return "\n".join([*lines, f"strikes: {dict(self.strikes)}", replay])

    def _note(self, what: str) -> None:
        self.history.append((time.monotonic() - self._started, what))

    def _living(self) -> Any:
        alive = [name for name, each in self.cluster.workers.items() if each.returncode is None]
        return self.cluster.workers[self._random.choice(sorted(alive))]

    async def _kill_worker(self) -> None:
        worker = self._living()
        self.kills += SLOTS
        worker.signal(signal.SIGKILL)
        await worker.wait()
        await self.add_worker()

    async def _kill_executor(self) -> None:
        executors = self._living().executors()
        if executors:
            self.kills += 1
            self._random.choice(executors).kill()

    async def _pause_worker(self) -> None:
        worker = self._living()
        seconds = self._random.choice([0.3, 1.0, 3.0])
        # A pause is felt as silence, not as a broken stream: beyond the lease's time it costs the lease.
        self.kills += SLOTS
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        worker.signal(signal.SIGCONT)

    async def _drain_worker(self) -> None:
        worker = self._living()
        worker.signal(signal.SIGTERM)
        await self.add_worker()
        assert await worker.wait(60) == 0, worker.log_text()[-3000:]

    async def _kill_master(self) -> None:
        await asyncio.to_thread(self.cluster.master.kill)
        await asyncio.sleep(self._random.choice([0.0, 0.5, 5.0]))
        await asyncio.to_thread(self.cluster.master.restart)

    async def _stop_master(self) -> None:
        assert await asyncio.to_thread(self.cluster.master.terminate) == 0
        await asyncio.to_thread(self.cluster.master.restart)

    async def _kill_store(self) -> None:
        pid = self.cluster.master.store_pid
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not is_alive(pid) and self.cluster.master.store_pid != pid, what="a new store")

    async def _kill_store_and_worker(self) -> None:
        os.kill(self.cluster.master.store_pid, signal.SIGKILL)
        await self._kill_worker()


async def check_invariants(chaos: Chaos, task_ids: list[str]) -> None:
    """After healing: everything ended, once, and nobody's budget was charged for what they didn't do."""
    cluster = chaos.cluster
    await cluster.all_ended("chaos", 120)
    records = await cluster.records(task_ids)
    story = chaos.story()
    assert set(records) == set(task_ids), f"I1: acknowledged tasks are gone\n{story}"
    assert {record.state for record in records.values()} == {"SUCCEEDED"}, f"I8: not all succeeded\n{story}"
    for record in records.values():
        outcomes = Counter(each.outcome for each in record.attempt_records)
        assert outcomes["success"] == 1, f"I2: {record.task_id} has {outcomes}\n{story}"
        epochs = [each.epoch for each in record.attempt_records]
        assert epochs == sorted(set(epochs)), f"I3: {record.task_id} has epochs {epochs}\n{story}"
        assert record.attempts == 0, f"I5: {record.task_id} burned an attempt\n{story}"
    losses = sum(record.losses for record in records.values())
    assert losses <= chaos.kills, f"I5: {losses} losses from at most {chaos.kills} lost leases\n{story}"
    assert await cluster.fsck() == [], story
    assert_progress_is_kept(cluster, task_ids, story)


def assert_progress_is_kept(cluster: Cluster, task_ids: list[str], story: str) -> None:
    """A run starts at a step that an earlier run of its task has saved, never at one that nobody reached."""
    for task_id in task_ids:
        reached = 0
        for line in cluster.journal(task_id=task_id):
            if line["event"] == "start" and line["resumed_from"] > 0:
                assert line["resumed_from"] <= reached, f"{task_id} resumed from the future\n{story}"
            if line["event"] == "step":
                reached = max(reached, line["step"])
