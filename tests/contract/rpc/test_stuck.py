"""What a master calls stuck, so that its watchdog and /healthz have it restarted, and what it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from processes import eventually
from store_server import OpenStore

from tenure.common.errors import StoreUnavailable
from tenure.master import master as master_module
from tenure.master.master import Master
from tenure.master.metrics import MasterMetrics
from tenure.master.settings import load_settings


@pytest_asyncio.fixture
async def master(open_test_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Master]:
    """One that ticks every 50 ms, and may be silent for a second."""
    monkeypatch.setattr(master_module, "TICKER_SILENT_SECONDS_MAX", 1.0)
    made = Master(load_settings(listen="127.0.0.1:0", tick_seconds=0.05), await open_test_store(), MasterMetrics())
    await made.start()
    await eventually(lambda: made.store_answers)
    yield made
    await made.stop()


async def test_one_whose_ticker_hangs_is(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    assert master.stuck() == ""
    forever = asyncio.Event()

    async def hang(shard: int, cap_ms: int) -> tuple[int, int, int]:
        await forever.wait()
        return 0, 0, 0

    monkeypatch.setattr(master.store.tasks, "tick", hang)
    assert "the ticker has done nothing" in await eventually(master.stuck)
    monkeypatch.undo()
    forever.set()
    await eventually(lambda: not master.stuck())


async def test_one_whose_store_is_away_is_not(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = 0

    async def fail(shard: int, cap_ms: int) -> tuple[int, int, int]:
        nonlocal failed
        failed += 1
        raise StoreUnavailable("is away, as asked")

    monkeypatch.setattr(master.store.tasks, "tick", fail)
    # More ticks than fit into the second of silence.
    await eventually(lambda: master.stuck() or failed >= 40)
    assert master.stuck() == ""
    await eventually(lambda: "does not answer" in master.standing())
