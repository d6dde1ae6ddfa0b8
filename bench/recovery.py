#!/usr/bin/env python3
"""How long it takes until things go on after a fault, at default settings: lease 30 s, heartbeat 10 s, grace 2 s.

One real master with its embedded store, two real workers with one slot each, and evaluations that only wait. Both
workers are connected and idle before each strike, so that no recovery waits for a free slot.

    worker        kill -9 of a worker and its executor   until its task runs on the other worker
    cancel        a running task is cancelled            until its evaluation sees context.should_stop
    executor      kill -9 of an executor                 until its task runs again
    master        kill -9 of the master and its store,   until the next task that is claimed runs: from the kill,
                  started again at once                  and from when the new master served
    store         kill -9 of the store under the master  until the next task that is claimed runs

Times are taken where things happen: an evaluation writes down when it starts and when it sees that it is to stop. The
evaluations here look every 5 ms.

Examples:
    bench/recovery.py                              # 5 rounds of each: a minute and a half
    bench/recovery.py --rounds 20                  # for figures
    bench/recovery.py --faults cancel executor
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from parts.figures import LISTEN, percentile, progress

# The tests know how to start, kill and restart a master and workers.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from cluster import Cluster
from processes import eventually

DEADLINE_SECONDS = 120.0
LONG = {"seconds": "3600", "report": "0"}
SHORT = {"seconds": "0.05", "report": "0"}
BACKLOG = 150
# So many have run before a master or a store is killed in the middle of them.
WARM_UP = 5


class Scene:
    """The cluster, and what each round needs of it."""

    def __init__(self, root: Path) -> None:
        # None: as by default.
        self.cluster = Cluster(root, listen=LISTEN, lease_ttl_seconds=None, heartbeat_seconds=None, log_level=None)
        self._searches = 0

    async def add_worker(self, name: str) -> None:
        """One that is ready, at default settings."""
        await self.cluster.add_worker(name, stop_grace_seconds=None, drain_grace_seconds=None, log_level=None)

    async def submit(self, count: int, extra: dict[str, str]) -> list[str]:
        """Tasks of a search of their own; their ids."""
        self._searches += 1
        return await self.cluster.submit(f"round-{self._searches}", [str(key) for key in range(count)], extra)

    async def run_one(self) -> dict[str, Any]:
        """A long task that has just started: its journal's line."""
        (task_id,) = await self.submit(1, LONG)
        return (await self.journaled("start", task_id, 1))[0]

    async def journaled(self, event: str, task_id: str | None, count: int) -> list[dict[str, Any]]:
        """The first ``count`` such lines, once they are there."""
        what = f"{count} × {event} of {task_id or 'any task'}"
        lines: list[dict[str, Any]] = await eventually(
            lambda: len(found := self.cluster.journal(event, task_id)) >= count and found[:count],
            DEADLINE_SECONDS,
            what,
        )
        return lines

    async def holder(self, task_id: str) -> str:
        """The worker that holds the task, or held it last."""
        return str((await self.cluster.records([task_id]))[task_id].worker_id)

    async def cancel(self, task_ids: Sequence[str]) -> None:
        """Cancel them, and wait until they have ended."""
        for start in range(0, len(task_ids), 100):
            await asyncio.to_thread(self.cluster.client.cancel_tasks, task_ids[start : start + 100])
        for search in {record.search for record in (await self.cluster.records(task_ids)).values()}:
            await self.cluster.all_ended(search, DEADLINE_SECONDS)

    async def settle(self) -> None:
        """Until both workers are connected and idle: each has started a task, and they are gone again."""
        self.cluster.root.joinpath("journal.jsonl").unlink(missing_ok=True)
        task_ids = await self.submit(2, LONG)
        await self.journaled("start", None, 2)
        await self.cancel(task_ids)
        self.cluster.root.joinpath("journal.jsonl").unlink()


# ---- the faults: each strikes once and returns seconds, by what was measured -----------------------------------------


async def kill_worker(scene: Scene) -> dict[str, float]:
    """Supervisor and executor, at the same moment."""
    task_id = (await scene.run_one())["task_id"]
    name = await scene.holder(task_id)
    victim = scene.cluster.workers[name]
    executors = victim.executors()
    killed = time.monotonic()
    os.killpg(victim.pid, signal.SIGKILL)
    for executor in executors:
        # Those die with their worker by themselves, too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(executor.pid, signal.SIGKILL)
    again = (await scene.journaled("start", task_id, 2))[1]
    if await scene.holder(task_id) == name:
        raise SystemExit(f"{task_id} runs on the worker that was killed")
    await scene.cancel([task_id])
    await victim.destroy()
    await scene.add_worker(name)
    return {"worker": again["time"] - killed}


