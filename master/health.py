"""What a master says of itself: to probes by HTTP, and to systemd while it starts. From before its store is open."""

from __future__ import annotations

import asyncio
import time

import structlog

from tenure import __version__
from tenure.common.notify import Notifier
from tenure.master.master import Master

log = structlog.get_logger()

Verdict = tuple[bool, dict[str, object]]

_LOOP_SECONDS_MAX = 5.0
# How often a loading that lasts is heard of in the log.
_LOADING_LOG_SECONDS = 30.0


class Health:
    """Lives as long as the process; a store that loads for an hour is no reason to end it.

    Args:
        loop: The event loop that must turn.
        notifier: Hears of the loading, so that the start may take as long as that goes on.

    Attributes:
        master: The master, once its store is open.
        measures: Whether the metrics mean anything: before the master's start each is a nought that nobody has read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, notifier: Notifier) -> None:
        self.master: Master | None = None
        self.measures = False
        self._stopping = False
        self._loop = loop
        self._notifier = notifier
        self._loading_since = 0.0
        self._logged_at = 0.0

    def note_loading(self) -> None:
        """The store has just said that it loads what it keeps."""
        now = time.monotonic()
        self._loading_since = self._loading_since or now
        self._notifier.progress()
        if now - self._logged_at >= _LOADING_LOG_SECONDS or not self._logged_at:
            self._logged_at = now
            log.info("store.loading", seconds=round(now - self._loading_since))

    def stop(self) -> None:
        """The master ends before its store was open."""
        self._stopping = True
        self._notifier.stopping()

    def standing(self) -> str:
        """How it stands, in a line for people."""
        if self.master is not None:
            return self.master.standing()
        if self._stopping:
            return "stopping before the store was open"
        if self._loading_since:
            return f"starting: loading the store, {self._loading_seconds} s"
        return "starting: opening the store"

    def stuck(self) -> str:
        """What does not go on although the event loop turns; empty: nothing."""
        return self.master.stuck() if self.master is not None else ""

    def alive(self) -> Verdict:
        """For ``/healthz``, asked in the HTTP thread."""
        answered = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop)
        try:
            answered.result(timeout=_LOOP_SECONDS_MAX)
        except TimeoutError:
            return False, {"why": f"the event loop did not answer within {_LOOP_SECONDS_MAX:g} s"}
        if stuck := self.stuck():
            return False, {"why": stuck}
        master_id = self.master.master_id if self.master is not None else ""
        return True, {"master_id": master_id, "version": __version__}

    def ready(self) -> Verdict:
        """For ``/readyz``, likewise."""
        master = self.master
        if master is None:
            if self._loading_since:
                return False, {"why": "the store is loading", "seconds": self._loading_seconds}
            return False, {"why": "the store is not open yet"}
        answers = master.store_answers and not master.stopping
        return answers, {"store": master.store.description, "durability": master.store.durability}

    @property
    def _loading_seconds(self) -> int:
        return round(time.monotonic() - self._loading_since)
