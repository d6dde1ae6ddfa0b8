"""Waiting for a store that is away, where refusing would cost more than waiting."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from tenure.common.errors import StoreUnavailable

_Reply = TypeVar("_Reply")


class Patience:
    """Tries again what a store that is away could not do.

    Pauses grow, so that thousands who wait don't keep a master busy, and end early when the store is found again. With
    the tick that finds it the lease clock goes on; what waits here is said of leases, and what is said next of the
    same lease waits behind it, its renewals too. A pause that outlasted the outage would cost short leases.

    Args:
        first_pause_seconds: The longest that the first pause may be; it doubles with each.
        pause_seconds_max: The longest pause, should nobody say that the store is back.
    """

    def __init__(self, first_pause_seconds: float = 0.05, pause_seconds_max: float = 2.0) -> None:
        self._first_pause_seconds = first_pause_seconds
        self._pause_seconds_max = pause_seconds_max
        self._found = asyncio.Event()

    def store_found(self) -> None:
        """The store answers: whoever pauses tries again at once."""
        self._found.set()
        self._found = asyncio.Event()

    async def repeat(self, call: Callable[[], Awaitable[_Reply]], seconds: float = math.inf) -> _Reply:
        """What ``call`` returns, tried again while the store is away. ``call`` must be safe to repeat.

        Raises:
            StoreUnavailable: It was still away after ``seconds``.
        """
        try:
            return await call()
        except StoreUnavailable:
            if seconds <= 0:
                raise
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(StoreUnavailable),
            wait=tenacity.wait_random_exponential(multiplier=self._first_pause_seconds, max=self._pause_seconds_max),
            stop=tenacity.stop_after_delay(seconds),
            sleep=self._pause,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                return await call()
        raise AssertionError("unreachable")

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._found.wait()
