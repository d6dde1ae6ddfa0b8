"""The protocol, and the package without torch, on other versions of what they need (`make compat`).

Which rows there are is the claim "versions supported" of proto/README.md; each row installs its versions into an
environment of its own and runs probe.py there. A Python that the machine lacks skips its rows, by name.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from compat.environments import PROBE, ROOT, WIRE_PACKAGES, environment, find_interpreter, run

pytestmark = [pytest.mark.compat, pytest.mark.timeout(900)]

# Python, grpcio (and its health and reflection packages), protobuf. The first of each Python is the oldest that
# has wheels for it; then one of each major version of protobuf.
WIRE_ROWS = [
    ("3.11", "1.54.0", "4.23.0"),
    ("3.11", "1.62.3", "4.25.8"),
    ("3.11", "1.63.2", "5.26.1"),
    ("3.11", "1.71.2", "5.29.5"),
    ("3.11", "1.72.2", "6.30.2"),
    ("3.11", "1.75.0", "6.31.1"),
    ("3.11", "1.80.0", "6.33.6"),
    ("3.12", "1.59.0", "4.23.0"),
    ("3.12", "1.71.2", "5.29.5"),
    ("3.12", "1.80.0", "6.33.6"),
    ("3.13", "1.66.2", "5.27.2"),
    ("3.13", "1.80.0", "6.33.6"),
]

# The whole package: on the oldest of everything, and on what pip finds today.
PACKAGE_ROWS = [("3.11", "oldest"), ("3.11", "newest"), ("3.12", "newest"), ("3.13", "newest")]


def interpreter_or_skip(version: str) -> str:
    interpreter = find_interpreter(version)
    if interpreter is None:
        pytest.skip(f"no Python {version} on this machine")
    return interpreter


@pytest.mark.parametrize(("python", "grpcio", "protobuf"), WIRE_ROWS, ids=lambda value: str(value))
def test_the_wire(python: str, grpcio: str, protobuf: str, tmp_path: Path, wheel: Path) -> None:
    requirements = [f"{name}=={grpcio}" for name in WIRE_PACKAGES] + [f"protobuf=={protobuf}"]
    with environment(interpreter_or_skip(python), requirements, tmp_path / "env") as interpreter:
        run([interpreter, "-m", "pip", "install", "--quiet", "--no-deps", wheel], cwd=tmp_path)
        output = run([interpreter, PROBE, "wire"], cwd=tmp_path)
    assert f"grpcio {grpcio}, protobuf {protobuf} (upb)" in output


@pytest.mark.parametrize(("python", "ends"), PACKAGE_ROWS, ids=lambda value: str(value))
def test_the_package_at_both_ends(python: str, ends: str, tmp_path: Path, wheel: Path) -> None:
    constraints = ["-c", ROOT / "constraints" / "oldest.txt"] if ends == "oldest" else []
    with environment(interpreter_or_skip(python), [wheel, *constraints], tmp_path / "env") as interpreter:
        output = run([interpreter, PROBE, "package"], cwd=tmp_path)
    if ends == "oldest":
        assert "grpcio 1.54.0, protobuf 4.23.0 (upb)" in output


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    """What `make compat` installs as the oldest is what pyproject.toml promises."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = dict(re.match(r"([\w-]+)[^>]*>=([\d.]+)", entry).groups() for entry in project["dependencies"])
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints" / "oldest.txt").read_text(), re.MULTILINE))
    assert bounds.keys() == pinned.keys()
    for name, bound in bounds.items():
        assert pinned[name] == bound or pinned[name].startswith(f"{bound}."), name
