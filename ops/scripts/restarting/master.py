"""``restart-master``: stop a master, start it again as it was, prove that nothing was lost."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from restarting.accounting import Accounting, account
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
    reachable,
    run_command,
    start,
    undisturbed,
    wait_until,
)
from restarting.recovery import await_recovery
from restarting.snapshot import Snapshot, read_evidence, take_snapshot
from tenure.client import Client
from tenure.common.errors import TenureError

_PATIENCE_SECONDS = 30.0
_GLANCE_SECONDS = 1.0

_EXAMPLES = """\
A master keeps nothing itself, so it may be restarted at any time: evaluations run on, keep their leases and deliver
their results. This command does it and proves it. It looks at every task before and after, waits until each worker
is heard and each lease renewed, and says what changed. Running it again restarts once more; that loses nothing either.

The process is started with the command line, environment, directory and output that it has now, or, after --,
with another command line (an upgrade). A port that the system chose is kept. A master of systemd's or in a container
is restarted by --via, since whoever supervises it would start a second one.

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
    target.add_argument("--pid", metavar="PID", type=int, help="its process; --master then says where it serves")
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


@dataclass(frozen=True)
class _Local:
    """A process on this machine.

    Attributes:
        address: Of the one master that is restarted.
        running: None: it doesn't run.
        recipe: How it is started.
        output: Where it writes to.
        ending: What ends it.
    """

    address: str
    running: Running | None
    recipe: Recipe
    output: Output
    ending: signal.Signals

    def describe(self, console: Console) -> None:
        """Say what is about to be done."""
        if self.running is not None:
            console.say(f"pid {self.running.pid}, to be ended by {self.ending.name} and started by")
        else:
            console.say("to be started by")
        console.recipe(self.recipe, self.output)

    def carry_out(self, arguments: argparse.Namespace, has_come: Callable[[], bool], console: Console) -> None:
        """End it, start it, wait for it.

        Raises:
            RestartFailed: It didn't end, or did not come back.
        """
        self.output.open()
        with undisturbed():
            if self.running is not None:
                _stop(self.running, self.ending, arguments.stop_timeout, console)
            child = start(self.recipe, self.output)
            self.output.close()
        console.say(f"started pid {child.pid}")
        by_hand = f"once it can, start it by hand: {command_line(self.recipe.argv)}"
        wait_until(lambda: child.poll() is not None or has_come(), arguments.ready_timeout, CALL_POLL_SECONDS)
        if child.poll() is not None:
            raise RestartFailed(f"the new master ended with status {child.returncode}; its output says why; {by_hand}")
        if not has_come():
            raise RestartFailed(
                f"pid {child.pid} does not serve at {self.address} after {arguments.ready_timeout:g} s; it was left "
                "alone; its output says what it waits for"
            )


@dataclass(frozen=True)
class _Via:
    """Somebody else restarts the master for us."""

    address: str
    command: Sequence[str]

    def describe(self, console: Console) -> None:
        """Say what is about to be done."""
        console.say("to be restarted by")
        console.say(f"  {command_line(self.command)}")

    def carry_out(self, arguments: argparse.Namespace, has_come: Callable[[], bool], console: Console) -> None:
        """Have it done, wait for the new master.

        Raises:
            RestartFailed: The command failed, or none came.
        """
        run_command(self.command)
        if not wait_until(has_come, arguments.ready_timeout, CALL_POLL_SECONDS):
            raise RestartFailed(f"no new master answers at {self.address} after {arguments.ready_timeout:g} s")


def _make_plan(arguments: argparse.Namespace) -> _Local | _Via:
    address = master_addresses(arguments.master).partition(",")[0]
    if arguments.via:
        return _Via(address, arguments.via)
    ready = running = None
    try:
        if arguments.ready_file is not None:
            ready = Ready.read(arguments.ready_file)
            address = reachable(ready.grpc)
            running = Running.of(ready)
        else:
            running = Running(arguments.pid)
    except CannotRestart as error:
        if not arguments.command:
            raise CannotRestart(f"{error}; to start one, give its command line after --") from None
    recipe = running.recipe if running is not None else Recipe.of_this_process()
    if arguments.command:
        recipe = replace(recipe, argv=tuple(arguments.command))
    if ready is not None and recipe.option("listen", "TENURE_MASTER_LISTEN").endswith(":0"):
        # Workers and clients know the port that the system chose; another one they would never find.
        recipe = recipe.with_options({"TENURE_MASTER_LISTEN": ready.grpc})
    ending = signal.SIGKILL if arguments.kill else signal.SIGTERM
    return _Local(address, running, recipe, Output(running, arguments.log), ending)


def _restart(arguments: argparse.Namespace, console: Console) -> Exit:
    plan = _make_plan(arguments)
    addresses = master_addresses(arguments.master, plan.address)
    with (
        Client(addresses, timeout_seconds=_PATIENCE_SECONDS) as client,
        Client(plan.address, timeout_seconds=_GLANCE_SECONDS) as glance,
    ):
        old_id = _master_id(glance)
        console.say(f"master {old_id or '(none answers)'} at {plan.address}")
        starts_anew = isinstance(plan, _Local) and plan.running is None
        before = None if arguments.unproved or starts_anew else take_snapshot(client)
        plan.describe(console)
        if before is not None:
            console.say(
                f"before: {len(before.tasks)} tasks, {len(before.held())} of them under a lease, "
                f"{len(before.workers)} live workers"
            )
        if arguments.dry_run:
            console.say("dry run: nothing was changed")
            return Exit.KEPT
        console.changing = True
        began = time.monotonic()
        plan.carry_out(arguments, lambda: _master_id(glance) not in ("", old_id), console)
        down_seconds = time.monotonic() - began
        console.say(f"a new master answers at {plan.address} after {down_seconds:.1f} s")
        accounting = _account(client, before, arguments.settle_timeout, console)
        check_store(client, accounting, skip=arguments.skip_fsck)
        return console.report(
            accounting, proved=before is not None, master_id=_master_id(glance), down_seconds=round(down_seconds, 3)
        )


def _master_id(glance: Client) -> str:
    """Of the master that answers now; '' if none does."""
    try:
        return glance.stats().master_id
    except TenureError:
        return ""


def _stop(running: Running, number: signal.Signals, timeout_seconds: float, console: Console) -> None:
    began = time.monotonic()
    running.signal(number)
    if not running.wait(timeout_seconds):
        raise RestartFailed(
            f"process {running.pid} still runs {timeout_seconds:g} s after {number.name}, and was left alone; "
            "give --stop-timeout, or --kill"
        )
    console.say(f"ended after {time.monotonic() - began:.1f} s")


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
