"""Makes the steps of a rolling restart from what was given on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from restarting.groups import batches_of, groups_of
from restarting.master_target import ForeignMaster, LocalMaster, MasterTarget
from restarting.processes import CannotRestart, Output, Ready, Running
from restarting.steps import MasterStep, Step, StoreStep, WorkersStep
from restarting.store_servers import Server, StoreUrl
from restarting.store_target import EmbeddedStore, store_targets
from restarting.templates import fill_in, made_ready
from restarting.worker_target import ForeignWorker, LocalWorker, WorkerTarget
from tenure.client import Client, WorkerRecord
from tenure.common.addresses import expand, parse_addresses

_EMBEDDED = "(embedded)"


@dataclass
class Processes:
    """What the ready files name.

    Attributes:
        masters: In the order given; the same of ``workers``.
    """

    masters: list[LocalMaster] = field(default_factory=list)
    workers: list[LocalWorker] = field(default_factory=list)

    @classmethod
    def read(cls, arguments: argparse.Namespace) -> Processes:
        """Raises CannotRestart for a file whose process can't be restarted from here."""
        found = cls()
        for path in arguments.ready_file:
            ready = Ready.read(path)
            if ready.worker_id:
                found.workers.append(LocalWorker.of(ready, _output(arguments), arguments.drain_timeout))
            else:
                found.masters.append(LocalMaster.of(ready, _output(arguments)))
        return found

    @property
    def addresses(self) -> str:
        """The masters', as a client is given them; '' if none is here."""
        if self.masters:
            return ",".join(master.address for master in self.masters)
        return self.workers[0].recipe.option("master", "TENURE_MASTER") if self.workers else ""


def make_steps(
    arguments: argparse.Namespace, processes: Processes, addresses: str, client: Client
) -> tuple[list[Step], list[str]]:
    """The steps in their order: the store, masters, workers. Beside them what is left out and why, a sentence each.

    Raises:
        CannotRestart: Something can't be restarted from here; the text says how it could be named.
        TenureError: No master answers.
    """
    wanted = set(arguments.what)
    left_out: list[str] = []
    steps: list[Step] = []
    masters = _masters(arguments, processes, addresses)
    if "store" in wanted:
        steps += _store_steps(arguments, processes, client, bool(masters) and "masters" in wanted, left_out)
    if "masters" in wanted:
        if not masters:
            raise CannotRestart("no master is named: give --ready-file of masters on this machine, or --masters-via")
        steps += [MasterStep(target) for target in masters if not _is_young(target, arguments.since, left_out)]
    if "workers" in wanted:
        steps += _worker_steps(arguments, processes, client, left_out)
    return steps, left_out


def _output(arguments: argparse.Namespace) -> Callable[[Running], Output]:
    return lambda running: Output(running, arguments.log, kept=arguments.keep_output)


def _masters(arguments: argparse.Namespace, processes: Processes, addresses: str) -> Sequence[MasterTarget]:
    command = made_ready("masters", arguments.masters_via)
    if command is None:
        return processes.masters
    if processes.masters:
        raise CannotRestart("masters are named by ready files, and --masters-via is given: leave one of them out")
    targets = []
    for address in sorted(expand(parse_addresses(addresses, "master"))):
        name = arguments.names.get(str(address), address.bare_host)
        whose, port = f"master {address}", str(address.port)
        filled = fill_in(command, whose, host=address.bare_host, port=port, address=str(address), name=name)
        targets.append(ForeignMaster(str(address), filled))
    if len(targets) > 1 and len({tuple(target.command) for target in targets}) < len(targets):
        raise CannotRestart(
            f"`{' '.join(command)}` is the same for {len(targets)} masters: say which by "
            "{host}, {port}, {address} or {name}"
        )
    return targets


