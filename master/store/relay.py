"""What masters tell each other in passing: publish and subscribe, nothing of which is kept.

For what may get lost: tails of output (docs/adr/0010). Whatever must not get lost is a transition and has an event.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis.asyncio as redis_asyncio
import structlog
from redis.exceptions import RedisError

from tenure.common.errors import StoreUnavailable
from tenure.master.store.codec import text
from tenure.master.store.keys import Keys
from tenure.master.store.translation import translate

log = structlog.get_logger()

_WAIT_SECONDS = 2.0
# A connection on which even a ping finds no answer for so long is dialled anew.
_SILENCE_SECONDS = 8.0
_PAUSE_SECONDS_MAX = 2.0

Handle = Callable[[bytes], None]


class Relay:
    """Channels in the store, by name. On a cluster all of them are at the node of the worker registry."""

    def __init__(self, client_for: Callable[[str], redis_asyncio.Redis], keys: Keys) -> None:
        self._client_for = client_for
        self._keys = keys
        self._complained = False

    async def publish(self, name: str, data: bytes) -> None:
        """Send to whoever listens now.

        Raises:
            StoreUnavailable: The store doesn't answer.
        """
        try:
            await self._client().publish(self._keys.channel(name), data)
        except (TimeoutError, RedisError, OSError) as error:
            raise translate(error) from error

    async def listen(self, handles: Mapping[str, Handle]) -> None:
        """Call the handle of a channel with each message, until cancelled. Handles must not block."""
        by_channel = {self._keys.channel(name): handle for name, handle in handles.items()}
        while True:
            try:
                await self._listen_once(by_channel)
            except (TimeoutError, RedisError, OSError, StoreUnavailable) as error:
                if not self._complained:
                    # Without it everything else works: once is worth a warning (no permission for channels, say).
                    log.warning("relay.interrupted", error=str(error))
                    self._complained = True
                await asyncio.sleep(random.uniform(0.05, _PAUSE_SECONDS_MAX))

    async def _listen_once(self, by_channel: Mapping[str, Handle]) -> None:
        pubsub = self._client().pubsub()
        try:
            await pubsub.subscribe(*by_channel)
            heard_at = time.monotonic()
            while True:
                message: dict[str, Any] | None = await pubsub.get_message(timeout=_WAIT_SECONDS)
                if message is not None:
                    heard_at = time.monotonic()
                    if message["type"] == "message":
                        by_channel[text(message["channel"])](bytes(message["data"]))
                    elif message["type"] == "subscribe":
                        self._complained = False
                elif time.monotonic() - heard_at > _SILENCE_SECONDS:
                    raise TimeoutError("the store has said nothing, not even to a ping")
                else:
                    await pubsub.ping()
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # redis-py before 5.1 may have swallowed it.
                    raise asyncio.CancelledError
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _client(self) -> redis_asyncio.Redis:
        return self._client_for(self._keys.worker_events)
