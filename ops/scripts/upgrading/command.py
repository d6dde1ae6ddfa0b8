"""``upgrade``: another version of masters and workers, under a running search, and back if it is no good."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from restarting.console import (
    EXIT_CODES,
    Console,
    Exit,
    add_common_options,
    master_addresses,
    new_violations,
    run,
    words,
)
from restarting.master_target import Patience
from restarting.plan import Processes, make_steps
from restarting.probe import Probe, Seen
from restarting.processes import CannotRestart, RestartFailed
from restarting.resuming import resuming, say_what_is_left
from restarting.rolling import add_target_options, give_account, report, settle_targets
from restarting.run_record import RunRecord
from restarting.snapshot import take_snapshot
from restarting.steps import MasterStep, Rolling, Step, WorkersStep

from tenure.client import Client
from tenure.common.errors import TenureError
from upgrading.change import Change, CommandedVersion, InstalledVersion
from upgrading.moving import back
from upgrading.preflight import back_up, backup_command, look
from upgrading.versions import Installer, Versions

_PATIENCE_SECONDS = 30.0
_GLANCE_SECONDS = 5.0

_EXAMPLES = """\
The new version is installed beside the old: ROOT/versions/X is a virtual environment for each, ROOT/current a link to
the one that is used, and ROOT/bin/tenure, which the units in ops/ start, leads there. Then, while searches run: a look
whether the new version reads the store, fsck, a backup; masters one by one, then workers few at a time, as
rolling-restart does it and with its account at the end. Each must come back with the new version, be heard, and have
its leases and slots. If one doesn't, all that were upgraded are taken back to the old version, at once and by itself.

Running it again goes on with what has another version yet. --rollback goes back to the version before, the same way,
or, where going back was not finished, by itself or by --rollback, finishes that. What it stops is noted until it is
back: if it is killed in between, the same command run again starts first what is down, as it was, and goes on;
--rollback starts that by the version that is gone back to.
Violations that fsck finds before refuse it, but not --rollback; --accept-violations goes on, and only new ones count.
Old and new versions of masters and workers work together, so some of them may wait for another day.

Where versions are somebody else's affair (images, other machines), --to-command makes the new version what starts from
now on, --back-command the old one, and --masters-via and --workers-via restart things: see rolling-restart --help.

