"""Fixtures for the tests of ops/: a whole Tenure whose processes the scripts may replace."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from cluster import Cluster
from ops_scripts import Scripts

OPS = Path(__file__).resolve().parents[2] / "ops"
# The scripts' own modules; they are not part of the package.
sys.path.insert(0, str(OPS / "scripts"))


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A master with an embedded store; workers are added by the test. What scripts have started is ended, too."""
    made = Cluster(tmp_path, lease_ttl_seconds=6, heartbeat_seconds=0.5)
    try:
        yield made
    finally:
        for process in _of_ready_files(tmp_path):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await made.destroy()


@pytest.fixture
def ops() -> Path:
    """The folder under test."""
    return OPS


@pytest.fixture
def scripts(ops: Path, tmp_path: Path) -> Scripts:
    """The scripts of ``ops``, to be run."""
    return Scripts(ops / "scripts", tmp_path / "home")


def _of_ready_files(root: Path) -> Iterator[psutil.Process]:
    """Whoever wrote the ready files last, with their children."""
    for path in [*root.glob("*.ready"), *root.glob("*/ready.json")]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(json.loads(path.read_text())["pid"])
            if "tenure" in " ".join(process.cmdline()):
                yield from process.children(recursive=True)
                yield process
