"""A worker: its slots, its runs, its spool, and its end of the session."""

from __future__ import annotations

from typing import Any

from simulation.ledger import Ledger
from simulation.masters import Session
from simulation.runs import Run
from simulation.world import MACHINES, World
from tenure.proto import worker_pb2

HEARTBEAT_MS = 10_000
LEASE_TTL_MS = 30_000


class SimulatedWorker:
    """See the module.

    Attributes:
        up: Whether its process lives.
        reachable: Whether the network lets it through.
        frozen_since_ms: When it was stopped (SIGSTOP, a paused virtual machine); None: it runs.
        session: Its stream to a master, as far as it knows; None while it has none.
        stale_session: One that only the master still believes in.
        instance: Which start of it this is.
        runs: What it computes, by task id.
        spool: Outcomes on its disk that no master has acknowledged.
        renewed_ms: When it renewed last, out of its rhythm (a hello).
        contact_ms: When it last had a master.
        trouble: What befell it; empty when nothing did.
    """

    def __init__(self, number: int, machine: int, phase_ms: int) -> None:
        self.worker_id = f"worker-{number}"
        self.machine = MACHINES[machine]
        self.phase_ms = phase_ms
        self.up = self.reachable = True
        self.frozen_since_ms: int | None = None
        self.session: Session | None = None
        self.stale_session: Session | None = None
        self.instance = 1
        self.runs: dict[str, Run] = {}
        self.spool: dict[str, tuple[Run, worker_pb2.Outcome]] = {}
        self.renewed_ms = 0
        self.contact_ms = 0
        self.trouble = ""

    @property
    def free_slots(self) -> int:
        """How many tasks it could take."""
        return self.machine.slots - len(self.runs)

    @property
    def computing(self) -> bool:
        """Whether its runs make progress."""
        return self.up and self.frozen_since_ms is None

    @property
    def can_connect(self) -> bool:
        """Whether a hello of it would get through."""
        return self.computing and self.reachable and self.session is None

    def held(self) -> list[worker_pb2.Renewal]:
        """Every lease that it thinks is its own."""
        spooled = [run.renewal() for run, _ in self.spool.values()]
        return [run.renewal() for run in self.runs.values()] + spooled

    def remaining_ms(self, run: Run, at_ms: int) -> int:
        """What a lease has left of its time when its holder falls silent at that moment."""
        since_beat = (at_ms - self.phase_ms) % HEARTBEAT_MS
        since_other = at_ms - max(self.renewed_ms, run.began_ms - 20_000)
        return LEASE_TTL_MS - max(0, min(since_beat, since_other))

    def hear(self, name: str, content: Any, ledger: Ledger, world: World, now_ms: int) -> None:
        """A message of the master."""
        if name == "revocations":
            for revocation in content.revocations:
                self._revoked(revocation, ledger, now_ms)
        elif name == "outcome_verdicts":
            for verdict in content.verdicts:
                self._judged(verdict, ledger)
        elif name == "checkpoint_verdict":
            self._registered(content, ledger)

    def _revoked(self, revocation: worker_pb2.Revocation, ledger: Ledger, now_ms: int) -> None:
        run = self.runs.get(revocation.task_id)
        if run is None or run.token != revocation.lease_token:
            return
        del self.runs[run.task_id]
        run.alive = False
        ledger.counts[f"runs revoked: {revocation.reason}"] += 1
        ledger.run_ended(run, now_ms, self.trouble or revocation.reason)

    def _judged(self, verdict: worker_pb2.OutcomeVerdict, ledger: Ledger) -> None:
        run, outcome = self.spool.pop(verdict.lease_token)
        word = worker_pb2.Verdict.Name(verdict.verdict).removeprefix("VERDICT_")
        kind = worker_pb2.OutcomeKind.Name(outcome.kind).removeprefix("OUTCOME_").lower()
        ledger.counts[f"outcomes {kind}: {word}"] += 1
        if kind == "success" and word == "OK":
            ledger.succeeded(run)
        else:
            causes = {"success": self.trouble or "duplicate success", "release": "drains", "loss": "poison tasks"}
            ledger.run_ended(run, run.end_ms, causes.get(kind, "evaluations that raised"))
        if word == "STALE":
            ledger.counts["stale writes refused"] += 1

    def _registered(self, verdict: worker_pb2.CheckpointVerdict, ledger: Ledger) -> None:
        word = worker_pb2.Verdict.Name(verdict.verdict).removeprefix("VERDICT_")
        ledger.counts[f"checkpoints: {word}"] += 1
        if word == "STALE":
            ledger.counts["stale writes refused"] += 1
        run = self.runs.get(verdict.task_id)
        if run is not None and run.token == verdict.lease_token and word == "OK":
            run.saved_ms = max(run.saved_ms, int(verdict.url.rpartition("-")[2]))