Examples:
    upgrade --to 'tenure[torch]==0.2.0' --install-only                      (the first one: nothing runs yet)
    upgrade --to 'tenure[torch]==0.2.0' --masters-via systemd --workers-via systemd --backup-to /backup/tenure
    upgrade --to tenure-0.2.0-py3-none-any.whl --also my-evaluators==3 --ready-file /run/tenure/*.json --no-backup
    upgrade --to 'tenure[torch]' --ready-file /run/tenure/*.json --backup-to /backup/tenure --dry-run
    upgrade --rollback --masters-via systemd --workers-via systemd
    upgrade --to-command 'ansible-playbook tenure.yml -e version=0.2.0' --expect-version 0.2.0 \\
        --back-command 'ansible-playbook tenure.yml -e version=0.1.0' \\
        --masters-via ssh --workers-via ssh --max-unavailable 10% --backup-to /backup/tenure --store redis://store:6379

"""
_GO_ON = (
    "some may run the new version and some the old, which work together: run the same again to go on, "
    "or --rollback to go back; either starts first what is down"
)
_MORE_EXIT_CODES = """\
    9  it was rolled back: the old version runs, and every promise was kept; the output says why
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    settle_targets(parser, arguments)
    arguments.keep_output = True
    arguments.since = None
    wanted = [bool(arguments.to), bool(arguments.to_command), arguments.rollback]
    if sum(wanted) != 1 and not (arguments.rollback and arguments.back_command and not arguments.to):
        parser.error("give one of --to, --to-command and --rollback")
    if arguments.to_command and not arguments.back_command:
        parser.error("--to-command needs --back-command: a version that is no good must be left again")
    if arguments.install_only and not arguments.to:
        parser.error("--install-only goes with --to")
    backs_up = [bool(arguments.backup_to), bool(arguments.backup_command), arguments.no_backup]
    if sum(backs_up) != 1 and not arguments.rollback and not arguments.install_only:
        parser.error("give one of --backup-to, --backup-command and --no-backup")
    return run(_upgrade, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="upgrade",
        usage="upgrade (--to REQUIREMENT | --to-command C --back-command C | --rollback) [TARGETS] [OPTIONS]",
        description="Upgrade masters and workers under a running search, and roll back if the new version is no good.",
        epilog=_EXAMPLES + EXIT_CODES.rstrip("\n") + "\n" + _MORE_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("which version")
    group.add_argument("--to", metavar="REQUIREMENT", help="what pip installs: tenure[torch]==0.2.0, a wheel, …")
    group.add_argument(
        "--also", metavar="REQUIREMENT", action="append", default=[], help="what your evaluators need beside it"
    )
    group.add_argument("--pip-option", metavar="OPTION", action="append", default=[], help="--pip-option=--no-index …")
    group.add_argument(
        "--root", metavar="DIR", type=Path, default=Path("/opt/tenure"), help="of the versions (default: /opt/tenure)"
    )
    group.add_argument(
        "--python", metavar="PATH", default=sys.executable, help="makes the environment; has pip (default: this one)"
    )
    group.add_argument("--install-only", action="store_true", help="install and use it; restart nothing")
    group.add_argument("--to-command", metavar="COMMAND", type=words, help="makes the new version what starts")
    group.add_argument("--back-command", metavar="COMMAND", type=words, help="makes it the old one again")
    group.add_argument("--expect-version", metavar="X", default="", help="with --to-command: what must come up")
    group.add_argument("--rollback", action="store_true", help="to the version before (or by --back-command)")
    group.add_argument("--no-rollback", action="store_true", help="leave things as they are when one is no good")
    group = parser.add_argument_group("before it begins")
    group.add_argument("--backup-to", metavar="DIR", type=Path, help="have ops/scripts/backup copy the store to there")
    group.add_argument("--backup-command", metavar="COMMAND", type=words, help="back up by this command instead")
    group.add_argument("--no-backup", action="store_true", help="go without")
    group.add_argument(
        "--accept-violations",
        action="store_true",
        help="also if fsck finds some already (no backup is verified then: --no-backup)",
    )
    add_target_options(parser)
    add_common_options(parser)
    return parser


def _change(arguments: argparse.Namespace) -> Change:
    """What is to be changed; raises CannotRestart."""
    if arguments.to_command:
        return CommandedVersion(arguments.expect_version, arguments.to_command, arguments.back_command)
    if arguments.rollback and arguments.back_command:
        return CommandedVersion(arguments.expect_version, arguments.back_command, ["true"])
    versions = Versions(arguments.root)
    if arguments.rollback:
        if versions.leaving:  # going back was not finished; the links are back already
            return InstalledVersion(versions, versions.current, versions.current, versions.previous, None)
        if not versions.previous:
            raise CannotRestart(f"{versions.root} has no version before {versions.current or 'the first'}")
        return InstalledVersion(versions, versions.previous, versions.current, versions.previous, None)
    installer = Installer(arguments.python, [arguments.to, *arguments.also], arguments.pip_option)
    version = installer.version()
    # Of an upgrade that was broken off the links are there already; of going back, too.
    if versions.current == version and not versions.leaving:
        return InstalledVersion(versions, version, versions.previous, "", installer)
    return InstalledVersion(versions, version, versions.current, versions.previous, installer)


def _upgrade(arguments: argparse.Namespace, console: Console) -> Exit:
    change = _change(arguments)
    change.describe(console)
    if arguments.install_only:
        with contextlib.nullcontext() if arguments.dry_run else RunRecord(arguments.state_dir, "upgrade"):
            return _install_only(change, arguments, console)
    with resuming("upgrade", arguments, console, as_meant=change.restored) as resumed:
        arguments.ready_file = resumed.without_down(arguments.ready_file)
        return resumed.go_on(lambda: _upgrade_them(arguments, change, resumed.record, console), console)


def _upgrade_them(arguments: argparse.Namespace, change: Change, record: RunRecord, console: Console) -> Exit:
    processes = Processes.read(arguments)
    addresses = master_addresses(arguments.master, processes.addresses)
    with Client(addresses, timeout_seconds=_PATIENCE_SECONDS) as client:
        # What is wrong may be the new version's doing: nothing keeps anybody from going back.
        accepts = arguments.accept_violations or arguments.rollback
        originals, steps = _steps(arguments, processes, addresses, client, change)
        for number, step in enumerate(steps, start=1):
            console.say(f"step {number}: {step.title}")
            if arguments.dry_run:
                step.describe(console)
        if arguments.dry_run:
            look(client, processes.masters, None, console, accept_violations=accepts)
            console.say("dry run: nothing was installed or changed, and the new version was not looked into")
            return Exit.KEPT
        facts = change.prepare(console)
        known = look(client, processes.masters, facts, console, accept_violations=accepts)
        if not console.confirmed(
            f"upgrade in {len(steps)} step{'s' * (len(steps) != 1)}, as above?", yes=arguments.yes
        ):
            console.say("nothing was changed")
            return Exit.BROKEN
        if arguments.backup_command:
            back_up(arguments.backup_command, {}, console)
        elif arguments.backup_to:
            back_up(*backup_command(arguments.backup_to, processes.masters, arguments.store), console)
        console.changing = True
        patience = Patience(arguments.stop_timeout, arguments.ready_timeout)
        rolling = Rolling(client, console, patience, arguments.settle_timeout)
        return _Upgrade(rolling, change, originals, steps, record, known).run(addresses, arguments)


def _install_only(change: Change, arguments: argparse.Namespace, console: Console) -> Exit:
    if not arguments.dry_run:
        change.prepare(console)
        change.apply()
        console.say(f"version {change.version} is used from now on; nothing was restarted")
    return Exit.KEPT


def _steps(
    arguments: argparse.Namespace, processes: Processes, addresses: str, client: Client, change: Change
) -> tuple[list[Step], list[Step]]:
    """What has another version yet: as it runs now, and as it is to run."""
    arguments.what = [
        kind
        for kind, named in (
            ("masters", processes.masters or arguments.masters_via),
            ("workers", processes.workers or arguments.workers_via),
        )
        if named
    ]
    if not arguments.what:
        raise CannotRestart("nothing to upgrade is named: give --ready-file, --masters-via or --workers-via")
    originals: list[Step] = []
    steps, _ = make_steps(arguments, processes, addresses, client)
    for step in steps:
        versions = _versions(step, client)
        if isinstance(step, WorkersStep):
            targets = [t for t in step.targets if not change.version or versions.get(t.worker_id) != change.version]
            if targets:
                originals.append(replace(step, targets=targets))
        elif not change.version or set(versions.values()) != {change.version}:
            originals.append(step)
    return originals, [change.forward(step) for step in originals]


def _versions(step: Step, client: Client) -> dict[str, str]:
    """What the targets of a step run now, by worker id or address."""
    if isinstance(step, MasterStep):
        with Client(step.target.address, timeout_seconds=_GLANCE_SECONDS) as glance:
            try:
                return {step.target.address: glance.stats().version}
            except TenureError:
                return {step.target.address: ""}
    versions = {worker.worker_id: worker.version for worker in client.workers() if worker.status == "live"}
    if isinstance(step, WorkersStep):
        return {target.worker_id: versions.get(target.worker_id, "") for target in step.targets}
    return {}


class _Upgrade:
    """One upgrade, from the first change to the account.

    Args:
        originals: The steps as they would start what runs now.
        steps: The same, with the new version.
        record: Told of what is stopped.
        known: Violations that fsck found before.
    """

    def __init__(
        self,
        rolling: Rolling,
        change: Change,
        originals: Sequence[Step],
        steps: Sequence[Step],
        record: RunRecord,
        known: frozenset[str],
    ) -> None:
        self._known = known
        self._rolling, self._console, self._change, self._record = rolling, rolling.console, change, record
        self._originals, self._steps = originals, steps
        self._touched = 0
        self._probe: Probe | None = None

    def run(self, addresses: str, arguments: argparse.Namespace) -> Exit:
        """Go through the steps, and back if one fails; returns the exit code."""
        began = time.monotonic()
        before = replace(take_snapshot(self._rolling.client), violations=self._known)
        if arguments.probe != "none":
            self._probe = Probe(addresses, writes=arguments.probe == "writes")
            self._probe.start()
        failure: Exception | None = None
        stuck: Exception | None = None
        seen: Seen | None = None
        try:
            try:
                self._go()
            except (RestartFailed, CannotRestart, TenureError) as error:
                failure = error
                self._console.say(f"the new version is no good: {error}")
                if not arguments.no_rollback:
                    stuck = self._go_back()
        except KeyboardInterrupt:
            say_what_is_left(self._record, arguments.log, self._console, _GO_ON)
            raise
        finally:
            if self._probe is not None:
                self._probe.step = "the end"
                seen = self._probe.stop()
        rolled_back = failure is not None and stuck is None and not arguments.no_rollback
        accounting = give_account(self._rolling, before, arguments, complete=failure is None or rolled_back)
        if accounting is None:
            say_what_is_left(self._record, arguments.log, self._console, _GO_ON)
            return self._console.fail(stuck or failure or RestartFailed("no master answers"), Exit.FAILED)
        told = f"rolled back to the version before: {failure}" if rolled_back else ""
        if told:
            accounting.notes.append(told)
        result = report(
            self._console,
            accounting,
            seen,
            time.monotonic() - began,
            self._steps,
            None if rolled_back else stuck or failure,
            version=self._change.version,
            rolled_back=rolled_back,
            why=str(failure or ""),
        )
        if failure is None:
            return result
        if rolled_back:
            return Exit.ROLLED_BACK if result is Exit.KEPT else result
        say_what_is_left(self._record, arguments.log, self._console, _GO_ON)
        return self._console.fail(stuck or failure, Exit.FAILED)

    def _go(self) -> None:
        self._change.apply()
        for number, step in enumerate(self._steps, start=1):
            self._touched = number
            self._begin(f"step {number} of {len(self._steps)}", step.title)
            self._carry_out(step)
            self._check(step)
            last_master = isinstance(step, MasterStep) and not any(
                isinstance(later, MasterStep) for later in self._steps[number:]
            )
            if last_master:
                self._check_store()
        self._change.settle()

    def _go_back(self) -> Exception | None:
        """Take all that were touched back, the last one first; returns what was in the way."""
        try:
            self._change.revert()
            for position in reversed(range(self._touched)):
                step = back(self._steps[position], self._originals[position])
                self._begin("back", step.title)
                self._carry_out(step)
            self._change.settle(reverted=True)
        except (RestartFailed, CannotRestart, TenureError) as error:
            return RestartFailed(f"it could not be rolled back either: {error}")
        self._console.say("rolled back")
        return None

    def _begin(self, what: str, title: str) -> None:
        self._console.say(f"{what}: {title}")
        if self._probe is not None:
            self._probe.step = f"{title}, {what}" if what == "back" else title

    def _carry_out(self, step: Step) -> None:
        self._record.will_stop(step.stopped())
        step.carry_out(self._rolling)
        self._record.is_back(step.names)

    def _check(self, step: Step) -> None:
        """The gate after a step: what came up is the version that was meant."""
        if not self._change.version:
            return
        for name, version in _versions(step, self._rolling.client).items():
            if version != self._change.version and not getattr(step, "under_new_ids", False):
                raise RestartFailed(f"{name} came up with version {version or '(none)'}, not {self._change.version}")

    def _check_store(self) -> None:
        violations = new_violations(self._rolling.client.fsck().violations, self._known)
        if violations:
            raise RestartFailed(f"with the new masters the store has {len(violations)} new violations: {violations[0]}")
