"""What both commands share: options, exit codes, what they print."""

from __future__ import annotations

import argparse
import enum
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripting.console import PlainConsole, add_output_options

from restarting.accounting import Accounting, shortened
from restarting.interruptions import all_alike
from restarting.processes import AnotherRun, CannotRestart, Output, Recipe, RestartFailed
from tenure.client import Client
from tenure.common.errors import InvalidSetting, TenureError
from tenure.common.passwords import without_passwords
from tenure.common.paths import data_home

DEFAULT_MASTER = "127.0.0.1:50051"
_PROGRESS_SECONDS = 10.0
OLD_VIOLATIONS = "`tenure fsck` shows them all, and ops/runbooks/TenureFsckViolations.md says what to do"


class Exit(enum.IntEnum):
    """Exit codes; where a number of ``tenure`` means the same, it is the same."""

    KEPT = 0
    BROKEN = 1
    USAGE = 2
    UNAVAILABLE = 3
    REFUSED = 5
    FAILED = 6
    ROLLED_BACK = 9
    INTERRUPTED = 130


EXIT_CODES = """\
Exit codes:
    0  done, and every promise was kept (or, with --dry-run, it could be done)
    1  done, but a promise broke, or something did not come back to work; the report says what
       (violations that fsck finds before, too, are a note; only new ones break a promise)
    2  bad usage, or what is named can't be restarted from here; nothing was changed
    3  no master answers, so nothing could be proved; nothing was changed
    5  another run is going on; nothing was changed
    6  a process did not end or start again, or no master answers any more; the message says what to do
  130  stopped by Ctrl-C, SIGTERM or a hang-up; what is not back is said, and started first by the next run
"""


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Options that both commands have."""
    parser.add_argument("--master", metavar="H:P[,H:P…]", help="masters to ask for the accounts (TENURE_MASTER)")
    parser.add_argument(
        "--settle-timeout",
        metavar="S",
        type=seconds,
        default=90.0,
        help="how long workers may take to come back and renew their leases (default: 90)",
    )
    parser.add_argument("--log", metavar="FILE", type=Path, help="append output here, instead of where it goes now")
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        type=Path,
        default=data_home() / "ops",
        help="where runs keep each other out and leave word (default: ops/ below TENURE_HOME)",
    )
    parser.add_argument("--skip-fsck", action="store_true", help="don't check the store's indexes at the end")
    add_output_options(parser)


def seconds(text: str) -> float:
    """An argument in seconds."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("give seconds, at least 0")
    return value


def words(text: str) -> list[str]:
    """A command in one argument, taken apart as a shell would."""
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is no command: {error}") from None
    if not parts:
        raise argparse.ArgumentTypeError("give a command")
    return parts


def command_line(argv: Sequence[str]) -> str:
    """As a person would type it."""
    # Before it is quoted: quotes would part a password that has some.
    return shlex.join(map(without_passwords, argv))


def master_addresses(given: str | None, fallback: str = "") -> str:
    """Where the accounts are asked for."""
    return given or fallback or os.environ.get("TENURE_MASTER", "") or DEFAULT_MASTER


def run(command: Callable[[argparse.Namespace, Console], Exit], arguments: argparse.Namespace) -> int:
    """Carry a command out; every expected error becomes a line on stderr and its exit code."""
    console = Console(as_json=arguments.output == "json")
    # That no master answers meanwhile is what is expected here, not news.
    logging.getLogger("tenure.client").setLevel(logging.ERROR)
    try:
        with all_alike():
            return command(arguments, console)
    except AnotherRun as error:
        return console.fail(error, Exit.REFUSED)
    except (CannotRestart, InvalidSetting) as error:
        return console.fail(error, Exit.USAGE)
    except RestartFailed as error:
        return console.fail(error, Exit.FAILED)
    except TenureError as error:
        return console.fail(error, Exit.FAILED if console.changing else Exit.UNAVAILABLE)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


