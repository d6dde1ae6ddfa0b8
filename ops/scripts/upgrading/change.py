"""What an upgrade changes, and changes back: which version is started from now on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from restarting.console import Console, command_line
from restarting.processes import CannotRestart, run_command
from restarting.steps import Step
from restarting.stopped import Stopped

from upgrading.moving import forward, moved
from upgrading.versions import Facts, Installer, Versions


class Change(Protocol):
    """From one version to another."""

    @property
    def version(self) -> str:
        """The one that is to run; '' if that isn't known."""

    def describe(self, console: Console) -> None:
        """Say what is about to be done."""

    def prepare(self, console: Console) -> Facts | None:
        """Have the new version ready; nothing that runs notices. What it says of itself, if that can be asked.

        Raises:
            CannotRestart: It can't be had.
        """

    def forward(self, step: Step) -> Step:
        """The step, as it starts the new version."""

    def restored(self, stopped: Stopped) -> Stopped:
        """How what was left down by a run that was broken off is started before this one begins."""

    def apply(self) -> None:
        """From now on whatever starts is the new version; raises RestartFailed."""

    def revert(self) -> None:
        """From now on it is the old one again; raises RestartFailed."""

    def settle(self, *, reverted: bool = False) -> None:
        """All that was touched runs the version that is to run, or, ``reverted``, what ran before."""


@dataclass(frozen=True)
class InstalledVersion:
    """A virtual environment beside the others.

    Attributes:
        version: What is to run.
        before: What was used; '' at the first installation, and ``version`` where one is gone back to already, but
            something may run the one that is left.
        previous: What was used before that, if it is known.
        installer: None: it must be there already.
    """

    versions: Versions
    version: str
    before: str
    previous: str
    installer: Installer | None

    def describe(self, console: Console) -> None:
        """See Change."""
        if self.before == self.version:
            console.say(f"back to version {self.version}: what still runs version {self.versions.leaving}")
            return
        there = " (it is there already)" if self.versions.has(self.version) else ""
        console.say(f"version {self.before or 'none'} to {self.version}, in {self.versions.path(self.version)}{there}")

    def prepare(self, console: Console) -> Facts:
        """See Change."""
        if self.installer is not None:
            self.versions.install(self.version, self.installer, console)
        elif not self.versions.has(self.version):
            raise CannotRestart(f"version {self.version} is not in {self.versions.root}")
        try:
            return self.versions.facts(self.version)
        except CannotRestart:
            if self.installer is not None:
                self.versions.remove(self.version)
            raise

    def forward(self, step: Step) -> Step:
        """See Change."""
        return forward(step, self.versions, self.version)

    def restored(self, stopped: Stopped) -> Stopped:
        """See Change: as it was, to be gone back to if the new version is no good; going back, by what is gone to."""
        if self.installer is not None:
            return stopped
        with contextlib.suppress(CannotRestart):
            return stopped.only_by(moved(stopped.recipe, self.versions, self.version))
        return stopped

    def apply(self) -> None:
        """See Change."""
        if self.installer is not None:
            self.versions.use(self.version)
        elif self.before != self.version:
            self.versions.take_back(self.version, self.before)

    def revert(self) -> None:
        """See Change."""
        if self.before:
            self.versions.take_back(self.before, self.previous)

    def settle(self, *, reverted: bool = False) -> None:
        """See Change."""
        if not (reverted and self.before == self.version):  # then what was to be left runs still
            self.versions.settle()


@dataclass(frozen=True)
class CommandedVersion:
    """Somebody else has versions: images, other machines.

    Attributes:
        version: What is to run, if it was given.
        to_command: Makes whatever starts from now on the new version.
        back_command: The old one.
    """

    version: str
    to_command: Sequence[str]
    back_command: Sequence[str]

    def describe(self, console: Console) -> None:
        """See Change."""
        console.say(f"to version {self.version or '(not named)'} by")
        console.say(f"  {command_line(self.to_command)}")
        console.say("and back, if need be, by")
        console.say(f"  {command_line(self.back_command)}")

    def prepare(self, console: Console) -> None:
        """See Change."""

    def forward(self, step: Step) -> Step:
        """See Change."""
        return step

    def restored(self, stopped: Stopped) -> Stopped:
        """See Change."""
        return stopped

    def apply(self) -> None:
        """See Change."""
        run_command(self.to_command)

    def revert(self) -> None:
        """See Change."""
        run_command(self.back_command)

    def settle(self, *, reverted: bool = False) -> None:
        """See Change."""
