"""Fixtures for tests of whole workers: real processes against a scripted master."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from scripted_master import ScriptedMaster
from worker_process import WorkerProcess


@pytest.fixture
async def master() -> AsyncIterator[ScriptedMaster]:
    """A Tenure-speaking master with fast heartbeats."""
    master = await ScriptedMaster(ttl_ms=3_000, heartbeat_ms=300).start()
    yield master
    await master.vanish()


@pytest.fixture
async def legacy_master() -> AsyncIterator[ScriptedMaster]:
    """A master that speaks MorphML's fields only."""
    master = await ScriptedMaster(legacy=True).start()
    yield master
    await master.vanish()


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[WorkerProcess]:
    """A worker that the test starts; whatever is left of it is killed at the end."""
    worker = WorkerProcess(tmp_path)
    yield worker
    await worker.destroy()
