"""``rolling-restart``: masters, workers and the store, one after the other, under the eyes of a client."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

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
)
from restarting.groups import Amount, Selector
from restarting.interruptions import finishing
from restarting.master_target import Patience
from restarting.plan import Processes, make_steps, moment
from restarting.probe import Probe, Seen
from restarting.processes import CannotRestart, RestartFailed
from restarting.recovery import await_recovery
from restarting.resuming import Resumed, resuming, say_what_is_left
from restarting.run_record import RunRecord
from restarting.snapshot import Snapshot, read_evidence, take_snapshot
from restarting.steps import Rolling, Step, WorkersStep
from restarting.templates import naming, template
from tenure.client import Client
from tenure.common.errors import TenureError

_PATIENCE_SECONDS = 30.0
# Where it was stopped, nobody may answer for long.
_ABANDONED_SECONDS = 2.0
_GO_ON = (
    "to go on, run the same command again: it starts first what is down, and leaves out what was restarted already "
    "(--anew would restart that, too)"
)
_KINDS = ("masters", "workers", "store")

_EXAMPLES = """\
WHAT is any of masters, workers and store; all, the default, is the three of them. The order is always: the store, then
masters, then workers. Masters one at a time: the next when the last serves, every worker was heard and every lease
renewed. Workers by groups, few at a time: each drains by SIGTERM, which burns nothing, and the next go when it is live
with all its slots. The store: an embedded one goes with its master (alone: by a signal to its server); an external
one by --store-via, and has loaded its file before anything else happens; of Sentinel's or a Cluster's servers replicas
go first, and a primary when a replica has taken over with everything that was written.

Processes on this machine are named by the --ready-file that they write, and are started again as they were. What
somebody else supervises is restarted by --masters-via, --workers-via and --store-via: a command with {host}, {port},
{address}, {worker} or {name} in it (--name says what {name} is), or one word of: systemd ssh docker compose kubectl.

Meanwhile clients like a user's call and watch the masters, and the account at the end says what they saw. They read
only, and leave nothing behind; --probe writes has them submit, too: one task of a paused search of their own.

At the first trouble it stops and says what to do. Run the same command again then: what has been restarted is left
out. Nothing is done twice at once: a second run on this machine is refused.

