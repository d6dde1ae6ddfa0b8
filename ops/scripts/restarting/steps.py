"""The steps of a rolling restart: a master, some workers at once, a server of the store. Each returns when what it
restarted is back, and all that depends on it, or says that it is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from restarting.console import Console
from restarting.master_target import LocalMaster, MasterTarget, Patience, master_id
from restarting.processes import CALL_POLL_SECONDS, RestartFailed, wait_until
from restarting.recovery import await_recovery
from restarting.snapshot import Snapshot
from restarting.stopped import Stopped
from restarting.store_target import StoreTarget
from restarting.worker_target import LocalWorker, WorkerTarget, restart_together
from tenure.client import Client
from tenure.common.errors import TenureError

_GLANCE_SECONDS = 1.0


@dataclass
class Rolling:
    """What all steps share.

    Attributes:
        client: Any master.
        patience: With a process that ends or starts.
        settle_seconds: For workers to be heard and leases to be renewed.
        drained: Leases whose workers were told to hand them back.
        wrong: What wasn't as it should be, and yet the restart went on; a sentence each.
    """

    client: Client
    console: Console
    patience: Patience
    settle_seconds: float
    drained: set[tuple[str, int]] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def settle(self, what: str) -> None:
        """Wait until every worker is heard and every lease renewed.

        Raises:
            RestartFailed: Not in time.
        """
        began = time.monotonic()
        recovery = await_recovery(self.client, workers_now(self.client), self.settle_seconds)
        if not recovery.complete:
            missing = "; ".join(recovery.missing(self.settle_seconds)[:5])
            raise RestartFailed(f"{what} is back, but not all that depends on it: {missing}")
        self.console.say(
            f"{what}: sessions are back, {recovery.leases} leases renewed or ended, "
            f"after {time.monotonic() - began:.1f} s more"
        )


class Step(Protocol):
    """Something that is restarted at once."""

    @property
    def names(self) -> list[str]:
        """Of the targets, as a record of the run has them: ``master H:P``, ``worker ID``, ``store H:P``."""

    @property
    def title(self) -> str:
        """For people."""

    def identities(self) -> dict[str, str]:
        """By name: of the process that is the target now; '' if that can't be told."""

    def stopped(self) -> list[Stopped]:
        """Processes of this machine that it is about to stop, and starts again itself."""

    def describe(self, console: Console) -> None:
        """Say what is about to be done."""

    def carry_out(self, rolling: Rolling) -> None:
        """Do it; raises RestartFailed."""


@dataclass(frozen=True)
class MasterStep:
    """One master."""

    target: MasterTarget

    @property
    def names(self) -> list[str]:
        """See Step."""
        return [self.title]

    @property
    def title(self) -> str:
        """See Step."""
        return f"master {self.target.address}"

    def identities(self) -> dict[str, str]:
        """See Step."""
        with Client(self.target.address, timeout_seconds=_GLANCE_SECONDS) as glance:
            return {self.title: master_id(glance)}

    def stopped(self) -> list[Stopped]:
        """See Step."""
        noted = self.target.noted() if isinstance(self.target, LocalMaster) else None
        return [noted] if noted is not None else []

    def describe(self, console: Console) -> None:
        """See Step."""
        self.target.describe(console)

    def carry_out(self, rolling: Rolling) -> None:
        """See Step."""
        began = time.monotonic()
        with Client(self.target.address, timeout_seconds=_GLANCE_SECONDS) as glance:
            old_id = master_id(glance)
            self.target.carry_out(rolling.patience, lambda: master_id(glance) not in ("", old_id), rolling.console)
        rolling.console.say(f"{self.title} serves again after {time.monotonic() - began:.1f} s")
        rolling.settle(self.title)


@dataclass(frozen=True)
class WorkersStep:
    """Workers that are down at the same time."""

    targets: Sequence[WorkerTarget]
    client: Client
    group: str = ""
    under_new_ids: bool = False

    @property
    def names(self) -> list[str]:
        """See Step."""
        return [f"worker {target.worker_id}" for target in self.targets]

    @property
    def title(self) -> str:
        """See Step."""
        ids = ", ".join(target.worker_id for target in self.targets)
        return f"workers {ids}{f' ({self.group})' if self.group else ''}"

    def identities(self) -> dict[str, str]:
        """See Step."""
        instances = {worker.worker_id: worker.instance_id for worker in self.client.workers(include_gone=True)}
        return {f"worker {target.worker_id}": instances.get(target.worker_id, "") for target in self.targets}

    def stopped(self) -> list[Stopped]:
        """See Step."""
        return [target.noted() for target in self.targets if isinstance(target, LocalWorker)]

    def describe(self, console: Console) -> None:
        """See Step."""
        for target in self.targets:
            target.describe(console)

    def carry_out(self, rolling: Rolling) -> None:
        """See Step."""
        rolling.drained |= restart_together(
            rolling.client,
            self.targets,
            rolling.patience.ready_seconds,
            rolling.wrong,
            rolling.console,
            under_new_ids=self.under_new_ids,
        )


@dataclass(frozen=True)
class StoreStep:
    """One server of the store."""

    target: StoreTarget

    @property
    def names(self) -> list[str]:
        """See Step."""
        return [self.target.name]

    @property
    def title(self) -> str:
        """See Step."""
        return self.target.name

    def identities(self) -> dict[str, str]:
        """See Step."""
        return {self.target.name: self.target.identity()}

    def stopped(self) -> list[Stopped]:
        """See Step: a store is started by somebody else."""
        return []

    def describe(self, console: Console) -> None:
        """See Step."""
        self.target.describe(console)

    def carry_out(self, rolling: Rolling) -> None:
        """See Step."""
        self.target.carry_out(rolling.patience.ready_seconds, rolling.console)
        waiting = rolling.console.progress("no master has found the store again yet")
        answers = _quietly(lambda: bool(rolling.client.stats().master_id))
        if not wait_until(answers, rolling.patience.ready_seconds, CALL_POLL_SECONDS, waiting):
            raise RestartFailed(f"{self.title} is back, and no master answers; their logs say why")
        rolling.settle(self.title)


def workers_now(client: Client) -> Snapshot:
    """A look at the workers alone."""
    live = {each.worker_id: (each.instance_id, each.dispatch) for each in client.workers() if each.status == "live"}
    return Snapshot("", {}, {}, live)


def _quietly(condition: Callable[[], bool]) -> Callable[[], bool]:
    """The condition; an error is a no."""

    def holds() -> bool:
        try:
            return condition()
        except TenureError:
            return False

    return holds
