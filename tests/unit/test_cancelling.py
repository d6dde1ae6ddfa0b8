"""Tasks that run for ever do end."""

from __future__ import annotations

import asyncio

import pytest

from tenure.common import cancelling
from tenure.common.cancelling import cancel_all


async def run_for_ever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ValueError("as asked")


async def test_tasks_end_and_their_errors_stay_with_them() -> None:
    tasks = [asyncio.create_task(run_for_ever()), asyncio.create_task(fail())]
    await asyncio.sleep(0)
    await cancel_all(tasks)
    assert tasks[0].cancelled()
    assert isinstance(tasks[1].exception(), ValueError)
    await cancel_all(tasks)


async def test_a_cancellation_that_is_lost_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "AGAIN_SECONDS", 0.01)
    lost = 0

    async def lose_two() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost > 2:
                    raise

    task = asyncio.create_task(lose_two())
    await asyncio.sleep(0)
    await cancel_all([task])
    assert task.cancelled()
    assert lost == 3