Examples:
    rolling-restart --ready-file /run/tenure/*.json --dry-run
    rolling-restart --ready-file master-1.json master-2.json worker-*.json --store-via systemd
    rolling-restart masters --masters-via 'ssh -- {host} sudo systemctl restart tenure-master' --master a:50051,b:50051
    rolling-restart workers --workers-via ssh --group zone --max-unavailable 25%
    rolling-restart workers --workers-via kubectl --group gpu=a100* --group gpu
    rolling-restart store --store-via docker --name 10.0.0.7:6379=valkey-1 --name 10.0.0.8:6379=valkey-2
    rolling-restart all --masters-via systemd --workers-via systemd --yes --output json > account.json

"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    arguments.what = [*_KINDS] if not arguments.what or "all" in arguments.what else arguments.what
    if unknown := set(arguments.what) - set(_KINDS):
        parser.error(f"{' '.join(sorted(unknown))}: choose from masters, workers, store, all")
    settle_targets(parser, arguments)
    return run(_restart, arguments)


def settle_targets(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """What follows from the target options; ends the process if they contradict each other."""
    arguments.names = dict(arguments.name)
    arguments.keep_output = False
    if arguments.worker and not arguments.workers_via:
        parser.error("--worker goes with --workers-via; ready files name their workers themselves")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="rolling-restart",
        usage="rolling-restart [WHAT…] [--ready-file FILE…] [--masters-via C] [--workers-via C] [OPTIONS]",
        description="Restart masters, workers and the store, one after the other, and prove that nothing was lost.",
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", metavar="WHAT", nargs="*", help="masters, workers, store, or all (default: all)")
    add_target_options(parser)
    parser.add_argument("--since", metavar="TIME", type=moment, help="leave out what was started after (ISO 8601, UTC)")
    add_common_options(parser)
    return parser


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """What is restarted, how, and how it is watched."""
    group = parser.add_argument_group("what is restarted, and how")
    group.add_argument(
        "--ready-file", metavar="FILE", nargs="+", action="extend", type=Path, default=[], help="of masters and workers"
    )
    for kind in _KINDS:
        group.add_argument(f"--{kind}-via", metavar="COMMAND", type=template, help=f"restarts {kind}; see below")
    group.add_argument("--worker", metavar="ID", action="append", help="with --workers-via: these (default: all live)")
    group.add_argument(
        "--name", metavar="TARGET=NAME", type=naming, action="append", default=[], help="{name} of an address or worker"
    )
    group.add_argument(
        "--store", metavar="URL", help="the store, where a master's ready file doesn't lead there (TENURE_MASTER_STORE)"
    )
    group.add_argument(
        "--group",
        metavar="KEY[=PATTERN]",
        type=Selector.parse,
        action="append",
        default=[],
        help="groups of workers by a label, host or id, one after the other; repeatable",
    )
    group.add_argument(
        "--max-unavailable",
        metavar="N|P%",
        type=Amount.parse,
        default=Amount(1, percent=False),
        help="workers down at one time (default: 1)",
    )
    group.add_argument(
        "--new-ids", action="store_true", help="workers may come back under other ids (pods of a Deployment)"
    )
    group = parser.add_argument_group("how long, and how")
    group.add_argument("--stop-timeout", metavar="S", type=seconds, default=60.0, help="for a master to end in (60)")
    group.add_argument(
        "--drain-timeout", metavar="S", type=seconds, help="for a worker to end in (its own drain grace and 30 s)"
    )
    group.add_argument(
        "--ready-timeout", metavar="S", type=seconds, default=300.0, help="for anything to be back in (default: 300)"
    )
    group.add_argument(
        "--probe", choices=("reads", "writes", "none"), default="reads", help="what clients do meanwhile (reads)"
    )
    group.add_argument("--anew", action="store_true", help="also what a run that was broken off has restarted already")
    group.add_argument("--yes", action="store_true", help="don't ask, at a terminal")


def _restart(arguments: argparse.Namespace, console: Console) -> Exit:
    with resuming("rolling-restart", arguments, console) as resumed:
        arguments.ready_file = resumed.without_down(arguments.ready_file)
        return resumed.go_on(lambda: _restart_the_rest(arguments, resumed, console), console)


def _restart_the_rest(arguments: argparse.Namespace, resumed: Resumed, console: Console) -> Exit:
    processes = Processes.read(arguments)
    addresses = master_addresses(arguments.master, processes.addresses)
    with Client(addresses, timeout_seconds=_PATIENCE_SECONDS) as client:
        steps = _what_is_left(arguments, processes, addresses, client, resumed, console)
        if arguments.dry_run:
            _say_plan(console, client, steps, in_full=True)
            console.say("dry run: nothing was changed")
            return Exit.KEPT
        before = _say_plan(console, client, steps, in_full=False)
        before = replace(before, violations=known_violations(client, console, skip=arguments.skip_fsck))
        if not console.confirmed(
            f"go on with {len(steps)} step{'s' * (len(steps) != 1)}, as above?", yes=arguments.yes
        ):
            console.say("nothing was changed")
            return Exit.BROKEN
        console.changing = True
        rolling = Rolling(
            client,
            console,
            Patience(arguments.stop_timeout, arguments.ready_timeout),
            arguments.settle_timeout,
        )
        return roll(rolling, steps, resumed.record, before, addresses, arguments)


def _what_is_left(
    arguments: argparse.Namespace,
    processes: Processes,
    addresses: str,
    client: Client,
    resumed: Resumed,
    console: Console,
) -> list[Step]:
    """The steps, without what a run that was broken off has done, and what was started after it just now."""
    record = resumed.record
    if arguments.anew:
        record.forget()
    steps, left_out = make_steps(arguments, processes, addresses, client)
    left: list[Step] = []
    for step in steps:
        identities = step.identities()
        done = {name for name in step.names if record.has_done(name, identities.get(name, ""))}
        left_out += [f"{name} was restarted by the run that began at {record.begun}" for name in sorted(done)]
        now = {name for name in step.names if name in resumed.started} - done
        left_out += [f"{name} was started just now" for name in sorted(now)]
        done |= now
        if isinstance(step, WorkersStep):
            targets = [target for target, name in zip(step.targets, step.names, strict=True) if name not in done]
            if targets:
                left.append(replace(step, targets=targets))
        elif not done:
            left.append(step)
    for sentence in left_out:
        console.say(f"left out: {sentence}")
    return left


def _say_plan(console: Console, client: Client, steps: Sequence[Step], *, in_full: bool) -> Snapshot:
    """Say what is to be done, in full also how. Returns how things are before."""
    before = take_snapshot(client)
    for number, step in enumerate(steps, start=1):
        console.say(f"step {number}: {step.title}")
        if in_full:
            step.describe(console)
    console.say(
        f"before: {len(before.tasks)} tasks, {len(before.held())} of them under a lease, "
        f"{len(before.workers)} live workers; {len(steps)} step{'s' * (len(steps) != 1)}"
    )
    return before


def roll(
    rolling: Rolling,
    steps: Sequence[Step],
    record: RunRecord,
    before: Snapshot,
    addresses: str,
    arguments: argparse.Namespace,
) -> Exit:
    """Go through the steps and give account of it; returns the exit code."""
    console, began = rolling.console, time.monotonic()
    failure: Exception | None = None
    complete = False
    probe = None if arguments.probe == "none" else Probe(addresses, writes=arguments.probe == "writes")
    seen: Seen | None = None
    try:
        if probe is not None:
            probe.start()
        for number, step in enumerate(steps, start=1):
            console.say(f"step {number} of {len(steps)}: {step.title}")
            if probe is not None:
                probe.step = step.title
            with finishing(step.title):
                record.will_stop(step.stopped())
                step.carry_out(rolling)
                for name, identity in step.identities().items():
                    record.note(name, identity)
        if probe is not None:
            probe.step = "the end"
        complete = True
    except (RestartFailed, CannotRestart, TenureError) as error:
        failure = error
    except KeyboardInterrupt:
        say_what_is_left(record, arguments.log, console, _GO_ON)
        raise
    finally:
        if probe is not None:
            seen = probe.stop() if complete else probe.stop(patience_seconds=_ABANDONED_SECONDS)
    if failure is None:
        record.finish()
    else:
        console.fail(failure, Exit.FAILED)
        say_what_is_left(record, arguments.log, console, _GO_ON)
    accounting = give_account(rolling, before, arguments, complete=failure is None)
    if accounting is None:
        return Exit.FAILED
    result = report(console, accounting, seen, time.monotonic() - began, steps, failure)
    return Exit.FAILED if failure is not None else result


def give_account(
    rolling: Rolling, before: Snapshot, arguments: argparse.Namespace, *, complete: bool
) -> Accounting | None:
    """None: the restart was broken off and no master answers, so nothing can be said."""
    client = rolling.client
    try:
        recovery = await_recovery(client, before, arguments.settle_timeout if complete else 0)
        after = take_snapshot(client, known=before.tasks)
        accounting = account(before, after, lambda task_ids: read_evidence(client, task_ids), drained=rolling.drained)
        if complete:
            accounting.breaches += [*rolling.wrong, *recovery.missing(arguments.settle_timeout)]
        check_store(client, accounting, before.violations, skip=arguments.skip_fsck)
    except TenureError:
        if complete:
            raise
        return None
    return accounting


def report(
    console: Console,
    accounting: Accounting,
    seen: Seen | None,
    duration_seconds: float,
    steps: Sequence[Step],
    failure: Exception | None = None,
    **facts: Any,
) -> Exit:
    """Say what it came to, and what clients saw of it; returns the exit code. ``facts`` go into the document."""
    lines = []
    if seen is not None:
        accounting.figures["errors seen by clients"] = len(seen.errors)
        accounting.breaches += [f"a client saw an error: {error}" for error in seen.errors]
        lines.append(
            f"longest unavailability seen by a client: {seen.longest_seconds:.2f} s, during {seen.longest_step or '-'} "
            f"({seen.calls} calls of {seen.clients} clients; usual: {seen.usual_seconds:.3f} s)"
        )
        lines += [f"  {wait:>8.2f} s  {step}" for step, wait in seen.by_step.items() if step]
    lines.append(f"duration: {duration_seconds:.1f} s")
    if failure is not None:
        accounting.notes.append(f"stopped before its end: {failure}")
    return console.report(
        accounting,
        lines,
        steps=[step.title for step in steps],
        unfinished=failure is not None,
        stopped=str(failure) if failure is not None else "",
        clients=asdict(seen) if seen is not None else None,
        duration_seconds=round(duration_seconds, 3),
        **facts,
    )
