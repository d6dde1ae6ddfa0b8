"""What a fault is given: the fleet to strike, the seed's dice, and the history to write into."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from processes import eventually

from chaos_suite.fleet import START_SECONDS, Fleet
from chaos_suite.history import History
from chaos_suite.plan import Plan
from tenure.client import Client

Measure = Literal["restart", "progress"]
Side = Literal["work", "state", "all"]
Strike = Callable[["Scene"], Awaitable[None]]


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        measure: How recovery is measured. ``restart``: from the strike until every evaluation that it ended has started
            again elsewhere. ``progress``: from its end until the broker gives out or takes a task again.
        side: ``work`` strikes workers, clients and ways, ``state`` strikes masters and stores: one of each may overlap.
            ``all`` strikes alone.
        external: Whether it needs a store outside its master.
        mounts: Whether it needs a small disk.
    """

    name: str
    strike: Strike
    measure: Measure
    side: Side
    external: bool
    mounts: bool


KINDS: dict[str, Kind] = {}


def fault(
    measure: Measure, side: Side, *, external: bool = False, mounts: bool = False, name: str = ""
) -> Callable[[Strike], Strike]:
    """Register a function as a kind of fault under its own name."""

    def register(strike: Strike) -> Strike:
        kind = name or strike.__name__
        KINDS[kind] = Kind(kind, strike, measure, side, external, mounts)
        return strike

    return register


class Scene:
    """One seed's.

    Attributes:
        fleet: What is struck.
        chance: The seed's dice.
        history: Where it is told.
        client: Goes through the relays, as the search program does.
        program_journal: What the search program has submitted and seen, a JSON line each.
        stop_file: Tells the search program to submit nothing more.
    """

    def __init__(self, fleet: Fleet, plan: Plan, history: History, folder: Path) -> None:
        self.fleet = fleet
        self.plan = plan
        self.history = history
        self.chance = random.Random(f"strikes {plan.seed}")
        self.client = Client(fleet.addresses("client"), timeout_seconds=60)
        self.program_journal = folder / "program.jsonl"
        self.stop_file = folder / "stop"
        self._program: subprocess.Popen[bytes] | None = None
        self._strikes = 0

    @contextlib.asynccontextmanager
    async def striking(
        self, kind: str, harms: Sequence[str] = (), *, ends: Sequence[str] = (), **fields: Any
    ) -> AsyncIterator[None]:
        """Around a fault: it strikes at the beginning, and at the end all is well again, as far as we can make it.

        Args:
            kind: Its name.
            harms: Workers that may lose leases by it, now or until shortly after its end.
            ends: Workers whose runs it ends, without harm; those it harms are among them anyway.
            fields: For people.
        """
        self._strikes += 1
        number = self._strikes
        pids = self.fleet.pids_of([*harms, *ends])
        self.history.note("strike", strike=number, kind=kind, harms=list(harms), pids=pids, **fields)
        yield
        self.history.note("heal", strike=number, kind=kind)

    def unexpected(self, text: str) -> None:
        """Something that must not be, beside the invariants."""
        self.history.note("unexpected", text=text)

    async def pick_worker(self) -> str:
        """One that serves."""
        return self.chance.choice(await eventually(self.fleet.serving, START_SECONDS, "a worker that serves"))

    def pick_master(self) -> str:
        """Any."""
        return self.chance.choice(sorted(self.fleet.masters))

    def end_program(self) -> None:
        """SIGKILL, as by a person who has enough of it."""
        if self._program is not None:
            self._program.send_signal(signal.SIGKILL)
            self._program.wait()

    def start_program(self) -> None:
        """The search program, from its beginning."""
        self._program = self.fleet.start_program(self.program_journal, self.stop_file)

    @property
    def program(self) -> subprocess.Popen[bytes]:
        """The search program that runs now."""
        assert self._program is not None, "the search program was not started"
        return self._program

    @property
    def harm_by_silence(self) -> list[str]:
        """Who may lose leases when one master falls silent: the other one lets the lease clock go on."""
        return self.fleet.living() if len(self.fleet.masters) > 1 else []
