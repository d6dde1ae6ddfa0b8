"""How scripts of ops/ find the Python that has Tenure: by a Python that hasn't."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "ops" / "scripts"
# Without site-packages.
BARE = (sys.executable, "-S", "-E")


@pytest.mark.parametrize("kind", ["missing", "no program", "a folder"])
def test_a_tenure_python_that_can_not_be_run_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    given = tmp_path / "python"
    if kind == "no program":
        given.write_bytes(b"\0no program")
        given.chmod(0o755)
    elif kind == "a folder":
        given.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "TENURE_SCRIPT_PYTHON_CHOSEN"}
    said = subprocess.run(
        [*BARE, str(SCRIPTS / "rolling-restart"), "--help"],
        env={**environment, "TENURE_PYTHON": str(given)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2, said
    assert said.stderr.startswith(f"error: TENURE_PYTHON={given}: ")
    assert said.stderr.count("\n") == 1
