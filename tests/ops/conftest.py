"""Fixtures for the tests of ops/: a whole Tenure whose processes the scripts may replace."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cluster import Cluster
from ops_scripts import Scripts, end_what_was_started

OPS = Path(__file__).resolve().parents[2] / "ops"
# The scripts' own modules; they are not part of the package.
sys.path.insert(0, str(OPS / "scripts"))

from kept_store import KeptStore  # noqa: E402 - which imports those


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A master with an embedded store; workers are added by the test. What scripts have started is ended, too."""
    made = Cluster(tmp_path, lease_ttl_seconds=6, heartbeat_seconds=0.5)
    try:
        yield made
    finally:
        end_what_was_started(tmp_path)
        await made.destroy()


@pytest.fixture
def ops() -> Path:
    """The folder under test."""
    return OPS


@pytest.fixture
def scripts(ops: Path, tmp_path: Path) -> Scripts:
    """The scripts of ``ops``, to be run."""
    return Scripts(ops / "scripts", tmp_path / "home")


@pytest_asyncio.fixture
async def kept(tmp_path: Path) -> AsyncIterator[KeptStore]:
    """A store of 40 tasks."""
    made = await KeptStore.start(tmp_path / "server")
    yield made
    await made.close()
