"""Masters, store and network as one: what they do by themselves as virtual time goes on, and their outages."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import redis

from simulation.clock import VirtualClock
from simulation.ledger import Ledger
from simulation.masters import SimulatedMaster
from simulation.options import Options
from simulation.runs import Run
from simulation.world import REQUIREMENTS
from tenure.common.limits import BATCH_TASKS_MAX
from tenure.common.states import TaskState
from tenure.master.settings import MasterSettings
from tenure.master.store import Store
from tenure.master.store.codec import task_event, text
from tenure.master.store.records import CheckpointRecord, Verdict, requirement_class

TICK_MS = 500
EVENTS_READ = 5_000
# What a healthy worker's heartbeats amount to: its leases never run out.
STANDING_TTL_MS = 400 * 24 * 3_600_000


class Cluster:
    """See the module.

    Attributes:
        masters: All of them, up or down.
        store_up: Whether the store answers.
        clock: Virtual time, as the store sees it.
        elided: Whether routine writes of healthy workers are left out (docs/simulation.md).
    """

    def __init__(self, options: Options, store: Store, client: redis.Redis, ledger: Ledger) -> None:
        settings = MasterSettings()
        classes = {requirement_class(each)[0]: each for each in REQUIREMENTS}
        self.masters = [SimulatedMaster(store, settings, classes) for _ in range(options.masters)]
        self.grace_ms = settings.grace_ms
        self.store = store
        self.store_up = True
        self.clock = VirtualClock(client, store.keys)
        self.elided = options.routine == "elided"
        self._client = client
        self._ledger = ledger
        self._prefix = store.keys.clocks[0].rpartition(":")[0]
        self._events = f"{self._prefix}:events"
        self._cursor = "0-0"
        # The lease clock at the last tick, when that was, and when the next thing is due on it.
        self._lease_ms = self._ticked_ms = 0
        self._due_ms: int | None = None
        self._restless = 0
        self.ticks = 0
        # Runs whose holder fell silent while nobody served: (run, when contact was lost, what its lease had left).
        self.unwritten: list[tuple[Run, int, int]] = []

    @property
    def serving(self) -> bool:
        """Whether anybody can be served: a master is up, and so is the store."""
        return self.store_up and any(master.up for master in self.masters)

    def up(self) -> list[SimulatedMaster]:
        """The masters that run."""
        return [master for master in self.masters if master.up]

    # ---- time -----------------------------------------------------------------------------------------------------

    async def advance(self, until_ms: int) -> None:
        """Let time go on. Every tick that would find something due is ticked, at its own time."""
        while self.serving and (at := self.next_tick_ms()) is not None and at <= until_ms:
            self.clock.now_ms = max(at, self.clock.now_ms)
            await self.tick()
        self.clock.now_ms = until_ms
        self.clock.show()

    def next_tick_ms(self) -> int | None:
        """When a tick will find something due; None: not before something else happens."""
        soon = self._ticked_ms + TICK_MS
        if not self.elided or self._restless > 0:
            return soon
        if self._due_ms is None:
            return None
        at = max(soon, self._ticked_ms + self._due_ms - self._lease_ms)
        return -(-at // TICK_MS) * TICK_MS

    async def tick(self) -> None:
        """One turn of each master's ticker: tick, reap, promote."""
        await self.catch_up_clock()
        before = self.masters[0].store
        for master in self.up():
            await master.tick()
        self.ticks += 1
        self._lease_ms = int(self._client.hget(before.keys.clocks[0], "now") or 0)
        self._ticked_ms = self.clock.now_ms
        self.look_for_due()
        overdue = self._due_ms is not None and self._due_ms <= self._lease_ms
        # The brake sees the end of trouble in a tick that finds nothing due.
        self._restless = 2 if overdue else max(0, self._restless - 1)
        await self.settle()

    async def catch_up_clock(self) -> None:
        """The ticks of a time in which nothing was due, in one; each of them would have added its own part."""
        self.clock.show()
        passed = self.clock.now_ms - self._ticked_ms
        if self.elided and passed > 2 * TICK_MS and self.serving:
            self._lease_ms, _, _ = await self.store.tasks.tick(0, passed)
            self._ticked_ms = self.clock.now_ms

    def look_for_due(self) -> None:
        """Look up when the next lease runs out or a scheduled task's time comes."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zrange(f"{self._prefix}:leases", 0, 0, withscores=True)
            pipe.zrange(f"{self._prefix}:scheduled", 0, 0, withscores=True)
            heads = pipe.execute()
        scores = [int(head[0][1]) for head in heads if head]
        due = min(scores, default=None)
        self._due_ms = due if due is not None and due < self._lease_ms + STANDING_TTL_MS // 2 else None

    # ---- what masters do by themselves ----------------------------------------------------------------------------

    async def settle(self) -> None:
        """Events are heard, and whoever waits is given what there is, until nothing moves any more."""
        self.hear()
        while self.serving:
            await asyncio.gather(*(master.match() for master in self.up()))
            if not self.hear():
                return

    def hear(self) -> int:
        """Every master's follower reads the new events; returns how many may have made a task ready."""
        telling = 0
        while True:
            rows: Any = self._client.xrange(self._events, min=f"({self._cursor}", count=EVENTS_READ)
            for stream_id, fields in rows:
                event = task_event(stream_id, [part for pair in fields.items() for part in pair])
                telling += event.transition != "claim"
                self._ledger.note_event(event, self.clock.now_ms)
                for master in self.up():
                    master.note_event(event)
            if rows:
                self._cursor = text(rows[-1][0])
            if len(rows) < EVENTS_READ:
                return telling

    # ---- routine that was left out, where it comes to matter --------------------------------------------------------

    async def write_routine(self, silent: Iterable[tuple[Run, int, int]]) -> None:
        """Leases and checkpoints as their holders' routine would have left them: (run, when contact was lost, what the
        lease had left then)."""
        if not self.elided:
            return
        await self.catch_up_clock()
        by_rest: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
        for run, contact_ms, remaining_ms in silent:
            by_rest[-(-remaining_ms // TICK_MS) * TICK_MS].append((run.task_id, run.token))
            if run.worker.trouble or not run.alive:
                await self.register(run, contact_ms)
        for remaining_ms, leases in by_rest.items():
            for start in range(0, len(leases), BATCH_TASKS_MAX):
                await self.store.tasks.cut(leases[start : start + BATCH_TASKS_MAX], remaining_ms)
        self.look_for_due()

    async def register(self, run: Run, until_ms: int) -> None:
        """The checkpoints that it had saved by then."""
        if self._ledger.epochs[run.number] != run.epoch or self._ledger.states[run.number] is not TaskState.LEASED:
            return
        for step_ms in run.unregistered(until_ms):
            message = run.checkpoint(step_ms).checkpoint
            record = CheckpointRecord(message.url, step_ms, message.digest, message.size_bytes, run.epoch)
            verdict, _ = await self.store.tasks.register_checkpoint(
                run.task_id, run.token, run.worker.worker_id, record
            )
            if verdict is Verdict.OK:
                run.saved_ms = step_ms
            else:
                self._ledger.violated(f"a holder's checkpoint was refused: {verdict} for {run.task_id}")

    # ---- outages --------------------------------------------------------------------------------------------------

    async def back(self) -> None:
        """Masters or store are back: the first tick finds out for how long nobody ticked."""
        self.clock.show()
        self._ledger.served_since_ms = self.clock.now_ms
        self._ticked_ms = self.clock.now_ms
        unwritten, self.unwritten = self.unwritten, []
        await self.write_routine(unwritten)
        for master in self.up():
            await master.tick()
        self._lease_ms = int(self._client.hget(self.store.keys.clocks[0], "now") or 0)
        self.look_for_due()
        await self.settle()