def _store_steps(
    arguments: argparse.Namespace, processes: Processes, client: Client, with_masters: bool, left_out: list[str]
) -> Iterator[Step]:
    description = client.stats().store
    if description.endswith(_EMBEDDED):
        if with_masters:
            left_out.append("the embedded store is restarted with its master")
            return
        if not processes.masters:
            raise CannotRestart(
                "the store is embedded in a master that is not of this machine, or is somebody's service: restart the "
                "master, its store goes along; or give the master's --ready-file"
            )
        for master in processes.masters:
            assert master.running is not None
            yield StoreStep(EmbeddedStore(f"store of {master.address}", master.running))
        return
    command = made_ready("store", arguments.store_via)
    if command is None:
        raise CannotRestart(
            f"the store is {description}: give --store-via with the command that restarts its server, or leave it out: "
            "rolling-restart masters workers"
        )
    url = StoreUrl.parse(arguments.store or _store_url(processes, description))

    def command_for(server: Server) -> list[str]:
        port = str(server.port)
        name = arguments.names.get(server.address, server.host)
        whose = f"store {server.address}"
        return fill_in(command, whose, host=server.host, port=port, address=server.address, name=name)

    for target in store_targets(url, command_for):
        yield StoreStep(target)


def _store_url(processes: Processes, description: str) -> str:
    """As a master on this machine was told it, else as masters show it, if no password is left out there."""
    for master in processes.masters:
        if url := master.recipe.option("store", "TENURE_MASTER_STORE"):
            return url
    shown = description.partition("(")[2].rstrip(")")
    if "***" in shown:
        raise CannotRestart(
            "the store's URL has a password that masters don't tell: give --store (TENURE_MASTER_STORE)"
        )
    return shown


def _worker_steps(
    arguments: argparse.Namespace, processes: Processes, client: Client, left_out: list[str]
) -> Iterator[Step]:
    targets = {target.worker_id: target for target in _workers(arguments, processes, client)}
    if not targets:
        if arguments.workers_via is None:
            raise CannotRestart("no worker is named: give --ready-file of workers on this machine, or --workers-via")
        raise CannotRestart("no worker is live")
    known = {worker.worker_id: worker for worker in client.workers(include_gone=True)}
    if strangers := [name for name in targets if name not in known]:
        raise CannotRestart(f"the masters know no worker {' nor '.join(strangers)}: does it use another broker?")
    chosen = [known[name] for name in targets]
    young = [worker for worker in chosen if _is_young_worker(worker, arguments.since)]
    left_out += [f"worker {worker.worker_id} was started after --since" for worker in young]
    groups = groups_of([worker for worker in chosen if worker not in young], arguments.group)
    taken = {worker_id for _, ids in groups for worker_id in ids}
    left_out += [
        f"worker {worker.worker_id} is in none of the groups"
        for worker in chosen
        if worker.worker_id not in taken and worker not in young
    ]
    under_new_ids = arguments.new_ids or arguments.workers_via == ["kubectl"]
    for name, ids in batches_of(groups, arguments.max_unavailable):
        yield WorkersStep([targets[worker_id] for worker_id in ids], client, name, under_new_ids)


def _workers(arguments: argparse.Namespace, processes: Processes, client: Client) -> Sequence[WorkerTarget]:
    command = made_ready("workers", arguments.workers_via)
    if command is None:
        return processes.workers
    if processes.workers:
        raise CannotRestart("workers are named by ready files, and --workers-via is given: leave one of them out")
    known = {worker.worker_id: worker for worker in client.workers(include_gone=True)}
    targets = []
    for worker_id in arguments.worker or [name for name, worker in known.items() if worker.status == "live"]:
        if worker_id not in known:
            raise CannotRestart(f"no worker {worker_id} is registered; `tenure workers list --all` shows them")
        host = known[worker_id].host
        name = arguments.names.get(worker_id, worker_id)
        filled = fill_in(command, f"worker {worker_id}", worker=worker_id, host=host, name=name)
        targets.append(ForeignWorker(worker_id, filled))
    if len(targets) > 1 and len({tuple(target.command) for target in targets}) < len(targets):
        raise CannotRestart(
            f"`{' '.join(command)}` is the same for several workers: say which by {{worker}}, {{host}} or {{name}}"
        )
    return targets


def _is_young(target: MasterTarget, since: datetime | None, left_out: list[str]) -> bool:
    running: Running | None = target.running if isinstance(target, LocalMaster) else None
    if since is None or running is None or running.started_unix < since.timestamp():
        return False
    left_out.append(f"master {target.address} was started after --since")
    return True


def _is_young_worker(worker: WorkerRecord, since: datetime | None) -> bool:
    return since is not None and worker.registered_unix_ms / 1000 >= since.timestamp()


def moment(text: str) -> datetime:
    """A point in time, as an argument; without a zone it is UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give it as 2026-05-01T13:00:00Z") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
