"""``restart-master``: stop a master, start it again as it was, prove that nothing was lost."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from restarting.accounting import Accounting, account
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
from restarting.master_target import ForeignMaster, LocalMaster, Patience, keeping_port, master_id
from restarting.processes import CannotRestart, Output, Ready, Recipe, Running, reachable
from restarting.recovery import await_recovery
from restarting.resuming import Resumed, resuming, saying_what_is_left
from restarting.snapshot import Snapshot, read_evidence, take_snapshot
from restarting.stopped import Stopped
from tenure.client import Client

_PATIENCE_SECONDS = 30.0
_GLANCE_SECONDS = 1.0

_EXAMPLES = """\
A master keeps nothing itself, so it may be restarted at any time: evaluations run on, keep their leases and deliver
their results. This command does it and proves it. It looks at every task before and after, waits until each worker
is heard and each lease renewed, and says what changed. Running it again restarts once more; that loses nothing either.

The process is started with the command line, environment, directory and output that it has now, or, after --,
with another command line (an upgrade). A port that the system chose is kept. A master of systemd's or in a container
is restarted by --via, since whoever supervises it would start a second one.

What it stops is noted until it is back: if this command is killed in between, or what it starts ends, the next run of
it, or of another script that restarts things, starts first what is down, as it was. Two at once are refused.
With the same command line after -- what it started already is waited for; with another one that is ended first.

Examples:
    restart-master --ready-file /run/tenure/master.json
    restart-master --ready-file master.json --dry-run
    restart-master --ready-file master.json --kill                 (a crash, on purpose)
    restart-master --pid 4711 --master 127.0.0.1:50051
    restart-master --ready-file master.json -- /opt/tenure-0.2/bin/tenure master --data-dir /var/lib/tenure/master
    restart-master --via 'systemctl restart tenure-master' --master 127.0.0.1:50051
    restart-master --via 'docker compose restart master-1' --master localhost:50051