async def cancel(scene: Scene) -> dict[str, float]:
    """By a client."""
    task_id = (await scene.run_one())["task_id"]
    cancelled = time.monotonic()
    await scene.cancel([task_id])
    stopped = (await scene.journaled("stopped", task_id, 1))[0]
    return {"cancel": stopped["time"] - cancelled}


async def kill_executor(scene: Scene) -> dict[str, float]:
    """Its supervisor lives."""
    start = await scene.run_one()
    killed = time.monotonic()
    os.kill(start["pid"], signal.SIGKILL)
    again = (await scene.journaled("start", start["task_id"], 2))[1]
    await scene.cancel([start["task_id"]])
    return {"executor": again["time"] - killed}


async def kill_master(scene: Scene) -> dict[str, float]:
    """With its store; started again on the same port and data directory."""
    task_ids = await under_way(scene)
    killed, killed_unix_ms = time.monotonic(), time.time() * 1000
    await asyncio.to_thread(scene.cluster.master.kill)
    await asyncio.to_thread(scene.cluster.master.restart)
    served = time.monotonic()
    started = await next_start(scene, killed, killed_unix_ms)
    await scene.cancel(task_ids)
    return {"master, from the kill": started - killed, "master, since it serves again": max(0.0, started - served)}


async def kill_store(scene: Scene) -> dict[str, float]:
    """Its master starts it again."""
    task_ids = await under_way(scene)
    pid = await asyncio.to_thread(lambda: scene.cluster.master.store_pid)
    killed, killed_unix_ms = time.monotonic(), time.time() * 1000
    os.kill(pid, signal.SIGKILL)
    started = await next_start(scene, killed, killed_unix_ms)
    await scene.cancel(task_ids)
    return {"store": started - killed}


async def under_way(scene: Scene) -> list[str]:
    """A backlog of short tasks that both workers are busy with; its ids."""
    task_ids = await scene.submit(BACKLOG, SHORT)
    await scene.journaled("start", None, WARM_UP)
    return task_ids


async def next_start(scene: Scene, since: float, since_unix_ms: float) -> float:
    """When the first task started whose claim came after that moment, by the machine's monotonic clock. A task that was
    on its way then may start without anybody's recovery."""

    async def claimed_later() -> float | None:
        lines = [line for line in scene.cluster.journal("start") if line["time"] > since]
        records = await scene.cluster.records([line["task_id"] for line in lines[:100]])
        return next((line["time"] for line in lines if records[line["task_id"]].leased_unix_ms > since_unix_ms), None)

    started: float = await eventually(claimed_later, DEADLINE_SECONDS, "the next claim")
    return started


FAULTS: dict[str, Callable[[Scene], Awaitable[dict[str, float]]]] = {
    "worker": kill_worker,
    "cancel": cancel,
    "executor": kill_executor,
    "master": kill_master,
    "store": kill_store,
}


async def measure(faults: Sequence[str], rounds: int, root: Path) -> dict[str, list[float]]:
    """Seconds of each round, by what was measured."""
    scene = Scene(root)
    measured: dict[str, list[float]] = {}
    try:
        await asyncio.gather(scene.add_worker("worker-1"), scene.add_worker("worker-2"))
        for fault in faults:
            for number in range(1, rounds + 1):
                await scene.settle()
                for name, seconds in (await FAULTS[fault](scene)).items():
                    measured.setdefault(name, []).append(seconds)
                    progress(f"{fault} {number}: {name}: {seconds:.3f} s")
    finally:
        await scene.cluster.destroy()
    return measured


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each fault (5)")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="only these (all)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: must be at least 1")
    # The client tells of every outage; here they are on purpose.
    logging.getLogger("tenure.client").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="tenure-recovery-") as scratch:
        measured = asyncio.run(measure(options.faults, options.rounds, Path(scratch)))
    print(f"{'fault':<32} {'count':>6} {'median s':>9} {'p90 s':>9} {'worst s':>9}")
    for name, seconds in measured.items():
        median, p90 = statistics.median(seconds), percentile(seconds, 90)
        print(f"{name:<32} {len(seconds):>6} {median:>9.3f} {p90:>9.3f} {max(seconds):>9.3f}")


if __name__ == "__main__":
    main()
