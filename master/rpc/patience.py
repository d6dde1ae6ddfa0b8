"""Waiting for a store that is away, where refusing would cost more than waiting."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from tenure.common.errors import StoreUnavailable

_Reply = TypeVar("_Reply")


async def patiently(call: Callable[[], Awaitable[_Reply]], seconds: float = math.inf) -> _Reply:
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
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=2.0),
        stop=tenacity.stop_after_delay(seconds),
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            return await call()
    raise AssertionError("unreachable")
