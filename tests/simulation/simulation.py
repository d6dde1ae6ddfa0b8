"""The simulation: searches submit, workers compute, faults strike, until every task has ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import redis

from simulation.agenda import Action, Agenda
from simulation.cluster import Cluster
from simulation.fairness import Fairness
from simulation.faults import MTBF_DAYS, NOTICED, Strike, strikes
from simulation.ledger import Ledger
from simulation.masters import Session
from simulation.options import Options
from simulation.runs import CHECKPOINT_MS, Run
from simulation.striking import CONNECT_GRID_MS, Striking
from simulation.workers import HEARTBEAT_MS, SimulatedWorker
from simulation.world import DAY_MS, REQUIREMENTS, SEARCHES, World
from tenure.common.spec import TaskSpec
from tenure.master.store import Store
from tenure.master.store.records import Grant
from tenure.proto import worker_pb2

# Runs that end within this time of each other are reported together, unless something else happens between them.
WINDOW_MS = 30_000
SUBMIT_CHECK_MS = 600_000
SUBMIT_BATCH = 100
PROGRESS_SECONDS = 10.0


class Simulation(Striking):
    """See the module.

    Attributes:
        agenda: What happens when.
        workers: All of them.
        fairness: How searches were served.
    """

    def __init__(self, options: Options, store: Store, client: redis.Redis, say: Callable[[str], None]) -> None:
        self.options = options
        self.store = store
        self.world = World(options)
        self.ledger = Ledger(self.world)
        self.cluster = Cluster(options, store, client, self.ledger)
        self.agenda = Agenda()
        self.random = np.random.default_rng([options.seed, 3])
        self.fairness = Fairness(self.ledger, self.world)
        phases = self.random.integers(0, HEARTBEAT_MS, options.workers)
        self.workers = [
            SimulatedWorker(number, machine, int(phase))
            for number, (machine, phase) in enumerate(zip(self.world.machine_of, phases, strict=True))
        ]
        self._next_task = [numbers.start for numbers in self.world.ranges]
        self._say = say
        self._lost_on_the_way: list[tuple[SimulatedWorker, Grant]] = []
        self.burials = []
        self.steps = 0

    @property
    def now_ms(self) -> int:
        """Virtual time."""
        return self.cluster.clock.now_ms

    # ---- the course of events ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From the first submit to the last task's end."""
        self.cluster.clock.show()
        await self.cluster.back()
        await self._set_up()
        told = time.monotonic()
        while self.ledger.ended < self.options.tasks:
            following = self.agenda.next_ms()
            if following is None:
                self.ledger.violated(f"{self.options.tasks - self.ledger.ended} tasks wait for ever")
                return
            await self.cluster.advance(max(following, self.now_ms))
            tick_ms = self.cluster.next_tick_ms() if self.cluster.serving else None
            window_ms = WINDOW_MS if tick_ms is None else min(WINDOW_MS, max(0, tick_ms - self.now_ms))
            at, action, subjects = self.agenda.take(window_ms)
            self.cluster.clock.now_ms = max(at, self.now_ms)
            self.cluster.clock.show()
            self.steps += 1
            if action is None:
                await self._end_runs(subjects)
            else:
                await self._act(action, subjects)
            await self.after_step()
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                self._tell()

    async def _act(self, action: Action, subjects: list[Any]) -> None:
        if action == self.connect:
            # A herd is received as one, so that its workers share the census of leases.
            await asyncio.gather(*map(action, subjects))
            return
        for subject in subjects:
            await action(subject)

    def _tell(self) -> None:
        day = self.now_ms / DAY_MS
        self._say(
            f"day {day:6.2f}: {self.ledger.ended:,} tasks ended, {sum(self.ledger.running):,} leases, "
            f"{self.ledger.counts['leases taken back']:,} taken back, {self.ledger.violation_count} violations"
        )

    async def after_step(self) -> None:
        """Whatever the step made possible happens."""
        await self.cluster.settle()
        while self._lost_on_the_way and self.cluster.serving:
            lost, self._lost_on_the_way = self._lost_on_the_way, []
            await self.cluster.write_routine([(self._lost_run(*each), self.now_ms, 30_000) for each in lost])
            await self.cluster.settle()

    async def _set_up(self) -> None:
        for search in SEARCHES:
            settings = {"weight": search.weight, "priority": search.priority}
            if search.cap:
                settings["max_leased"] = max(1, int(search.cap * self.world.slots))
            await self.store.searches.put(search.name, {**settings, "format": "json"})
        for number in range(len(SEARCHES)):
            await self.submit(number)
        await self.cluster.settle()
        for worker in self.workers:
            self.agenda.enter(self.random.uniform(0, 3_000), self.connect, worker, grid_ms=CONNECT_GRID_MS)
            if "crashes" in self.options.faults:
                self.enter_crash(worker)
            if not self.cluster.elided:
                self.agenda.enter(worker.phase_ms, self._beat, worker)
        for strike in strikes(self.options):
            self.agenda.enter(strike.at_ms, self.strike, strike)
        self.agenda.enter(self.fairness.window_ms, self._measure, None)

    def enter_crash(self, worker: SimulatedWorker) -> None:
        """When it will die by itself; not after the days in which faults strike."""
        at_ms = self.now_ms + self.random.exponential(MTBF_DAYS * DAY_MS)
        if at_ms < self.options.days * DAY_MS:
            noticed = bool(self.random.random() < NOTICED)
            lasts_ms = int(min(6 * 3_600_000, 600_000 * self.random.lognormal(0.0, 1.0)))
            kind = "crash, stream broken" if noticed else "crash, silent"
            self.agenda.enter(
                at_ms, self.crash_alone, Strike(int(at_ms), kind, [self._number(worker)], lasts_ms, noticed)
            )

    def _number(self, worker: SimulatedWorker) -> int:
        return int(worker.worker_id.rpartition("-")[2])

    async def _measure(self, _: None) -> None:
        self.fairness.measure(self.now_ms)
        self.agenda.enter(self.now_ms + self.fairness.window_ms, self._measure, None)

    # ---- searches ---------------------------------------------------------------------------------------------------

    async def submit(self, search: int) -> None:
        """A search keeps a stock of tasks waiting, and looks after it every few minutes."""
        plan, numbers = SEARCHES[search], self.world.ranges[search]
        share = plan.share / sum(each.share for each in SEARCHES)
        stock = max(100, int(2 * share * self.world.slots)) if plan.measured else max(10, len(numbers) // 20)
        ledger = self.ledger
        waiting = ledger.submitted[search] - ledger.done[search] - ledger.running[search]
        count = min(max(0, stock - waiting), numbers.stop - self._next_task[search])
        if count and self.cluster.serving:
            start = self._next_task[search]
            self._next_task[search] += count
            parts = range(start, start + count, SUBMIT_BATCH)
            await asyncio.gather(
                *(self._submit(search, part, min(part + SUBMIT_BATCH, start + count)) for part in parts)
            )
        if self._next_task[search] < numbers.stop:
            self.agenda.enter(self.now_ms + SUBMIT_CHECK_MS, self.submit, search)

    async def _submit(self, search: int, start: int, stop: int) -> None:
        specs = [
            TaskSpec(f'{{"n":{number}}}', key=str(number), requirements=REQUIREMENTS[self.world.class_of[number]])
            for number in range(start, stop)
        ]
        for number, known in zip(
            range(start, stop), await self.store.tasks.submit(SEARCHES[search].name, specs, "json"), strict=True
        ):
            self.ledger.numbers[known.task_id] = number
        self.ledger.submitted[search] += stop - start

    # ---- workers ----------------------------------------------------------------------------------------------------

    async def connect(self, worker: SimulatedWorker) -> None:
        """A worker says hello to a master; while there is none, it waits until there is."""
        if not worker.can_connect or not self.cluster.serving:
            return
        masters = self.cluster.up()
        if worker.stale_session is not None:
            worker.stale_session.close()
            worker.stale_session = None
        master = masters[int(self.random.integers(len(masters)))]
        session = Session(
            master,
            worker.worker_id,
            str(worker.instance),
            worker.machine.capabilities,
            lambda name, content: worker.hear(name, content, self.ledger, self.world, self.now_ms),
            lambda grants: self._take(worker, session, grants),
        )
        worker.session = session
        worker.renewed_ms = self.now_ms
        await self.cluster.catch_up_clock()
        await session.greet(worker.held())
        await self.well_again(worker)

    async def well_again(self, worker: SimulatedWorker) -> None:
        """It has said what it holds, and heard what it lost."""
        for run in worker.runs.values():
            self.ledger.threatened.pop(run.task_id, None)
        await self.report(worker)
        worker.trouble = ""
        self.cluster.look_for_due()

    async def report(self, worker: SimulatedWorker) -> None:
        """Its spooled outcomes are sent, and it wants tasks for its free slots."""
        session = worker.session
        if session is None or not self.cluster.serving:
            return
        for run, _ in worker.spool.values():
            self.ledger.threatened.pop(run.task_id, None)
        if worker.spool:
            failed = any(outcome.kind != worker_pb2.OUTCOME_SUCCESS for _, outcome in worker.spool.values())
            if failed:
                await self.cluster.catch_up_clock()
            await session.leases.end([outcome for _, outcome in worker.spool.values()])
            if failed:
                self.cluster.look_for_due()
        session.want(worker.free_slots)

    def _take(self, worker: SimulatedWorker, session: Session, grants: list[Grant]) -> None:
        if worker.session is not session:
            self._lost_on_the_way += [(worker, grant) for grant in grants]
            return
        for grant in grants:
            run = self._run(worker, grant)
            worker.runs[run.task_id] = run
            self.agenda.enter(run.end_ms, None, run)
            if not self.cluster.elided:
                self.agenda.enter(run.began_ms + CHECKPOINT_MS, self._save, run)

    def _run(self, worker: SimulatedWorker, grant: Grant) -> Run:
        number = int(json.loads(grant.architecture)["n"])
        world = self.world
        return Run(
            worker,
            number,
            grant,
            self.now_ms,
            int(world.duration_ms[number]),
            int(world.fate_of[number]),
            float(world.weakness[number]),
        )

    def _lost_run(self, worker: SimulatedWorker, grant: Grant) -> Run:
        """A task that was sent to a worker which no longer hears."""
        run = self._run(worker, grant)
        self.ledger.counts["tasks sent to silent workers"] += 1
        self.ledger.threaten(run, "sent to a silent worker", self.now_ms)
        return run

    async def _end_runs(self, runs: list[Run]) -> None:
        """Runs that end by themselves are reported, or spooled."""
        reporters: dict[str, SimulatedWorker] = {}
        for run in runs:
            if not run.alive:
                continue
            if not run.worker.computing or run.end_ms > self.now_ms:
                if run.worker.computing:
                    self.agenda.enter(run.end_ms, None, run)
                continue
            worker = run.worker
            outcome = run.outcome(int(self.world.fate_of[run.number]))
            if run.failing and self.cluster.elided and worker.session is not None and self.cluster.serving:
                await self.cluster.register(run, self.now_ms)
            run.alive = False
            del worker.runs[run.task_id]
            worker.spool[run.token] = (run, outcome)
            reporters[worker.worker_id] = worker
        await asyncio.gather(*(self.report(worker) for worker in reporters.values()))

    # ---- routine that is sent where it isn't elided -----------------------------------------------------------------

    async def _beat(self, worker: SimulatedWorker) -> None:
        if worker.session is not None and worker.computing and self.cluster.serving:
            await worker.session.leases.renew(worker.held())
        self.agenda.enter(self.now_ms + HEARTBEAT_MS, self._beat, worker)

    async def _save(self, run: Run) -> None:
        if not run.alive or run.worker.runs.get(run.task_id) is not run:
            return
        if run.worker.session is not None and run.worker.computing and self.cluster.serving:
            for step_ms in run.unregistered(self.now_ms):
                await run.worker.session.leases.register_checkpoint(run.checkpoint(step_ms))
        self.agenda.enter(self.now_ms + CHECKPOINT_MS, self._save, run)
