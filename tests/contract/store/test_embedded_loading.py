"""The embedded store while it loads: a store of many GB takes minutes, and says all the while that it is at work."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.exceptions import BusyLoadingError

from tenure.master.store import StoreOptions, embedded, open_store


async def test_loading_may_take_longer_than_any_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, asked = embedded._answers, iter(range(30))

    def at_work(socket: str) -> bool:
        if next(asked, None) is not None or not answers(socket):
            raise BusyLoadingError
        return True

    monkeypatch.setattr(embedded, "_answers", at_work)
    monkeypatch.setattr(embedded, "START_TIMEOUT_SECONDS", 0.1)
    store = await open_store(StoreOptions(data_dir=tmp_path / "data"))
    assert await store.fsck.run() == (0, [])
    await store.close()
