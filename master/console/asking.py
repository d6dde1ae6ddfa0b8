"""The way from the web server's threads to the master's event loop, and answers that are shared."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from tenure.common.errors import Unavailable
from tenure.master.console.cache import COST_RATIO, FRESH_SECONDS_MIN, SharedAnswers

if TYPE_CHECKING:
    from tenure.master.master import Master

T = TypeVar("T")

ASK_SECONDS = 5.0


class Asker:
    """Asks a master in its own process. Thread-safe.

    Args:
        master: Of this process.
        loop: That it runs on.
        port: Of its gRPC server, for people who start workers.
    """

    def __init__(self, master: Master, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.master = master
        self.port = port
        self._loop = loop
        self._answers = SharedAnswers()

    def ask(self, work: Coroutine[Any, Any, T], seconds: float = ASK_SECONDS, *, give_up: bool = True) -> T:
        """Run a coroutine on the master's loop.

        Args:
            work: What to run.
            seconds: How long to wait.
            give_up: Whether it is cancelled then; else it goes on by itself.

        Raises:
            Unavailable: It took longer, or the store is away.
        """
        # Who looks is told at once, and looks again; what somebody wants done is tried.
        if give_up and not self.master.store_answers:
            work.close()
            raise Unavailable("the store does not answer", expected="this page tries again by itself")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except concurrent.futures.TimeoutError:
            if give_up:
                future.cancel()
            expected = "try again" if give_up else "it may still be at work: look again in a moment"
            raise Unavailable(f"the master did not answer within {seconds:g} s", expected=expected) from None

    def shared(
        self,
        question: object,
        make: Callable[[], T],
        cost_ratio: float = COST_RATIO,
        fresh_seconds_min: float = FRESH_SECONDS_MIN,
    ) -> T:
        """What ``make`` returns, or returned a short time ago to somebody else; see SharedAnswers."""
        answer: T = self._answers.get(question, make, cost_ratio, fresh_seconds_min)
        return answer

    def forget(self) -> None:
        """After something was done: the next look shows it."""
        self._answers.forget()


def now_unix_ms() -> int:
    """Wall time, for people."""
    return time.time_ns() // 1_000_000
