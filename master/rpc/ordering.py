"""What a worker says about one task is carried out in the order it was said; different tasks don't wait for another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class InOrder:
    """Starts work on tasks; each piece waits for what was started before on the same tasks.

    Args:
        spawn: Runs a coroutine and takes care of its errors.
    """

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        # The last unfinished work on each task.
        self._last: dict[str, asyncio.Task[None]] = {}

    def start(self, task_ids: Iterable[str], work: Coroutine[Any, Any, None]) -> None:
        """Carry ``work`` out once everything that was started before on these tasks has ended."""
        keys = list(task_ids)
        before = {self._last[key] for key in keys if key in self._last}

        async def in_turn() -> None:
            if before:
                await asyncio.wait(before)
            await work

        task = self._spawn(in_turn())
        for key in keys:
            self._last[key] = task
        task.add_done_callback(lambda done: self._ended(keys, done))

    def _ended(self, keys: list[str], done: asyncio.Task[None]) -> None:
        for key in keys:
            if self._last.get(key) is done:
                del self._last[key]
