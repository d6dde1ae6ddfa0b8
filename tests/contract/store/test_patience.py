"""What waits for a store that is away goes on with the tick that finds it again, not a pause later."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from store_scene import Scene
from store_server import StoreServer

from tenure.common.errors import StoreUnavailable
from tenure.master.loops.ticker import Ticker
from tenure.master.metrics import MasterMetrics
from tenure.master.settings import MasterSettings
from tenure.master.store import StoreOptions, open_store
from tenure.master.store.patience import Patience
from tenure.master.store.records import Verdict

FOR_EVER_SECONDS = 1e6


class Away:
    """A call that a store refuses until it is back."""

    def __init__(self) -> None:
        self.back = False
        self.calls = 0
        self.refused = asyncio.Event()

    async def __call__(self) -> str:
        self.calls += 1
        if self.back:
            return "done"
        if self.calls > 2:
            # The first is repeated at once; behind the second and the ones after it there is a pause.
            self.refused.set()
        raise StoreUnavailable("away")


def endless() -> Patience:
    """Nearly all its pauses are longer than any test."""
    return Patience(FOR_EVER_SECONDS, FOR_EVER_SECONDS)


async def test_a_call_that_is_answered_is_made_once() -> None:
    call = Away()
    call.back = True
    assert await Patience().repeat(call) == "done"
    assert call.calls == 1


async def test_pauses_end_by_themselves() -> None:
    call = Away()
    waiting = asyncio.create_task(Patience(0.01, 0.01).repeat(call))
    await call.refused.wait()
    call.back = True
    assert await waiting == "done"


async def test_without_time_it_is_made_once() -> None:
    call = Away()
    with pytest.raises(StoreUnavailable):
        await Patience().repeat(call, 0)
    assert call.calls == 1


async def test_time_that_is_over_is_said_by_the_store_s_own_error() -> None:
    with pytest.raises(StoreUnavailable, match="away"):
        await Patience(0.01, 0.01).repeat(Away(), 0.05)


async def test_other_errors_are_not_waited_out() -> None:
    async def fail() -> None:
        raise ValueError("not the store")

    with pytest.raises(ValueError, match="not the store"):
        await Patience().repeat(fail)


async def test_all_who_pause_go_on_when_the_store_is_found() -> None:
    patience, calls = endless(), [Away() for _ in range(20)]
    waiting = [asyncio.create_task(patience.repeat(call)) for call in calls]
    for _ in range(3):
        # Found, and away again before they got through: they pause anew.
        await asyncio.sleep(0)
        patience.store_found()
    for call in calls:
        await call.refused.wait()
        call.back = True
    while not all(each.done() for each in waiting):
        await asyncio.sleep(0)
        patience.store_found()
    assert [each.result() for each in waiting] == ["done"] * 20


async def test_the_tick_that_finds_the_store_ends_the_pauses(tmp_path: Path) -> None:
    """Found by chaos, seed 210: a registration's pause outlasted the outage, the lease's renewals waited behind it, and
    the lease clock went on."""
    server = StoreServer(tmp_path / "store").start()
    store = await open_store(StoreOptions(url=server.url))
    store.patience = endless()
    ticker = asyncio.create_task(Ticker(store, MasterSettings(tick_seconds=0.05), MasterMetrics()).run())
    try:
        with server.client() as client:
            scene = Scene(store, client)
            grant = await scene.lease()
            server.kill()
            refusals = 0
            paused = asyncio.Event()

            async def complete() -> object:
                nonlocal refusals
                try:
                    return await scene.complete(grant)
                except StoreUnavailable:
                    refusals += 1
                    if refusals == 2:
                        paused.set()
                    raise

            waiting = asyncio.create_task(store.patience.repeat(complete))
            await paused.wait()
            await asyncio.to_thread(server.start)
            assert await waiting is Verdict.OK
    finally:
        ticker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticker
        await store.close()
        server.remove()
