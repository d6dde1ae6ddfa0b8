"""Versions beside each other, and one that is used.

``ROOT/versions/X`` is a virtual environment for each version, ``ROOT/current`` a link to the one that is used,
``ROOT/previous`` a link to the one before, and ``ROOT/bin`` leads to ``current/bin``: what starts ``ROOT/bin/tenure``,
as the units of systemd do, need not know of versions. While something is taken back from a version that was no good,
``ROOT/leaving`` is a link to that. A link is replaced at once or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from restarting.console import Console, command_line
from restarting.processes import CannotRestart

# There while an environment is not complete.
_INCOMPLETE = ".tenure-installing"
_FACTS = """
import importlib.metadata, json, tenure
import tenure.client.cli, tenure.master.main, tenure.worker.main
from tenure.master.store.keys import SCHEMA_VERSION
found = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
print(json.dumps({"version": tenure.__version__, "schema": SCHEMA_VERSION, "packages": found}))
"""


@dataclass(frozen=True)
class Facts:
    """What an environment says of itself.

    Attributes:
        schema: Of the stores that it reads.
        packages: Versions by name.
    """

    version: str
    schema: int
    packages: dict[str, str]


@dataclass(frozen=True)
class Installer:
    """pip, as it is asked to install.

    Attributes:
        python: The Python that environments are made with; it has pip.
        requirements: What is installed, Tenure first.
        options: Further ones for ``pip install``.
    """

    python: str
    requirements: Sequence[str]
    options: Sequence[str]

    def version(self) -> str:
        """Of the Tenure that the first requirement stands for.

        Raises:
            CannotRestart: There is none.
        """
        if (found := _wheel_version(self.requirements[0])) is not None:
            return found
        options = ["--dry-run", "--quiet", "--no-deps", "--ignore-installed", "--report", "-"]
        said = self._pip("install", *self.options, *options, self.requirements[0])
        try:
            installs = json.loads(said[said.index("{") :])["install"]
            (metadata,) = [each["metadata"] for each in installs if each["metadata"]["name"].lower() == "tenure"]
        except (ValueError, KeyError):
            raise CannotRestart(f"--to {self.requirements[0]}: that is not Tenure") from None
        return str(metadata["version"])

    def install(self, environment: Path) -> None:
        """Make the environment; raises CannotRestart."""
        self._run([self.python, "-m", "venv", "--without-pip", str(environment)])
        interpreter = str(environment / "bin" / "python")
        self._pip("--python", interpreter, "install", "--quiet", *self.options, *self.requirements)
        # Who leaves dependencies out has them elsewhere.
        if "--no-deps" not in self.options:
            self._pip("--python", interpreter, "check")

    def _pip(self, *arguments: str) -> str:
        return self._run([self.python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments])

    @staticmethod
    def _run(command: Sequence[str]) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise CannotRestart(f"can't run {command[0]}: {error.strerror}") from None
        if done.returncode != 0:
            told = (done.stderr or done.stdout).strip()[-1500:]
            raise CannotRestart(f"`{command_line(command)}` ended with status {done.returncode}: {told}")
        return done.stdout


def _wheel_version(requirement: str) -> str | None:
    """Of a wheel, which says it in its name; None: it is something else."""
    path = Path(requirement.partition("[")[0])
    if path.suffix != ".whl":
        return None
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise CannotRestart(f"--to {requirement}: {error}") from None
    if name != "tenure" or not path.is_file():
        raise CannotRestart(f"--to {requirement}: {'there is no such file' if name == 'tenure' else 'is not Tenure'}")
    return str(version)


class Versions:
    """The folder; nothing is made before it is needed.

    Raises:
        CannotRestart: It is something else.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        if (self.root / "pyvenv.cfg").exists():
            raise CannotRestart(
                f"{self.root} is a virtual environment itself, and versions can't stand side by side in it: "
                "give another --root, and have your units start ROOT/bin/tenure from there"
            )

        programs = self.root / "bin"
        if (programs.exists() or programs.is_symlink()) and not _leads_to(programs, "current/bin"):
            raise CannotRestart(f"{programs} has to be a link to current/bin, and is something else: move it away")

    def path(self, name: str) -> Path:
        """Of a version's environment."""
        return self.root / "versions" / name

    @property
    def current(self) -> str:
        """The name of the version that is used; '' if none is."""
        return self._linked("current")

    @property
    def previous(self) -> str:
        """The name of the one before; '' if there was none."""
        return self._other("previous")

    @property
    def leaving(self) -> str:
        """The name of the version that something may still run, though ``current`` was taken back; '' usually."""
        return self._other("leaving")

    def has(self, name: str) -> bool:
        """Whether a version is there in full."""
        return (self.path(name) / "bin" / "tenure").exists() and not (self.path(name) / _INCOMPLETE).exists()

    def install(self, name: str, installer: Installer, console: Console) -> None:
        """Install a version beside the others, unless it is there.

        Raises:
            CannotRestart: It can't be installed; nothing of it is left.
        """
        environment = self.path(name)
        if self.has(name):
            console.say(f"{environment} is there already")
            return
        try:
            if environment.exists():  # the rest of an installation that was broken off
                shutil.rmtree(environment)
            environment.mkdir(parents=True)
            (environment / _INCOMPLETE).touch()
        except OSError as error:
            raise CannotRestart(f"{environment} can't be made: {error.strerror}") from None
        console.say(f"installing {' '.join(installer.requirements)} in {environment}")
        try:
            installer.install(environment)
        except BaseException:
            shutil.rmtree(environment, ignore_errors=True)
            raise
        (environment / _INCOMPLETE).unlink()

    def remove(self, name: str) -> None:
        """Delete a version that nobody runs."""
        shutil.rmtree(self.path(name), ignore_errors=True)

    def facts(self, name: str) -> Facts:
        """What the environment of a version says of itself; raises CannotRestart if it can't be imported."""
        return facts_of(self.path(name) / "bin" / "python")

    def use(self, name: str) -> None:
        """From now on ``current`` is this one."""
        old = self.current
        if old == name:
            return
        if old:
            self._link("previous", f"versions/{old}")
        self._link("current", f"versions/{name}")
        self._link("bin", "current/bin")
        self.settle()

    def take_back(self, name: str, previous: str) -> None:
        """``current`` is this one again; the one that is used now is left until ``settle``.

        Args:
            name: What was used before.
            previous: What ``previous`` is to be: what it was then, as if the one that is used now never had been; ''
                for none.
        """
        if (bad := self.current) != name:
            self._link("leaving", f"versions/{bad}")
            self._link("current", f"versions/{name}")
            self._link("bin", "current/bin")
        if previous:
            self._link("previous", f"versions/{previous}")
        else:
            (self.root / "previous").unlink(missing_ok=True)

    def settle(self) -> None:
        """Nothing runs a version that was left."""
        (self.root / "leaving").unlink(missing_ok=True)

    def _other(self, link: str) -> str:
        """Than ``current``: where a link was set, and the run was killed before ``current`` was, it is the same."""
        found = self._linked(link)
        return found if found != self.current else ""

    def _linked(self, link: str) -> str:
        try:
            return Path(os.readlink(self.root / link)).name
        except OSError:
            return ""

    def _link(self, link: str, target: str) -> None:
        scratch = self.root / f".{link}.new"
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(target)
        scratch.replace(self.root / link)


def _leads_to(link: Path, target: str) -> bool:
    try:
        return os.readlink(link) in (target, str(link.parent / target))
    except OSError:
        return False


def facts_of(python: Path) -> Facts:
    """What an environment with Tenure says of itself.

    Raises:
        CannotRestart: Tenure can't be imported there.
    """
    try:
        done = subprocess.run([str(python), "-c", _FACTS], capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotRestart(f"can't run {python}: {error.strerror}") from None
    if done.returncode != 0:
        raise CannotRestart(f"Tenure can't be imported by {python}: {done.stderr.strip()[-1500:]}")
    found: Any = json.loads(done.stdout)
    return Facts(str(found["version"]), int(found["schema"]), dict(found["packages"]))
