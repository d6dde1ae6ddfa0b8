"""What is inside the wheel and the sdist, and that both install the same package."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from compat.environments import ROOT, environment, run

pytestmark = [pytest.mark.compat, pytest.mark.timeout(600)]

FOLDERS = ("client", "common", "master", "proto", "worker")
SUFFIXES = {".py", ".pyi", ".proto", ".lua", ".sha256", ".html", ".css", ".js", ".svg"}


def sources() -> set[str]:
    """Every file of the five folders that a running Tenure could need, by its name inside the wheel."""
    return {
        f"tenure/{path.relative_to(ROOT)}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in SUFFIXES and "__pycache__" not in path.parts
    }


def test_the_wheel_has_every_source_file_once(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packaged = {name for name in names if Path(name).suffix in SUFFIXES and ".dist-info/" not in name}
    assert packaged == sources() | {"tenure/__init__.py"}
    assert "tenure/py.typed" in names
    assert len(names) == len(set(names))
    assert {Path(name).suffix for name in packaged} >= {".proto", ".lua", ".pyi"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with environment(sys.executable, ["build"], tmp_path / "env") as python:
        run([python, "-m", "build", "--outdir", tmp_path / "dist", ROOT], cwd=tmp_path)
    (sdist,) = (tmp_path / "dist").glob("tenure-*.tar.gz")
    (rebuilt,) = (tmp_path / "dist").glob("tenure-*.whl")  # `build` makes the wheel from the sdist
    assert zipfile.ZipFile(rebuilt).namelist() == zipfile.ZipFile(wheel).namelist()
    with tarfile.open(sdist) as archive:
        assert [member.name for member in archive if member.issym()] == []


def test_the_installed_wheel_finds_its_files(wheel: Path, tmp_path: Path) -> None:
    code = (
        "from importlib.resources import files\n"
        "from tenure.proto import worker_pb2, worker_pb2_grpc, RegisterRequest, EvaluateRequest\n"
        "assert (files('tenure.proto') / 'worker.proto').read_text().startswith('//')\n"
        "assert any(p.name.endswith('.lua') for p in (files('tenure.master.store') / 'lua').iterdir())\n"
        "from tenure.master.console.files import load_files\n"
        "assert {'/', '/app.js', '/style.css', '/views/search.js'} <= set(load_files())\n"
    )
    with environment(sys.executable, [wheel], tmp_path / "env") as python:
        run([python, "-c", code], cwd=tmp_path)
        run([python.parent / "tenure", "--help"], cwd=tmp_path)