"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    position = given.index("--") if "--" in given else len(given)
    arguments = _parser().parse_args(given[:position])
    arguments.command = given[position + 1 :]
    if arguments.via and (arguments.command or arguments.kill):
        _parser().error("--via restarts by its own means: neither --kill nor a command line goes with it")
    return run(_restart, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="restart-master",
        usage="restart-master (--ready-file FILE | --pid PID | --via COMMAND) [OPTIONS] [-- COMMAND LINE]",
        description="Restart a master and prove that nothing was lost.",
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--ready-file", metavar="FILE", type=Path, help="what the master was told by --ready-file")
    target.add_argument(
        "--pid", metavar="PID", type=int, help="its process; --master says where it serves if it doesn't"
    )
    target.add_argument("--via", metavar="COMMAND", type=words, help="restart it by this command instead")
    parser.add_argument("--kill", action="store_true", help="SIGKILL instead of SIGTERM")
    parser.add_argument(
        "--stop-timeout", metavar="S", type=seconds, default=60.0, help="for it to end in (default: 60)"
    )
    parser.add_argument(
        "--ready-timeout",
        metavar="S",
        type=seconds,
        default=180.0,
        help="for it to serve again in; the embedded store reads its file first (default: 180)",
    )
    parser.add_argument(
        "--unproved", action="store_true", help="for a master that hangs: don't look before, so nothing is proved"
    )
    add_common_options(parser)
    return parser


def _make_plan(arguments: argparse.Namespace, left: Stopped | None) -> LocalMaster | ForeignMaster:
    """``left``: the master, if an earlier run stopped it and this one starts it by another command line."""
    address = master_addresses(arguments.master).partition(",")[0]
    if arguments.via:
        return ForeignMaster(address, arguments.via)
    if left is not None:
        recipe = keeping_port(replace(left.recipe, argv=tuple(arguments.command)), left.address)
        if recipe.argv == left.successor.argv:
            recipe = left.successor
        output = Output.at(left.outputs, arguments.log)
        return LocalMaster(left.address, None, recipe, output, left=left.meant_as(recipe))
    ready = running = None
    try:
        if arguments.ready_file is not None:
            ready = Ready.read(arguments.ready_file)
            address = reachable(ready.grpc)
            running = Running.of(ready)
        else:
            running = Running(arguments.pid)
            ready = _own_ready(running)
            if not arguments.master:
                address = _served_by(running, ready) or address
    except CannotRestart as error:
        if not arguments.command:
            raise CannotRestart(f"{error}; to start one, give its command line after --") from None
    if ready is not None and ready.worker_id:
        raise CannotRestart(f"{ready.path} is a worker's ready file; restart-workers restarts those")
    was = running.recipe if running is not None else Recipe.of_this_process()
    recipe = replace(was, argv=tuple(arguments.command)) if arguments.command else was
    if ready is not None:
        was, recipe = keeping_port(was, ready.grpc), keeping_port(recipe, ready.grpc)
    ending = signal.SIGKILL if arguments.kill else signal.SIGTERM
    return LocalMaster(address, running, recipe, Output(running, arguments.log), was, ending)


def _own_ready(running: Running) -> Ready | None:
    """The file by which it says who it is; None: it was told of none."""
    path = running.recipe.ready_file
    with contextlib.suppress(CannotRestart):
        ready = Ready.read(path) if path is not None else None
        if ready is not None and ready.pid == running.pid:
            running.ready = ready.path
            return ready
    return None


def _served_by(running: Running, ready: Ready | None) -> str:
    """Where it serves; '' if that can't be told."""
    listen = ready.grpc if ready is not None else running.recipe.option("listen", "TENURE_MASTER_LISTEN")
    return reachable(listen) if not listen.endswith(":0") else ""


def _is_named(stopped: Stopped, arguments: argparse.Namespace) -> bool:
    """Whether it is the master that is to be restarted."""
    if arguments.ready_file is not None:
        ready: Path = arguments.ready_file
        return stopped.ready == ready.absolute()
    return bool(stopped.pid == arguments.pid)


def _restart(arguments: argparse.Namespace, console: Console) -> Exit:
    known: list[Stopped] = []

    def as_meant(stopped: Stopped) -> Stopped | None:
        """It is started by the new command line at once: the old one may be what is wrong."""
        if not _is_named(stopped, arguments):
            return stopped
        known.append(stopped)
        return None if arguments.command else stopped

    with resuming("restart-master", arguments, console, as_meant=as_meant) as resumed:
        named = next((each for each in resumed.down if _is_named(each, arguments)), None)
        if named is not None and not arguments.command:
            console.say("dry run: nothing was changed")
            return Exit.KEPT
        if arguments.pid and known and (successor := known[0].serving_pid) is not None:
            # The process that was named has ended, and this one has its place.
            arguments.pid, arguments.master = successor, arguments.master or known[0].address
        return resumed.go_on(lambda: _restart_it(arguments, resumed, named, console), console)


def _restart_it(arguments: argparse.Namespace, resumed: Resumed, left: Stopped | None, console: Console) -> Exit:
    plan = _make_plan(arguments, left)
    name = f"master {plan.address}"
    addresses = master_addresses(arguments.master, plan.address)
    with (
        Client(addresses, timeout_seconds=_PATIENCE_SECONDS) as client,
        Client(plan.address, timeout_seconds=_GLANCE_SECONDS) as glance,
    ):
        old_id = master_id(glance)
        # That one is no predecessor: it is what is waited for, and may have come to serve just now.
        passed = "" if isinstance(plan, LocalMaster) and plan.coming_pid is not None else old_id
        console.say(f"master {old_id or '(none answers)'} at {plan.address}")
        starts_anew = isinstance(plan, LocalMaster) and plan.running is None
        started_just_now = name in resumed.started
        before = None if arguments.unproved or starts_anew or started_just_now else take_snapshot(client)
        if not started_just_now:
            plan.describe(console)
        if before is not None:
            console.say(
                f"before: {len(before.tasks)} tasks, {len(before.held())} of them under a lease, "
                f"{len(before.workers)} live workers"
            )
        if arguments.dry_run:
            console.say("dry run: nothing was changed")
            return Exit.KEPT
        if before is not None:
            before = replace(before, violations=known_violations(client, console, skip=arguments.skip_fsck))
        console.changing = True
        began = time.monotonic()
        if started_just_now:
            console.say(f"{name} was started just now: it is not restarted once more")
        else:
            _carry_out(plan, lambda: master_id(glance) not in ("", passed), arguments, resumed, console)
            resumed.record.is_back([name])
        down_seconds = time.monotonic() - began
        console.say(f"a new master answers at {plan.address} after {down_seconds:.1f} s")
        accounting = _account(client, before, arguments.settle_timeout, console)
        known = before.violations if before is not None else ()
        check_store(client, accounting, known, skip=arguments.skip_fsck)
        return console.report(
            accounting, proved=before is not None, master_id=master_id(glance), down_seconds=round(down_seconds, 3)
        )


def _carry_out(
    plan: LocalMaster | ForeignMaster,
    has_come: Callable[[], bool],
    arguments: argparse.Namespace,
    resumed: Resumed,
    console: Console,
) -> None:
    patience = Patience(arguments.stop_timeout, arguments.ready_timeout)
    with saying_what_is_left(resumed.record, arguments.log, console):
        if isinstance(plan, LocalMaster):
            if plan.left is not None:
                # Before another successor is noted: once it is, nobody knows this one any more.
                plan.left.end_unwanted(console)
            noted = plan.noted()
            resumed.record.will_stop([noted] if noted is not None else [])
        plan.carry_out(patience, has_come, console)


def _account(client: Client, before: Snapshot | None, settle_seconds: float, console: Console) -> Accounting:
    if before is None:
        return Accounting(notes=["there was no look before, so nothing is proved but the state of the store"])
    began = time.monotonic()
    recovery = await_recovery(client, before, settle_seconds)
    console.say(
        f"{len(before.workers) - len(recovery.silent)} of {len(before.workers)} workers were heard and "
        f"{recovery.leases - len(recovery.unrenewed)} of {recovery.leases} leases renewed or ended after "
        f"{time.monotonic() - began:.1f} s"
    )
    after = take_snapshot(client, known=before.tasks)
    accounting = account(before, after, lambda task_ids: read_evidence(client, task_ids))
    accounting.breaches += recovery.missing(settle_seconds)
    return accounting