class Console(PlainConsole):
    """Says also how far what is waited for has come, and what a restart came to.

    Attributes:
        changing: Whether something may have been changed already.
    """

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(as_json=as_json)
        self.changing = False

    def progress(self, line: str) -> Callable[[], None]:
        """To be called again and again while something is waited for: says so every ten seconds."""
        began = time.monotonic()
        said = began

        def waiting() -> None:
            nonlocal said
            if time.monotonic() - said >= _PROGRESS_SECONDS:
                said = time.monotonic()
                self.say(f"{line}, after {said - began:.0f} s")

        return waiting

    def confirmed(self, question: str, *, yes: bool) -> bool:
        """Whether a person at a terminal agrees; nobody is asked with ``yes``, or where no person can answer."""
        if yes or not sys.stdin.isatty():
            return True
        self._stream.write(f"{question} [y/N] ")
        self._stream.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def fail(self, error: Exception, code: Exit) -> Exit:
        """The error on stderr; returns the code."""
        self._stream.flush()
        sys.stderr.write(f"error: {error}\n")
        return code

    def recipe(self, recipe: Recipe, output: Output) -> None:
        """How a process is started, so that a person could do it by hand."""
        self.say(f"  in {recipe.directory}, output to {output.description}")
        for name, value in recipe.settings.items():
            self.say(f"  {name}={shlex.quote(without_passwords(value))}")
        self.say(f"  {command_line(recipe.argv)}")

    def report(
        self, accounting: Accounting, lines: Sequence[str] = (), *, unfinished: bool = False, **facts: Any
    ) -> Exit:
        """The result, in full; returns the exit code that it means.

        Args:
            accounting: The result.
            lines: More of it, for people.
            unfinished: It stopped before its end, and why was said.
            facts: The same, for the document.
        """
        if self.as_json:
            states = {state: {"before": before, "after": after} for state, (before, after) in accounting.states.items()}
            self.document({"kept": accounting.kept, **facts, **asdict(accounting), "states": states})
        else:
            self._print(accounting, lines, unfinished)
        return Exit.KEPT if accounting.kept else Exit.BROKEN

    def _print(self, accounting: Accounting, lines: Sequence[str], unfinished: bool) -> None:
        if accounting.states:
            self.say(f"{'the tasks known before':<24}{'before':>10}{'after':>10}")
            for state, (before, after) in accounting.states.items():
                self.say(f"  {state:<22}{before:>10}{after:>10}")
        for name, value in accounting.figures.items():
            self.say(f"{name:<24}{value:>20}")
        for line in lines:
            self.say(line)
        for note in shortened(accounting.notes):
            self.say(f"note: {note}")
        for breach in shortened(accounting.breaches):
            self.say(f"BROKEN: {breach}")
        kept = "kept: nothing was lost" if accounting.kept else "a promise broke; see above"
        if unfinished:
            kept = f"NOT DONE: it stopped before its end, see the error{'' if accounting.kept else '; a promise broke'}"
        self.say(kept)


def known_violations(client: Client, console: Console, *, skip: bool) -> frozenset[str]:
    """What is wrong with the store before anything is changed, for :func:`check_store`; said, too."""
    if skip:
        return frozenset()
    violations = client.fsck().violations
    if violations:
        console.say(
            f"note: fsck finds {len(violations)} violations before anything is changed: {violations[0]}; "
            f"{OLD_VIOLATIONS}"
        )
    return frozenset(violations)


def new_violations(found: Iterable[str], known: Iterable[str]) -> list[str]:
    """Those that weren't there before. What follows a semicolon is advice, which tasks that come and go may change."""
    subjects = {violation.partition(";")[0] for violation in known}
    return [violation for violation in found if violation.partition(";")[0] not in subjects]


def check_store(client: Client, accounting: Accounting, known: Iterable[str] = (), *, skip: bool) -> None:
    """Have the store's indexes proved; violations that were not ``known`` before are breaches."""
    if skip:
        return
    report = client.fsck()
    accounting.figures["tasks checked by fsck"] = report.tasks_checked
    new = new_violations(report.violations, known)
    accounting.breaches += [f"fsck: {violation}" for violation in new]
    if old := [violation for violation in report.violations if violation not in new]:
        accounting.notes += [f"fsck found this before, too: {violation}" for violation in old]
        accounting.notes.append(f"{len(old)} violations are older than this: {OLD_VIOLATIONS}")
