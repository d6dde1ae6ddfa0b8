"""Long polls whose caller goes away just when a task has come for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from tenure.master.rpc.polls import LongPolls
from tenure.master.store.patience import Patience
from tenure.master.store.records import WorkerView


class Scene:
    """Polls with a matchmaker that the test plays, and a store that keeps what is given back."""

    def __init__(self) -> None:
        self.released: list[str] = []
        self.wanted: list[Any] = []
        self._spawned: list[asyncio.Task[None]] = []
        self._waits = asyncio.Event()
        matchmaker = SimpleNamespace(want=self._want, leave=mock.Mock())
        store = SimpleNamespace(tasks=SimpleNamespace(release=self._release), patience=Patience())
        self.polls = LongPolls(store, matchmaker, self._spawn)  # type: ignore[arg-type]

    async def call(self) -> asyncio.Task[Any]:
        """A call that waits."""
        worker = WorkerView(worker_id="w", fields={}, seen_ms_ago=0)
        call = asyncio.create_task(self.polls.wait(worker, 1, 60))
        await self._waits.wait()
        return call

    async def settle(self) -> list[str]:
        """What was given back."""
        await asyncio.gather(*self._spawned)
        return self.released

    def _want(self, consumer: Any, slots: int) -> None:
        self.wanted.append(consumer)
        self._waits.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._spawned.append(asyncio.create_task(work))

    async def _release(self, release: Any) -> None:
        self.released.append(release.task_id)


@pytest.mark.parametrize("turns", range(5))
async def test_what_has_come_is_given_back_whenever_the_caller_goes(turns: int) -> None:
    """Or a lease lives that nobody works under, for as long as its worker is heard of."""
    scene = Scene()
    call = await scene.call()
    scene.wanted[0].deliver([SimpleNamespace(task_id="t", token="token")])
    for _ in range(turns):
        await asyncio.sleep(0)
    late = call.done()
    call.cancel()
    try:
        grants = await call
    except asyncio.CancelledError:
        assert await scene.settle() == ["t"]
    else:
        assert late, "answered to nobody"
        assert ([grant.task_id for grant in grants], await scene.settle()) == (["t"], [])


async def test_what_comes_later_is_given_back_too() -> None:
    scene = Scene()
    call = await scene.call()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    scene.wanted[0].deliver([SimpleNamespace(task_id="t", token="token")])
    assert await scene.settle() == ["t"]
