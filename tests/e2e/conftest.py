"""A cluster for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from cluster import Cluster


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A master with an embedded store; workers are added by the test."""
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        await made.destroy()
