"""Make ``.venv`` with everything that one front-door target needs, once; run by ``scripts/setup``.

The environment remembers what it was made from (the packaging sections of pyproject.toml and the constraints).
As long as that is unchanged a second run only compares and is done. An environment that is broken (its Python was
upgraded away, a run was interrupted before pip was in it) is made anew.

Examples:
    scripts/setup demo       # what `make demo` needs
    scripts/setup test       # what `make test` needs: the demo's packages and the test tools
    PYTHON=python3.13 scripts/setup test
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE_DIR = ROOT / ".make"
LOG = STATE_DIR / "setup.log"
CONSTRAINTS = ROOT / "constraints" / "test.txt"
# The packages of the key contain those of the value.
CONTAINS = {"demo": set[str](), "test": {"demo"}}
QUIET_SECONDS_MAX = 15.0
VENV_PARTS = {"bin", "include", "lib", "lib64", "share", "etc", "pyvenv.cfg"}

NO_VENV = """\
This Python can't make virtual environments: {python} has neither `ensurepip` nor `pip`.
On Debian and Ubuntu: apt install python3-venv
Else name another one: make setup PYTHON=/path/to/python3"""


class SetupError(Exception):
    """The environment can't be made; the message says what to do."""


def say(text: str) -> None:
    """One line of progress."""
    print(f"  {text}", flush=True)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two `make`s in one checkout take turns."""
    STATE_DIR.mkdir(exist_ok=True)
    with (STATE_DIR / "setup").open("w") as turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is running in this checkout; waiting for it …")
            fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def digest() -> str:
    """What the environment depends on. Tool sections of pyproject.toml (ruff, mypy, pytest) don't count."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = [project["build-system"], project["project"], project["tool"]["hatch"], CONSTRAINTS.read_text()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Environment:
    """The virtual environment in one directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.python = path / "bin" / "python"
        self.state_file = path / "tenure-setup.json"
        # There while pip works: what a killed pip leaves behind can look installed and not be.
        self.unfinished = path / "tenure-setup.unfinished"

    def holds(self, extra: str) -> bool:
        """Whether it has ``extra``'s packages as pyproject.toml and the constraints ask for them now."""
        try:
            state = json.loads(self.state_file.read_text())
        except (OSError, ValueError):
            return False
        return state.get("digest") == digest() and extra in state.get("extras", [])

    def version(self) -> tuple[int, ...] | None:
        """Its Python's version if it runs, has pip and isn't half installed; else None."""
        if self.unfinished.exists():
            return None
        code = "import pip, sys; print(*sys.version_info[:3])"
        try:
            probe = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=False)
        except OSError:
            return None
        return tuple(map(int, probe.stdout.split())) if probe.returncode == 0 else None

    def create(self) -> None:
        """Make it from the Python that runs this, in place of whatever broken one is there."""
        self._remove()
        say(f"creating {self.path.name} with Python {sys.version.split()[0]} ({sys.executable})")
        if has_module("ensurepip"):
            subprocess.run([sys.executable, "-m", "venv", str(self.path)], check=True)
        elif has_module("pip") and has_module("venv"):
            # Debian's python3 without python3-venv: its pip can install into another environment.
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.path)], check=True)
            subprocess.run(
                [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "pip"],
                check=True,
            )
        else:
            raise SetupError(NO_VENV.format(python=sys.executable))

    def _remove(self) -> None:
        if not self.path.exists():
            return
        foreign = {entry.name for entry in self.path.iterdir()} - VENV_PARTS
        if not (self.path / "pyvenv.cfg").exists() and foreign:
            raise SetupError(f"{self.path} exists and is no virtual environment: move it away, or set VENV=…")
        say(f"removing {self.path.name}: it is half installed, its Python doesn't run, or another one was asked for")
        shutil.rmtree(self.path)

    def install(self, extra: str) -> None:
        """Install the project, editable, with ``extra``; remember it once all of it is there."""
        self.state_file.unlink(missing_ok=True)
        self.unfinished.touch()
        command = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        command += ["--progress-bar", "off", "-c", str(CONSTRAINTS), "-e", f"{ROOT}[{extra}]"]
        try:
            run_with_progress(command)
        except SetupError:
            # pip itself gave up, and undid what it had begun.
            self.unfinished.unlink()
            raise
        state = {"digest": digest(), "extras": sorted({extra} | CONTAINS[extra])}
        partial = self.state_file.with_suffix(".partial")
        partial.write_text(json.dumps(state))
        partial.replace(self.state_file)
        self.unfinished.unlink()


def has_module(name: str) -> bool:
    """Whether the Python that runs this can import ``name``."""
    return subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, check=False).returncode == 0


def run_with_progress(command: list[str]) -> None:
    """Run pip; show downloads and a sign of life, keep all it says in .make/setup.log."""
    started = time.monotonic()
    finished = threading.Event()

    def sign_of_life() -> None:
        while not finished.wait(QUIET_SECONDS_MAX):
            say(f"… still installing, {time.monotonic() - started:.0f} s")

    with LOG.open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=sign_of_life, daemon=True).start()
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if text := worth_showing(line):
                say(text)
        status = process.wait()
        finished.set()
    if status != 0:
        tail = "".join(LOG.read_text().splitlines(keepends=True)[-25:])
        raise SetupError(f"pip failed (all it said: {LOG.relative_to(ROOT)}):\n{tail}")


def worth_showing(line: str) -> str | None:
    """Of pip's many lines those that explain a wait."""
    if match := re.match(r"\s*Downloading (\S+) \(([\d.]+) (MB|GB)\)", line):
        return f"downloading {match[1].rsplit('/', 1)[-1].split('-')[0]} ({match[2]} {match[3]})"
    if line.startswith("Installing collected packages:"):
        return f"installing {line.count(',') + 1} packages"
    return None


def is_usable(environment: Environment, python_chosen: bool) -> bool:
    """Whether it runs and is of a version that will do: any that Tenure supports, or the one that was asked for."""
    version = environment.version()
    if version is None:
        return False
    return version[:2] == sys.version_info[:2] if python_chosen else version >= (3, 11)


def set_up(environment: Environment, extra: str, python_chosen: bool) -> None:
    """Bring ``environment`` up to date for ``extra``."""
    if is_usable(environment, python_chosen) and environment.holds(extra):
        return
    with one_at_a_time():
        # Asked again: another run may have just finished it.
        if not is_usable(environment, python_chosen):
            environment.create()
        if not environment.holds(extra):
            say(f"installing tenure[{extra}]; the first time takes minutes, most of them for torch")
            environment.install(extra)
        say(f"{environment.path.name} is ready")


def main() -> int:
    """Exit status: 0 ready, 1 not, with the reason on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extra", choices=sorted(CONTAINS))
    parser.add_argument("--venv", default=os.environ.get("VENV", ".venv"), help="directory (default: .venv)")
    parser.add_argument("--python-chosen", action="store_true", help="remake an environment of another version")
    arguments = parser.parse_args()
    try:
        set_up(Environment(ROOT / arguments.venv), arguments.extra, arguments.python_chosen)
    except (SetupError, subprocess.CalledProcessError) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; the next make goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
