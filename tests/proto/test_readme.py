"""The programs of proto/README.md run as they stand there, against each other and against real Tenure processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.test_matrix import WIRE_ROWS
from proto.programs import Program

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "proto" / "README.md").read_text()
TENURE = Path(sys.executable).parent / "tenure"


def programs() -> dict[str, str]:
    """The README's Python blocks that name their file in the first line."""
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    named = [(re.match(r"# (\w+\.py):", block), block) for block in blocks]
    return {match[1]: block for match, block in named if match}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All programs as files."""
    for name, text in programs().items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    return {**kept, "TENURE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def master(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a real master on an embedded store."""
    command = [TENURE, "master", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log-format", "json"]
    with Program(command, folder, environment) as running:
        address = running.wait_for(r'"grpc": "([^"]+)".*"event": "master\.ready"')[1]
        if not any('"serving": true' in line for line in running.lines):
            running.wait_for('"serving": true')
        yield address


def run(name: str, folder: Path, environment: dict[str, str], *arguments: str) -> Program:
    return Program([sys.executable, name, *arguments], folder, environment)


def test_there_are_the_programs_that_the_page_promises() -> None:
    assert set(programs()) == {"push_master.py", "push_worker.py", "pull_worker.py", "submit.py", "health.py"}


def test_the_import_block_works() -> None:
    (block,) = re.findall(r"^```python\n(from tenure\.proto import [^\n]+)\n```", README, re.MULTILINE)
    subprocess.run([sys.executable, "-c", block], check=True, timeout=60)


def test_the_master_drives_the_worker(folder: Path, environment: dict[str, str]) -> None:
    with run("push_master.py", folder, environment, "127.0.0.1:0") as pushing:
        port = pushing.wait_for(r"listening on port (\d+)")[1]
        with run("push_worker.py", folder, environment, f"127.0.0.1:{port}") as worker:
            worker.wait_for("registered at example")
            output = pushing.finish()
            worker.finish()
    assert "success: True" in output
    assert '"fitness": 0.333' in output


@pytest.mark.torch
def test_the_master_drives_a_tenure_worker(folder: Path, environment: dict[str, str]) -> None:
    """A master that speaks MorphML's fields only has a real network trained, and the worker shuts down as told."""
    with run("push_master.py", folder, environment, "127.0.0.1:0") as pushing:
        port = pushing.wait_for(r"listening on port (\d+)")[1]
        command = [TENURE, "worker", "--dispatch", "push", "--master", f"127.0.0.1:{port}", "--worker-id", "readme"]
        addresses = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        with Program([*command, *addresses], folder, environment) as worker:
            metrics = json.loads(pushing.wait_for(r"metrics: (\{.*\})")[1])
            output = pushing.finish()
            worker.finish()
    assert "success: True" in output
    assert 0.3 < metrics["val_accuracy"] <= 1
    assert "fitness" in metrics


@pytest.mark.parametrize("worker", ["pull_worker.py", "push_worker.py"])
def test_a_search_goes_through_a_master_and_a_morphml_worker(
    worker: str, folder: Path, environment: dict[str, str], master: str
) -> None:
    with run("submit.py", folder, environment, master) as search:
        search.wait_for("submitted 3")
        with run(worker, folder, environment, master):
            output = search.finish()
    assert output.count('SUCCEEDED {"fitness": 0.5}') == 3
    assert "INVALID_ARGUMENT INVALID_ARCHITECTURE" in output


@pytest.mark.parametrize("service", ["", "morphml.distributed.MasterService", "tenure.v1.TenureService"])
def test_health_says_serving(service: str, folder: Path, environment: dict[str, str], master: str) -> None:
    with run("health.py", folder, environment, master, service) as health:
        assert health.finish() == "SERVING"


def test_the_commands_by_hand_write_the_committed_stubs(tmp_path: Path) -> None:
    """All but the making of the environment, which is the script's own, with the same requirements."""
    (block,) = re.findall(r"^```sh\n(python3\.11 -m venv.*?)^```", README, re.MULTILINE | re.DOTALL)
    make_venv, install, *rest = block.splitlines()
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import compile_protos
    finally:
        sys.path.pop(0)
    assert make_venv == "python3.11 -m venv /tmp/protoc"
    assert shlex.split(install)[2:] == list(compile_protos.REQUIREMENTS)
    try:
        python = compile_protos.find_python(None)
    except compile_protos.NoGenerator as error:
        pytest.skip(str(error))
    generator = compile_protos.generator_environment(python)

    shutil.copytree(ROOT / "proto", tmp_path / "proto", ignore=shutil.ignore_patterns("__pycache__"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "proto").iterdir()}
    for path in [*(tmp_path / "proto").glob("*_pb2*"), tmp_path / "proto" / "stubs.sha256"]:
        path.unlink()
    commands = [line for line in rest if not line.startswith("scripts/")]
    script = "\n".join(commands).replace("/tmp/protoc/bin", str(generator.parent))
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, check=True, timeout=60)
    assert {path.name: path.read_bytes() for path in (tmp_path / "proto").iterdir()} == before


def test_the_versions_named_are_those_of_the_matrix() -> None:
    rows = re.findall(r"^\| (3\.\d+) \| ([\d.]+) \| ([\d.]+) \|", README, re.MULTILINE)
    assert rows == WIRE_ROWS
