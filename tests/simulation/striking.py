"""What each fault does to workers, masters and store, and how they come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation.faults import Strike
from simulation.runs import Run
from simulation.workers import HEARTBEAT_MS, SimulatedWorker

if TYPE_CHECKING:
    import numpy as np

    from simulation.agenda import Agenda
    from simulation.cluster import Cluster
    from simulation.ledger import Ledger

# Who connects or boots at almost the same time does so in one step.
CONNECT_GRID_MS = 500
BOOT_GRID_MS = 30_000
RECONNECT_MS_MAX = 9_000
RECONNECT_ELSEWHERE_MS_MAX = 1_000


class Striking:
    """See the module. Mixed into the simulation, which has the attributes."""

    agenda: Agenda
    cluster: Cluster
    ledger: Ledger
    random: np.random.Generator
    workers: list[SimulatedWorker]
    now_ms: int
    connect: Any
    report: Any
    well_again: Any
    enter_crash: Any
    # Runs that died while nobody served: (run, when, why).
    burials: list[tuple[Run, int, str]]

    async def strike(self, strike: Strike) -> None:
        """A fault strikes."""
        self.ledger.counts[f"struck: {strike.kind}"] += 1
        hit = [self.workers[number] for number in strike.workers]
        if strike.kind == "waves":
            await self._crash(hit, strike._replace(kind="spot wave", noticed=True))
        elif strike.kind == "partitions":
            await self._partition(hit, strike)
        elif strike.kind == "pauses":
            await self._freeze(hit[0], strike)
        elif strike.kind == "drains":
            for worker in hit:
                await self._drain(worker, strike)
        elif strike.kind == "master":
            number = int(self.random.integers(len(self.cluster.masters)))
            await self._kill_masters([number], strike)
        elif strike.kind == "masters":
            await self._kill_masters(list(range(len(self.cluster.masters))), strike)
        elif strike.kind == "store":
            await self._store_away(strike)
        else:
            await self._step_clock(strike)

    # ---- workers ----------------------------------------------------------------------------------------------------

    async def crash_alone(self, strike: Strike) -> None:
        """One worker's own time has come."""
        worker = self.workers[strike.workers[0]]
        if worker.up:
            self.ledger.counts[f"struck: {strike.kind}"] += 1
            await self._crash([worker], strike)
        else:
            self.enter_crash(worker)

    async def _crash(self, hit: list[SimulatedWorker], strike: Strike) -> None:
        dying = [worker for worker in hit if worker.up]
        await self._lose_contact(dying, strike.kind, noticed=strike.noticed)
        for worker in dying:
            end_ms = worker.frozen_since_ms if worker.frozen_since_ms is not None else self.now_ms
            for run in worker.runs.values():
                run.alive = False
                self.ledger.threaten(run, strike.kind, self.now_ms)
                if self.cluster.serving:
                    self.ledger.run_ended(run, end_ms, strike.kind)
                else:
                    # What it had saved is known once that is written.
                    self.burials.append((run, end_ms, strike.kind))
            worker.runs = {}
            worker.up, worker.frozen_since_ms = False, None
            back_ms = self.now_ms + strike.lasts_ms * self.random.uniform(0.7, 1.3)
            self.agenda.enter(back_ms, self._boot, worker, grid_ms=BOOT_GRID_MS)

    async def _boot(self, worker: SimulatedWorker) -> None:
        worker.up = True
        worker.instance += 1
        self.agenda.enter(self.now_ms + self.random.uniform(0, 1_000), self.connect, worker, grid_ms=CONNECT_GRID_MS)
        self.enter_crash(worker)

    async def _lose_contact(self, hit: list[SimulatedWorker], cause: str, *, noticed: bool) -> None:
        """Their streams break, or fall silent."""
        silent: list[tuple[Run, int, int]] = []
        for worker in hit:
            worker.trouble = cause
            session, worker.session = worker.session, None
            if session is None:
                continue
            worker.contact_ms = self.now_ms
            for run in worker.runs.values():
                self.ledger.threaten(run, cause, self.now_ms)
                silent.append((run, self.now_ms, worker.remaining_ms(run, self.now_ms)))
            if not noticed:
                worker.stale_session = session
            elif self.cluster.serving and session.master.up:
                if self.cluster.elided:
                    for run in worker.runs.values():
                        await self.cluster.register(run, self.now_ms)
                await self.cluster.catch_up_clock()
                session.close()
                await session.leases.cut(0.0)
        if noticed and self.cluster.serving:
            self.cluster.look_for_due()
        elif self.cluster.serving:
            await self.cluster.write_routine(silent)

    async def _partition(self, hit: list[SimulatedWorker], strike: Strike) -> None:
        size = "most of the cluster" if len(hit) > len(self.workers) / 2 else "a group"
        cause = f"partition of {size}, {'streams broken' if strike.noticed else 'silent'}"
        cut = [worker for worker in hit if worker.up and worker.reachable and worker.frozen_since_ms is None]
        await self._lose_contact(cut, cause, noticed=strike.noticed)
        for worker in cut:
            worker.reachable = False
            self.agenda.enter(self.now_ms + strike.lasts_ms, self._heal, worker)

    async def _heal(self, worker: SimulatedWorker) -> None:
        worker.reachable = True
        self.agenda.enter(
            self.now_ms + self.random.uniform(0, RECONNECT_MS_MAX), self.connect, worker, grid_ms=CONNECT_GRID_MS
        )

    async def _freeze(self, worker: SimulatedWorker, strike: Strike) -> None:
        if worker.session is None or not self.cluster.serving:
            return
        await self._lose_contact([worker], "stopped process", noticed=False)
        worker.frozen_since_ms = self.now_ms
        self.agenda.enter(self.now_ms + strike.lasts_ms, self._thaw, worker)

    async def _thaw(self, worker: SimulatedWorker) -> None:
        """A zombie wakes: it writes what it was about to write, and only then hears."""
        if worker.frozen_since_ms is None:
            return
        since_ms, worker.frozen_since_ms = worker.frozen_since_ms, None
        for run in worker.runs.values():
            run.shift(self.now_ms - since_ms)
            self.agenda.enter(run.end_ms, None, run)
        session, worker.stale_session = worker.stale_session, None
        if session is None or not self.cluster.serving or session.master.sessions.get(worker.worker_id) is not session:
            worker.stale_session = session
            self.agenda.enter(
                self.now_ms + self.random.uniform(0, 1_000), self.connect, worker, grid_ms=CONNECT_GRID_MS
            )
            return
        worker.session = session
        await self.cluster.catch_up_clock()
        for run in list(worker.runs.values()):
            if self.ledger.epochs[run.number] > run.epoch:
                await self._write_as_zombie(session, run)
        worker.renewed_ms = self.now_ms
        await session.leases.renew(worker.held())
        await self.well_again(worker)

    async def _write_as_zombie(self, session: Any, run: Run) -> None:
        """A checkpoint under an outdated token must be refused."""
        refused = self.ledger.counts["checkpoints: STALE"]
        await session.leases.register_checkpoint(run.checkpoint(run.progress_ms(self.now_ms) + 1))
        if self.ledger.counts["checkpoints: STALE"] != refused + 1:
            self.ledger.violated(f"a zombie's checkpoint of {run.task_id} was taken")

    async def _drain(self, worker: SimulatedWorker, strike: Strike) -> None:
        """SIGTERM: save now, hand back, leave."""
        session = worker.session
        if session is None or not worker.computing or not self.cluster.serving:
            return
        session.want(0)
        await self.cluster.catch_up_clock()
        for run in list(worker.runs.values()):
            progress_ms = run.progress_ms(self.now_ms)
            if progress_ms > run.saved_ms:
                await session.leases.register_checkpoint(run.checkpoint(progress_ms))
            run.alive, run.end_ms = False, min(run.end_ms, self.now_ms)
            worker.spool[run.token] = (run, run.release())
            del worker.runs[run.task_id]
        if worker.spool:
            await session.leases.end([outcome for _, outcome in worker.spool.values()])
        session.close()
        worker.session, worker.up = None, False
        self.agenda.enter(
            self.now_ms + strike.lasts_ms * self.random.uniform(0.7, 1.3), self._boot, worker, grid_ms=BOOT_GRID_MS
        )

    # ---- masters and store ------------------------------------------------------------------------------------------

    async def _kill_masters(self, numbers: list[int], strike: Strike) -> None:
        was_serving = self.cluster.serving
        orphaned = [
            worker
            for worker in self.workers
            if worker.session is not None and self.cluster.masters.index(worker.session.master) in numbers
        ]
        for number in numbers:
            if self.cluster.masters[number].up:
                self.cluster.masters[number].kill()
                self.agenda.enter(self.now_ms + strike.lasts_ms, self._start_master, number)
        all_down = not self.cluster.up()
        if was_serving and all_down:
            self._everybody_waits()
        for worker in orphaned:
            worker.session = None
            wait_ms = RECONNECT_MS_MAX if all_down else RECONNECT_ELSEWHERE_MS_MAX
            self.agenda.enter(
                self.now_ms + self.random.uniform(0, wait_ms), self.connect, worker, grid_ms=CONNECT_GRID_MS
            )

    def _everybody_waits(self) -> None:
        """Nobody can renew from now on: what each lease has left counts when somebody serves again."""
        self.ledger.counts["outages of all masters or the store"] += 1
        for worker in self.workers:
            if worker.session is not None:
                worker.contact_ms = self.now_ms
                runs = [*worker.runs.values(), *(run for run, _ in worker.spool.values())]
                rests = [(run, self.now_ms, worker.remaining_ms(run, self.now_ms)) for run in runs]
                self.cluster.unwritten += rests

    async def _start_master(self, number: int) -> None:
        was_serving = self.cluster.serving
        self.cluster.masters[number].start()
        if not was_serving and self.cluster.serving:
            await self._serve_again()

    async def _store_away(self, strike: Strike) -> None:
        if not self.cluster.store_up:
            return
        if self.cluster.serving:
            self._everybody_waits()
        self.cluster.store_up = False
        self.agenda.enter(self.now_ms + strike.lasts_ms, self._store_back, None)

    async def _store_back(self, _: None) -> None:
        self.cluster.store_up = True
        if self.cluster.serving:
            await self._serve_again()

    async def _serve_again(self) -> None:
        """The first tick, and then everybody's next heartbeat or hello within its time."""
        await self.cluster.back()
        for lost in self.burials:
            self.ledger.run_ended(*lost)
        self.burials = []
        for worker in self.workers:
            if worker.session is not None:
                wait_ms = self.random.uniform(0, HEARTBEAT_MS)
                self.agenda.enter(self.now_ms + wait_ms, self._renew, worker)
            elif worker.can_connect:
                self.agenda.enter(
                    self.now_ms + self.random.uniform(0, RECONNECT_MS_MAX),
                    self.connect,
                    worker,
                    grid_ms=CONNECT_GRID_MS,
                )

    async def _renew(self, worker: SimulatedWorker) -> None:
        if worker.session is None or not self.cluster.serving:
            return
        worker.renewed_ms = self.now_ms
        await self.cluster.catch_up_clock()
        await worker.session.leases.renew(worker.held())
        await self.well_again(worker)

    async def _step_clock(self, strike: Strike) -> None:
        """The store's host finds out that its clock was wrong."""
        if self.cluster.serving:
            await self.cluster.catch_up_clock()
        self.cluster.clock.offset_ms += strike.step_ms
        if self.cluster.serving:
            await self.cluster.tick()
