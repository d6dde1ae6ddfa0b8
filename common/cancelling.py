"""Ending asyncio tasks that run for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 1.0


async def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and return once they have ended, however they did.

    A task that goes on is cancelled again: before Python 3.12 ``asyncio.wait_for`` loses a cancellation that comes in
    the same turn as its result, and redis-py writes under it. A loop that runs for ever would then never end.
    """
    ending = set(tasks)
    pending = {task for task in ending if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)
    await asyncio.gather(*ending, return_exceptions=True)
