"""What holds for every script of ops/scripts, and for every shell script of the project."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tools import tool

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "ops" / "scripts").iterdir() if path.is_file())
# These change nothing: there is nothing to try dry.
READ_ONLY = {"dashboard-image"}


def shell_scripts() -> list[Path]:
    """Every tracked file that a shell runs, by its first line or its name."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = [ROOT / name.decode() for name in tracked.split(b"\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink() and _is_shell(path)]


def _is_shell(path: Path) -> bool:
    if path.suffix in (".sh", ".bash"):
        return True
    with path.open("rb") as file:
        return re.match(rb"#!\S*[ /](ba|da)?sh\b", file.readline(80)) is not None


def test_the_shell_scripts_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in shell_scripts()}
    assert {"scripts/setup", "scripts/install_tools", ".ci/run"} <= names


@pytest.mark.tools
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(
        [tool("shellcheck"), "--color=never", *map(str, shell_scripts())], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_script_explains_itself(name: str, tmp_path: Path) -> None:
    """Under any Python, with examples and exit codes, and with a way to try it that changes nothing."""
    path = ROOT / "ops" / "scripts" / name
    assert os.access(path, os.X_OK)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", str(path), "--help"),
        stdout=asyncio.subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "TENURE_PYTHON": sys.executable},
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    text = out.decode()
    assert text.startswith(f"usage: {name} ")
    assert re.search(rf"^examples:\n +(ops/scripts/)?{name}\b", text, re.MULTILINE | re.IGNORECASE), "no examples"
    assert re.search(r"^exit (codes|status):\s+0 ", text, re.MULTILINE | re.IGNORECASE), "no exit codes"
    assert "--dry-run" in text or name in READ_ONLY
    for line in text.splitlines():
        assert len(line) <= 120, line
