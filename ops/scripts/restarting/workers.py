"""``restart-workers``: drain workers a few at a time, start them again, prove that nothing was lost or burned."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from restarting.accounting import account
from restarting.console import (
    EXIT_CODES,
    Console,
    Exit,
    add_common_options,
    check_store,
    known_violations,
    master_addresses,
    run,
    seconds,
    words,
)
from restarting.processes import CannotRestart, Output, Ready
from restarting.recovery import await_recovery
from restarting.resuming import Resumed, resuming, saying_what_is_left
from restarting.snapshot import read_evidence, take_snapshot
from restarting.templates import fill_in
from restarting.worker_target import ForeignWorker, LocalWorker, WorkerTarget, restart_together
from tenure.client import Client

_PATIENCE_SECONDS = 30.0

_EXAMPLES = """\
Each worker gets a SIGTERM, which drains it: its evaluations save a checkpoint, their tasks go back without burning an
attempt, and other workers go on with them. When it has ended it is started again as it was, and only when a master has
heard it is the next one's turn. Then every task is compared with what it was before. Running it again restarts again.
What it stops is noted until it is back: if this command is killed in between, the next run of it, or of another script
that restarts things, starts first what is down. Two at once are refused.

Workers on other machines, of systemd's or in containers are restarted by --via, once for each worker id, with
{worker} and {host} filled in. The command must let the drain finish (systemctl restart with the unit in ops/ does).

Examples:
    restart-workers /run/tenure/worker-*.json
    restart-workers worker-1.json worker-2.json --dry-run
    restart-workers worker-*.json --at-once 4 --drain-timeout 600
    restart-workers --via 'systemctl restart tenure-worker@{worker}'
    restart-workers --via 'ssh -- {host} sudo systemctl restart tenure-worker@{worker}' --worker gpu-7 --worker gpu-8

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


def _foreign_workers(client: Client, arguments: argparse.Namespace) -> Iterator[ForeignWorker]:
    known = {worker.worker_id: worker for worker in client.workers(include_gone=True)}
    wanted = arguments.worker or [name for name, worker in known.items() if worker.status == "live"]
    for worker_id in wanted:
        if worker_id not in known:
            raise CannotRestart(f"no worker {worker_id} is registered; `tenure workers list --all` shows them")
        host = known[worker_id].host
        yield ForeignWorker(worker_id, fill_in(arguments.via, f"worker {worker_id}", worker=worker_id, host=host))


def _restart(arguments: argparse.Namespace, console: Console) -> Exit:
    with resuming("restart-workers", arguments, console) as resumed:
        given, arguments.ready_files = arguments.ready_files, resumed.without_down(arguments.ready_files)
        if given and not arguments.ready_files:
            console.say("dry run: nothing was changed")
            return Exit.KEPT
        return resumed.go_on(lambda: _restart_them(arguments, resumed, console), console)


def _restart_them(arguments: argparse.Namespace, resumed: Resumed, console: Console) -> Exit:
    local = [
        LocalWorker.of(Ready.read(path), lambda running: Output(running, arguments.log), arguments.drain_timeout)
        for path in dict.fromkeys(path.absolute() for path in arguments.ready_files)
    ]
    addresses = master_addresses(arguments.master, local[0].recipe.option("master", "TENURE_MASTER") if local else "")
    with Client(addresses, timeout_seconds=_PATIENCE_SECONDS) as client:
        named: list[WorkerTarget] = [*local] if local else [*_foreign_workers(client, arguments)]
        if not named:
            raise CannotRestart("no worker is live")
        targets = [target for target in named if f"worker {target.worker_id}" not in resumed.started]
        for target in named:
            if target not in targets:
                console.say(f"left out: worker {target.worker_id} was started just now")
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
        before = replace(before, violations=known_violations(client, console, skip=arguments.skip_fsck))
        console.changing = True
        drained: set[tuple[str, int]] = set()
        wrong: list[str] = []
        for first in range(0, len(targets), arguments.at_once):
            batch = targets[first : first + arguments.at_once]
            resumed.record.will_stop([target.noted() for target in batch if isinstance(target, LocalWorker)])
            with saying_what_is_left(resumed.record, arguments.log, console):
                drained |= restart_together(client, batch, arguments.ready_timeout, wrong, console)
            resumed.record.is_back([f"worker {target.worker_id}" for target in batch])
        recovery = await_recovery(client, before, arguments.settle_timeout)
        after = take_snapshot(client, known=before.tasks)
        accounting = account(before, after, lambda task_ids: read_evidence(client, task_ids), drained=drained)
        accounting.figures["workers restarted"] = len(targets)
        accounting.breaches += [*wrong, *recovery.missing(arguments.settle_timeout)]
        check_store(client, accounting, before.violations, skip=arguments.skip_fsck)
        return console.report(accounting, workers=[target.worker_id for target in targets])
