"""Many workers in one process: ``python bench/parts/herd_workers.py MASTER --workers 200 --slots 4``.

Each is the worker's own code (link, stream, holdings) over slots that only wait and a spool in memory. What happens to
them is told on standard output, one JSON line each: ``up`` (a master has welcomed one) and ``lost`` (a running
lease was revoked, or an outcome refused).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import sys
import time
from typing import Any

from tenure.common.logs import configure_logs
from tenure.proto import worker_pb2
from tenure.worker.code.fitting import Fitting
from tenure.worker.code.programs import Program, Programs
from tenure.worker.gpu.devices import SlotDevices
from tenure.worker.holdings import Holdings
from tenure.worker.leases import LeaseKey, key_of
from tenure.worker.link import Contact
from tenure.worker.metrics import Instruments
from tenure.worker.runs import Run, outcome_of
from tenure.worker.session import SessionLink
from tenure.worker.settings import load_settings
from tenure.worker.wire_words import verdict_name


def tell(**fields: Any) -> None:
    """A line to the process that measures."""
    sys.stdout.write(json.dumps({"time": time.monotonic(), **fields}) + "\n")
    sys.stdout.flush()


class MemorySpool:
    """A worker's spool without its disk: 200 workers don't share one."""

    def __init__(self) -> None:
        self._pending: dict[LeaseKey, worker_pb2.Outcome] = {}
        self.pending = lambda: list(self._pending.values())
        self.get = self._pending.get

    async def put(self, outcome: worker_pb2.Outcome) -> None:
        """Keep it until there is a verdict."""
        self._pending[key_of(outcome)] = outcome

    def forget(self, key: LeaseKey) -> None:
        """There is one."""
        self._pending.pop(key, None)

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, key: object) -> bool:
        return key in self._pending


class NoLogs:
    """Nothing is printed."""

    listener = None


class WaitingSlot:
    """A slot whose evaluations wait for the ``seconds`` that their task says."""

    idle_gap_seconds = None
    devices = SlotDevices()
    fitting = Fitting(Programs(Program("")))

    def __init__(self, index: int, holdings: Holdings, tasks: asyncio.TaskGroup) -> None:
        self.index = index
        self.run: Run | None = None
        self._holdings = holdings
        self._tasks = tasks

    @property
    def claimable(self) -> bool:
        """See worker/slots/slot.py."""
        return self.run is None

    def assign(self, run: Run) -> None:
        """See worker/slots/slot.py."""
        self.run = run
        self._tasks.create_task(self._carry_out(run))

    def withdraw(self, run: Run) -> bool:
        """See worker/slots/slot.py."""
        return False

    async def _carry_out(self, run: Run) -> None:
        stopped = asyncio.Event()
        run.start(None, stopped.set)
        self._holdings.run_started(self, run)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), float(run.request.config.extra["seconds"]))
        done = {"type": "done", "metrics": {"fitness": 0.5}, "detail": "", "architecture": ""}
        await self._holdings.run_ended(self, run, outcome_of(run, done, ""))
        self.run = None
        self._holdings.capacity_changed()


class HerdHoldings(Holdings):
    """A worker's holdings that tell of every lease they lose, and begin with one long one."""

    def claimable(self) -> int:
        """One, until the first is there: so each worker gets one of the long tasks."""
        return super().claimable() if self.runs else min(1, super().claimable())

    def revoke(self, revocation: worker_pb2.Revocation) -> None:
        """See Holdings."""
        if key_of(revocation) in self.runs:
            # Else its outcome was taken before the master died, and only the verdict never came.
            tell(event="lost", how=f"revoked: {revocation.reason}", task=revocation.task_id)
        super().revoke(revocation)

    def take_outcome_verdict(self, key: LeaseKey, verdict: worker_pb2.Verdict, *rest: Any) -> None:
        """See Holdings."""
        if verdict not in (worker_pb2.VERDICT_OK, worker_pb2.VERDICT_DUPLICATE):
            tell(event="lost", how=f"outcome refused: {verdict_name(verdict)}", task=key.task_id)
        super().take_outcome_verdict(key, verdict, *rest)


class ToldContact(Contact):
    """A contact that tells of every welcome."""

    def connected(self) -> None:
        """See Contact."""
        super().connected()
        tell(event="up")


def make_worker(master: str, number: int, slots: int, tasks: asyncio.TaskGroup) -> SessionLink:
    """One worker, but for its executors and its disk."""
    settings = load_settings(master=master, worker_id=f"worker-{number}", slots=slots)
    holdings = HerdHoldings(settings, Instruments(), MemorySpool(), [], NoLogs(), registers_checkpoints=True)
    registration = worker_pb2.RegisterRequest(
        worker_id=settings.worker_id,
        instance_id=f"{random.getrandbits(64):x}",
        slots=slots,
        dispatch=worker_pb2.DISPATCH_PULL,
    )
    link = SessionLink(settings, holdings, registration, worker_pb2.WorkerMetrics, lambda drain: None)
    link.contact = ToldContact()
    holdings.slots = [WaitingSlot(index, holdings, tasks) for index in range(slots)]
    holdings.link = link
    holdings.open = True
    return link


async def run_workers(master: str, count: int, slots: int) -> None:
    """Until killed, or one fails."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(make_worker(master, number, slots, group).run())


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("master", help="HOST:PORT")
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--slots", type=int, default=4)
    options = parser.parse_args()
    configure_logs("worker", "json", "error")
    # 200 workers in one process must not stop all at once for a collection, as 200 processes would not.
    gc.collect()
    gc.freeze()
    asyncio.run(run_workers(options.master, options.workers, options.slots))


if __name__ == "__main__":
    main()
