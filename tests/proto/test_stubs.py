"""The committed stubs are what the generator writes, and the package exports all of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tenure import proto
from tenure.proto import worker_pb2, worker_pb2_grpc

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what compile_protos.py works on, sharing the generator's environment with this checkout."""
    shutil.copytree(ROOT / "proto", tmp_path / "proto", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "compile_protos.py", tmp_path / "scripts")
    (ROOT / ".make").mkdir(exist_ok=True)
    (tmp_path / ".make").symlink_to(ROOT / ".make")
    return tmp_path


def compile_protos(checkout: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/compile_protos.py", *arguments],
        cwd=checkout,
        env=None if path is None else {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )


def test_the_committed_stubs_are_up_to_date(checkout: Path) -> None:
    done = compile_protos(checkout, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("worker.proto", "string worker_id = 1;", "string worker_name = 1;"),
        ("worker_pb2_grpc.py", "/RegisterWorker'", "/RegisterWorkers'"),
        ("tenure_pb2.pyi", "class Submitted", "class Sent"),
    ],
)
def test_a_changed_file_is_drift(checkout: Path, file: str, old: str, new: str) -> None:
    path = checkout / "proto" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    done = compile_protos(checkout, "--check")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "+++ generated/" in done.stdout or "differs from" in done.stdout


def test_regenerating_writes_the_same_files(checkout: Path) -> None:
    if sys.version_info >= (3, 13) and shutil.which("python3.12") is None and shutil.which("python3.11") is None:
        pytest.skip("the pinned generator has no wheels for this machine's Pythons")
    before = {path.name: path.read_bytes() for path in (checkout / "proto").iterdir()}
    for path in (checkout / "proto").glob("*_pb2*"):
        path.unlink()
    done = compile_protos(checkout)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (checkout / "proto").iterdir()} == before


def test_an_unusable_python_is_refused_by_name(checkout: Path) -> None:
    done = compile_protos(checkout, "--check", "--python", "/nonexistent/python3.12")
    assert done.returncode == 2
    assert "/nonexistent/python3.12" in done.stderr
    assert "3.11 and 3.12" in done.stderr


def test_every_message_and_enum_is_exported_by_name() -> None:
    names = {*worker_pb2.DESCRIPTOR.message_types_by_name, *worker_pb2.DESCRIPTOR.enum_types_by_name}
    names |= {name for name in vars(worker_pb2_grpc) if re.fullmatch(r"(add_)?\w+(Stub|Servicer)(_to_server)?", name)}
    modules = {"worker_pb2", "worker_pb2_grpc", "tenure_pb2", "tenure_pb2_grpc"}
    assert set(proto.__all__) == names | modules
    for name in proto.__all__:
        assert getattr(proto, name) is not None
    assert list(proto.__all__) == sorted(proto.__all__)


def test_the_stubs_have_types() -> None:
    for module in ("worker_pb2", "tenure_pb2"):
        assert (ROOT / "proto" / f"{module}.pyi").exists()
