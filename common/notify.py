"""What systemd is told of a process that it runs: sd_notify's protocol, one datagram a message.

Source: sd_notify(3) and sd_watchdog_enabled(3), systemd 252. A library is not worth its weight here: systemd's own
needs libsystemd and a compiler, the pure ones are not kept up, and the protocol is one ``sendto``.

The watchdog's word is given by the event loop itself, so that one that does not turn is silent, and only while
whoever owns the loop knows of nothing that is stuck. A store or a master that is away is no reason for silence: a
restart would not bring it back. While a process starts or drains, the same beat asks for more time, up to the limit
that the process has set itself, or for as long as it sees the start go on, so that the unit's timeouts need not know
how long a drain or the loading of a store may take.
"""

from __future__ import annotations

import asyncio
import enum
import faulthandler
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Self

import structlog

log = structlog.get_logger()

# How old a status may be, and how often a drain is heard of.
BEAT_SECONDS_MAX = 5.0
# What a beat of a starting or stopping process asks for. One that falls silent is killed so long after its last.
EXTENSION_SECONDS = 30.0
# For how long a start that has just gone on counts as going on.
_PROGRESS_SECONDS = 2 * BEAT_SECONDS_MAX
_STATUS_BYTES_MAX = 1000


class Phase(enum.Enum):
    """Where a process is in its life, and what is said once on entering it."""

    STARTING = ""
    READY = "READY=1"
    STOPPING = "STOPPING=1"


class Notifier:
    """The way to the service's supervisor; made by :meth:`take`. Without one, everything here does nothing.

    Nothing here waits or raises: a message that can't be sent now is sent with the next beat.

    Args:
        address: A unix datagram socket: a path, or ``@name`` in the abstract namespace. Empty: nobody listens.
        watchdog_seconds: Silence after which the process is killed; 0: never.

    Attributes:
        phase: What was said last.
    """

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        self.phase = Phase.STARTING
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_seconds = watchdog_seconds if address else 0.0
        self._said = True
        self._busy_until = 0.0
        self._stuck = ""
        self._unheard = False
        self._status: Callable[[], str] = lambda: "starting"
        self._is_stuck: Callable[[], str] = lambda: ""

    @classmethod
    def take(cls, environ: MutableMapping[str, str] = os.environ) -> Self:
        """What the environment names, taken out of it: a store or an executor must not speak for this process.

        With a watchdog, the SIGABRT by which it ends a process leaves all threads' stacks on stderr.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        if address and not address.startswith(("/", "@")):
            log.warning("notify.unusable", address=address, expected="a path or @name of a unix socket")
            address = ""
        if microseconds and not (microseconds.isascii() and microseconds.isdigit()):
            log.warning("notify.unusable", watchdog_usec=microseconds, expected="an integer of microseconds")
            microseconds = ""
        is_ours = pid in ("", str(os.getpid()))
        notifier = cls(address, int(microseconds or 0) / 1e6 if is_ours else 0.0)
        if notifier._watchdog_seconds:
            faulthandler.enable()
        return notifier

    @property
    def beat_seconds(self) -> float:
        """Between two beats: half of what the watchdog allows, or less."""
        half = self._watchdog_seconds / 2
        return min(half, BEAT_SECONDS_MAX) if half else BEAT_SECONDS_MAX

    def ready(self) -> None:
        """The process serves."""
        self._enter(Phase.READY)

    def progress(self) -> None:
        """The start has just gone on a bit, and may take that much longer; to be said for as long as it does."""
        if self.phase is Phase.STARTING:
            self._busy_until = max(self._busy_until, time.monotonic() + _PROGRESS_SECONDS)

    def stopping(self, within_seconds: float = 0.0) -> None:
        """It ends.

        Args:
            within_seconds: How long that may take from now, beyond the unit's own timeout.
        """
        self._busy_until = time.monotonic() + within_seconds
        self._enter(Phase.STOPPING)

    def watch(self, status: Callable[[], str], stuck: Callable[[], str] = lambda: "") -> None:
        """From now on say this.

        Args:
            status: A line for people.
            stuck: What does not go on although the loop turns; empty: nothing. While something is, the watchdog hears
                nothing.
        """
        self._status, self._is_stuck = status, stuck

    async def run(self, start_seconds: float = 0.0) -> None:
        """Beat until cancelled; returns at once when nobody listens.

        Args:
            start_seconds: How long the start may take, beyond the unit's own timeout.
        """
        if self.phase is Phase.STARTING:
            self._busy_until = time.monotonic() + start_seconds
        while self._address:
            self.beat()
            await asyncio.sleep(self.beat_seconds)

    def beat(self) -> None:
        """Say how it stands."""
        if not self._address:
            return
        lines = [] if self._said else [self.phase.value, f"MAINPID={os.getpid()}"]
        if self.phase is not Phase.READY and time.monotonic() < self._busy_until:
            lines.append(f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS * 1e6:.0f}")
        if self._watchdog_seconds and not self._note_stuck(self._is_stuck()):
            lines.append("WATCHDOG=1")
        status = self._stuck or self._status()
        lines.append(f"STATUS={' '.join(status.split())[:_STATUS_BYTES_MAX]}")
        if self._send("\n".join(lines)):
            self._said = True

    def _enter(self, phase: Phase) -> None:
        if phase is not self.phase:
            self.phase = phase
            self._said = False
            self.beat()

    def _note_stuck(self, what: str) -> bool:
        if what and not self._stuck:
            log.critical("notify.stuck", what=what, watchdog_seconds=self._watchdog_seconds)
        self._stuck = what
        return bool(what)

    def _send(self, message: str) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # A supervisor that does not read must not hold up the loop that it watches.
                sender.setblocking(False)
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._unheard:
                log.warning("notify.unheard", address=self._address.replace("\0", "@"), error=str(error))
            self._unheard = True
            return False
        self._unheard = False
        return True
