"""The way to the masters: the session stream (``session.py``), or MorphML's unary calls (``push_client.py``)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
import tenacity

log = structlog.get_logger()

# A connection shorter than this counts as a failed attempt: a master that accepts and hangs up isn't asked at once.
_GOOD_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.1


class Unreachable(Exception):
    """No connection, or no more; the text says how. It may pass."""


class Refused(Exception):
    """No master will ever take this worker as it is set up; the text says why."""


class Superseded(Exception):
    """A newer process has this worker's id."""


class Link(Protocol):
    """Keeps the worker in touch with a master, whichever lives.

    Attributes:
        contact: When a master was last heard.
    """

    contact: Contact

    async def run(self) -> None:
        """Keep in touch until cancelled.

        Raises:
            Refused: See there.
            Superseded: See there.
        """

    def wake(self) -> None:
        """Something is to be told: capacity, an outcome, a checkpoint, progress."""

    async def leave(self, reason: str) -> None:
        """Say goodbye, if a master listens. Afterwards :meth:`run` only waits to be cancelled."""


class Contact:
    """When a master was last heard, and how often the connection was made anew.

    Attributes:
        up: Whether a master has accepted this worker and nothing says that it is gone.
        reconnects: Connections after the first.
    """

    def __init__(self) -> None:
        self.up = False
        self.reconnects = 0
        self._connections = 0
        self._connected_at = 0.0
        self._heard_at = time.monotonic()

    def connected(self) -> None:
        """A master has welcomed this worker."""
        self.up = True
        self._connected_at = time.monotonic()
        self.reconnects = self._connections
        self._connections += 1
        self.heard()

    @property
    def ever_up(self) -> bool:
        """Whether any master has accepted this worker since it started."""
        return self._connections > 0

    def heard(self) -> None:
        """A master has answered."""
        self._heard_at = time.monotonic()

    def lost(self) -> None:
        """Nobody answers any more."""
        self.up = False

    def was_good(self) -> bool:
        """Whether the connection that is ending now had come about and held for a while."""
        return self.up and time.monotonic() - self._connected_at >= _GOOD_SECONDS

    def age_seconds(self) -> float:
        """Since a master was last heard."""
        return time.monotonic() - self._heard_at


async def connect_for_ever(
    connect: Callable[[], Awaitable[None]], pause_seconds_max: Callable[[], float], masters: str
) -> None:
    """Connect again and again, with pauses: exponential with full jitter, short again after a good connection.

    Args:
        connect: One connection from dial to end. Returns after a good one; raises Unreachable after any other.
        pause_seconds_max: The cap of a pause now; below a third of the leases' time, or they run out meanwhile.
        masters: For the log.
    """

    def pause(state: tenacity.RetryCallState) -> float:
        return random.uniform(0, min(pause_seconds_max(), _FIRST_PAUSE_SECONDS * 2.0 ** min(state.attempt_number, 30)))

    def tell(state: tenacity.RetryCallState) -> None:
        # The first failures one by one, then fewer and fewer: an outage of a night is no megabyte of log.
        number = state.attempt_number
        if number & (number - 1) == 0:
            error = state.outcome.exception() if state.outcome else None
            log.warning("session.unreachable", attempts=number, error=str(error), masters=masters)

    while True:
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Unreachable), wait=pause, before_sleep=tell, sleep=asyncio.sleep
        )
        async for attempt in attempts:
            with attempt:
                await connect()
        # A master that went down took the connections of all workers with it: they don't come back as one.
        await asyncio.sleep(random.uniform(0, _FIRST_PAUSE_SECONDS))
