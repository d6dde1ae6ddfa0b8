"""How a command that stops things begins: alone, and with what an earlier run has left down. And what it says if it is
broken off itself.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from restarting.console import Console, Exit
from restarting.processes import CannotRestart, RestartFailed
from restarting.run_record import RunRecord
from restarting.stopped import Stopped, start_again
from tenure.common.errors import TenureError

_GO_ON = "to go on, run the same command again: it starts first what is down"


@dataclass(frozen=True)
class Resumed:
    """A run that has begun.

    Attributes:
        record: To be told what is stopped, and what is back.
        started: Names of what was down, and was started just now.
        down: In a dry run: what would be started first. Else: what was left to the run itself.
    """

    record: RunRecord
    started: Collection[str] = ()
    down: Sequence[Stopped] = ()
    is_dry: bool = False

    def without_down(self, ready_files: Sequence[Path]) -> list[Path]:
        """Those whose processes run: what is down would have written the others."""
        gone = [stopped.ready for stopped in self.down]
        return [path for path in ready_files if path.absolute() not in gone]

    def go_on(self, rest: Callable[[], Exit], console: Console) -> Exit:
        """The rest of the run. A dry one may not get far where something is down, and need not."""
        try:
            return rest()
        except (CannotRestart, TenureError) as error:
            if not (self.is_dry and self.down):
                raise
            console.say(f"what would be done after that can't be told before: {error}")
            console.say("dry run: nothing was changed")
            return Exit.KEPT


@contextlib.contextmanager
def resuming(
    command: str,
    arguments: argparse.Namespace,
    console: Console,
    *,
    as_meant: Callable[[Stopped], Stopped | None] = lambda stopped: stopped,
) -> Iterator[Resumed]:
    """Keep other runs out, and start what is down; a dry run only says what is.

    Args:
        command: Whose run this is.
        arguments: With ``state_dir``, ``dry_run``, ``ready_timeout`` and ``log``.
        console: Told of it.
        as_meant: What is down, as it is to be started; None: this run starts it itself, later.

    Raises:
        AnotherRun: One goes on.
        CannotRestart: There is no telling what is down.
        RestartFailed: Something doesn't come back.
    """
    record = RunRecord(arguments.state_dir, command)
    if arguments.dry_run:
        record.read()
        yield Resumed(record, down=_say_what_is_down(record, arguments.log, console), is_dry=True)
        return
    with record:
        meant = {stopped.name: as_meant(stopped) for stopped in record.stopped}
        ours = [each for each in record.stopped if meant[each.name] is None and each.is_down]
        try:
            started = start_again(
                filter(None, meant.values()),
                arguments.ready_timeout,
                arguments.log,
                console,
                lambda name: record.is_back([name]),
            )
        except (RestartFailed, KeyboardInterrupt):
            _say_left([meant[each.name] or each for each in record.stopped], arguments.log, console, _GO_ON)
            raise
        yield Resumed(record, started, ours)


@contextlib.contextmanager
def saying_what_is_left(record: RunRecord, log: Path | None, console: Console) -> Iterator[None]:
    """Of a run that is broken off in here: what it leaves."""
    try:
        yield
    except (RestartFailed, CannotRestart, TenureError, KeyboardInterrupt):
        say_what_is_left(record, log, console)
        raise


def say_what_is_left(record: RunRecord, log: Path | None, console: Console, go_on: str = _GO_ON) -> None:
    """Which of what was stopped is not back, and how each is started by hand."""
    _say_left(record.stopped, log, console, go_on)


def _say_left(processes: Sequence[Stopped], log: Path | None, console: Console, go_on: str) -> None:
    left = [sentence for stopped in processes if (sentence := stopped.describe(console, log))]
    if left:
        console.say(f"stopped: {'; '.join(left)}; {go_on}")
    else:
        console.say(f"stopped; of what runs here nothing is down; {go_on}")


def _say_what_is_down(record: RunRecord, log: Path | None, console: Console) -> list[Stopped]:
    down = [stopped for stopped in record.stopped if stopped.is_down]
    for stopped in down:
        console.say(f"{stopped.name} was left down by a run that was broken off, and would be started first")
        stopped.describe(console, log)
    for stopped in record.stopped:
        if stopped.is_leaving:
            console.say(f"{stopped.name} still ends for a run that was broken off: it would be waited for, and started")
    return down
