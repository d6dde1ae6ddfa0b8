"""``restart-workers``: drain workers a few at a time, start them again, prove that nothing was lost or burned."""

from __future__ import annotations

import argparse
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from restarting.accounting import account
from restarting.console import (
    EXIT_CODES,
    Console,
    Exit,
    add_common_options,
    check_store,
    command_line,
    master_addresses,
    run,
    seconds,
    words,
)
from restarting.processes import (
    CALL_POLL_SECONDS,
    CannotRestart,
    Output,
    Ready,
    Recipe,
    RestartFailed,
    Running,
    run_command,
    start,
    undisturbed,
    wait_until,
)
from restarting.recovery import await_recovery
from restarting.snapshot import Snapshot, leased_now, read_evidence, take_snapshot
from tenure.client import Client

_PATIENCE_SECONDS = 30.0
_DRAIN_GRACE_SECONDS = 60.0
_DRAIN_MARGIN_SECONDS = 30.0

_EXAMPLES = """\
Each worker gets a SIGTERM, which drains it: its evaluations save a checkpoint, their tasks go back without burning an
attempt, and other workers go on with them. When it has ended it is started again as it was, and only when a master has
heard it is the next one's turn. Then every task is compared with what it was before. Running it again restarts again.

Workers on other machines, of systemd's or in containers are restarted by --via, once for each worker id, with
{worker} and {host} filled in. The command must let the drain finish (systemctl restart with the unit in ops/ does).

Examples:
    restart-workers /run/tenure/worker-*.json
    restart-workers worker-1.json worker-2.json --dry-run
    restart-workers worker-*.json --at-once 4 --drain-timeout 600
    restart-workers --via 'systemctl restart tenure-worker@{worker}'
    restart-workers --via 'ssh {host} sudo systemctl restart tenure-worker@{worker}' --worker gpu-7 --worker gpu-8

"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="restart-workers",
        usage="restart-workers (READY_FILE… | --via COMMAND [--worker ID…]) [OPTIONS]",
        description="Restart workers, one after the other, and prove that nothing was lost.",
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ready_files", metavar="READY_FILE", nargs="*", type=Path, help="the workers' --ready-file")
    parser.add_argument("--via", metavar="COMMAND", type=words, help="restart each worker by this command instead")
    parser.add_argument("--worker", metavar="ID", action="append", help="with --via: these (default: all live ones)")
    parser.add_argument("--at-once", metavar="N", type=int, default=1, help="workers down at one time (default: 1)")
    parser.add_argument(
        "--drain-timeout",
        metavar="S",
        type=seconds,
        help="for a worker to end in (default: its own drain grace and 30 s)",
    )
    parser.add_argument(
        "--ready-timeout", metavar="S", type=seconds, default=300.0, help="for it to be live again in (default: 300)"
    )
    add_common_options(parser)
    arguments = parser.parse_args(argv)
    if bool(arguments.ready_files) == bool(arguments.via):
        parser.error("give ready files, or --via")
    if arguments.worker and not arguments.via:
        parser.error("--worker goes with --via; ready files name their workers themselves")
    if arguments.at_once < 1:
        parser.error("--at-once must be at least 1")
    return run(_restart, arguments)


class _Target(Protocol):
    """A worker to be restarted."""

    worker_id: str

    def describe(self, console: Console) -> None:
        """Say what is about to be done."""

    def stop(self) -> None:
        """Have it drain and end; returns at once, or (somebody else restarts it) when it is up again."""

    def restart(self) -> str:
        """Once it has ended, start it. Returns what is wrong, '' if nothing is.

        Raises:
            RestartFailed: It didn't end, or can't be started.
        """

    def check(self) -> None:
        """Raises RestartFailed if it has ended again."""


@dataclass
class _LocalWorker:
    """A process on this machine."""

    worker_id: str
    running: Running
    recipe: Recipe
    output: Output
    drain_seconds: float
    child: subprocess.Popen[bytes] | None = None

    def describe(self, console: Console) -> None:
        console.say(f"worker {self.worker_id}, pid {self.running.pid}, to be drained by SIGTERM and started by")
        console.recipe(self.recipe, self.output)

    def stop(self) -> None:
        self.output.open()
        self.running.signal(signal.SIGTERM)

    def restart(self) -> str:
        if not self.running.wait(self.drain_seconds):
            raise RestartFailed(
                f"worker {self.worker_id}, pid {self.running.pid}, still drains after {self.drain_seconds:g} s "
                f"and was left alone; when it has ended, start it by hand: {command_line(self.recipe.argv)}"
            )
        self.child = start(self.recipe, self.output)
        self.output.close()
        status = self.running.exit_status
        return f"worker {self.worker_id} ended its drain with status {status}" if status else ""

    def check(self) -> None:
        if self.child is not None and self.child.poll() is not None:
            raise RestartFailed(
                f"worker {self.worker_id} ended with status {self.child.returncode} after its start; its output says "
                f"why; once it can, start it by hand: {command_line(self.recipe.argv)}"
            )


@dataclass
class _ForeignWorker:
    """One that somebody else restarts for us."""

    worker_id: str
    command: Sequence[str]

    def describe(self, console: Console) -> None:
        console.say(f"worker {self.worker_id}, to be restarted by")
        console.say(f"  {command_line(self.command)}")

    def stop(self) -> None:
        run_command(self.command)

    def restart(self) -> str:
        return ""

    def check(self) -> None:
        """What became of it only its supervisor knows."""


def _local_worker(path: Path, arguments: argparse.Namespace) -> _LocalWorker:
    ready = Ready.read(path)
    if not ready.worker_id:
        raise CannotRestart(f"{path} is not a worker's ready file")
    running = Running.of(ready)
    recipe = running.recipe
    if not recipe.option("worker-id", "TENURE_WORKER_WORKER_ID"):
        # It would take any identity that is free, and leave what this one has spooled to somebody else.
        recipe = recipe.with_options({"TENURE_WORKER_WORKER_ID": ready.worker_id})
    grace = recipe.option("drain-grace-seconds", "TENURE_WORKER_DRAIN_GRACE_SECONDS")
    drain_seconds = arguments.drain_timeout
    if drain_seconds is None:
        drain_seconds = float(grace or _DRAIN_GRACE_SECONDS) + _DRAIN_MARGIN_SECONDS
    return _LocalWorker(ready.worker_id, running, recipe, Output(running, arguments.log), drain_seconds)


def _foreign_workers(client: Client, arguments: argparse.Namespace) -> Iterator[_ForeignWorker]:
    known = {worker.worker_id: worker for worker in client.workers(include_gone=True)}
    wanted = arguments.worker or [name for name, worker in known.items() if worker.status == "live"]
    for worker_id in wanted:
        if worker_id not in known:
            raise CannotRestart(f"no worker {worker_id} is registered; `tenure workers list --all` shows them")
        host = known[worker_id].host
        yield _ForeignWorker(
            worker_id, [part.replace("{worker}", worker_id).replace("{host}", host) for part in arguments.via]
        )


def _restart(arguments: argparse.Namespace, console: Console) -> Exit:
    local = [_local_worker(path, arguments) for path in arguments.ready_files]
    addresses = master_addresses(arguments.master, local[0].recipe.option("master", "TENURE_MASTER") if local else "")
    with Client(addresses, timeout_seconds=_PATIENCE_SECONDS) as client:
        targets: list[_Target] = [*local] if local else [*_foreign_workers(client, arguments)]
        if not targets:
            raise CannotRestart("no worker is live")
        before = take_snapshot(client)
        for target in targets:
            target.describe(console)
        console.say(
            f"before: {len(before.tasks)} tasks, {len(before.held())} of them under a lease, "
            f"{len(before.held(target.worker_id for target in targets))} on these {len(targets)} workers"
        )
        if arguments.dry_run:
            console.say("dry run: nothing was changed")
            return Exit.KEPT
        console.changing = True
        drained: dict[str, str] = {}
        wrong: list[str] = []
        for first in range(0, len(targets), arguments.at_once):
            batch = targets[first : first + arguments.at_once]
            drained |= _restart_batch(client, batch, before, arguments.ready_timeout, wrong, console)
        recovery = await_recovery(client, before, arguments.settle_timeout)
        after = take_snapshot(client, known=before.tasks)
        accounting = account(before, after, lambda task_ids: read_evidence(client, task_ids), drained=drained)
        accounting.figures["workers restarted"] = len(targets)
        accounting.breaches += [*wrong, *recovery.missing(arguments.settle_timeout)]
        check_store(client, accounting, skip=arguments.skip_fsck)
        return console.report(accounting, workers=[target.worker_id for target in targets])


def _restart_batch(
    client: Client,
    batch: Sequence[_Target],
    before: Snapshot,
    ready_seconds: float,
    wrong: list[str],
    console: Console,
) -> dict[str, str]:
    """Restart these workers together. Returns what they were running: their id by task id."""
    names = ", ".join(target.worker_id for target in batch)
    began = time.monotonic()
    restarted = {target.worker_id for target in batch}
    drained = {task_id: task.worker_id for task_id, task in leased_now(client).items() if task.worker_id in restarted}
    failures: list[RestartFailed] = []
    with undisturbed():
        for target in batch:
            target.stop()
        for target in batch:
            # One that hangs must not keep the others down.
            try:
                wrong += filter(None, [target.restart()])
            except RestartFailed as failure:
                failures.append(failure)
    if failures:
        raise failures[0]
    console.say(f"{names}: drained {len(drained)} tasks and started again after {time.monotonic() - began:.1f} s")

    def live_again() -> bool:
        for target in batch:
            target.check()
        live = {worker.worker_id: worker for worker in client.workers() if worker.status == "live"}
        return all(
            target.worker_id in live
            and live[target.worker_id].instance_id != before.workers.get(target.worker_id, ("",))[0]
            for target in batch
        )

    if not wait_until(live_again, ready_seconds, CALL_POLL_SECONDS):
        raise RestartFailed(f"{names}: not live again after {ready_seconds:g} s; their output says why")
    console.say(f"{names}: live again after {time.monotonic() - began:.1f} s")
    return drained
