"""Throw-away environments for the version matrix: an interpreter, and packages at chosen versions."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROBE = Path(__file__).with_name("probe.py")
COMMAND_SECONDS_MAX = 600
WIRE_PACKAGES = ("grpcio", "grpcio-health-checking", "grpcio-reflection")


def find_interpreter(version: str) -> str | None:
    """A Python of this ``major.minor`` with the venv module: on PATH, else among pyenv's. None if there is none."""
    on_path = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [on_path] if on_path else []
    candidates += [str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)]
    code = f"import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != {version!r})"
    for candidate in candidates:
        if subprocess.run([candidate, "-c", code], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """Run one command; its output. A failure shows all that it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout


@contextmanager
def environment(interpreter: str, requirements: Sequence[str | Path], folder: Path) -> Iterator[Path]:
    """The Python of a new environment with ``requirements`` (pip's arguments), wheels only; deleted afterwards."""
    try:
        run([interpreter, "-m", "venv", folder], cwd=folder.parent)
        python = folder / "bin" / "python"
        pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--only-binary", ":all:"]
        run([*pip, *requirements], cwd=folder.parent)
        yield python
    finally:
        shutil.rmtree(folder, ignore_errors=True)
