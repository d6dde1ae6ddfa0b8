"""Plays systemd for tests: the socket that a service tells how it stands."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

# Far above what anything takes: a test that waits this long has failed.
DEADLINE_SECONDS = 60.0
Message = dict[str, str]


class Listener:
    """``NOTIFY_SOCKET``: a path below ``folder``, or in the abstract namespace with a ``name`` that begins with ``@``.

    Attributes:
        heard: Every message so far, its lines by name.
    """

    def __init__(self, folder: Path, name: str = "notify") -> None:
        self.address = name if name.startswith("@") else str(folder / name)
        self.heard: list[Message] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name[1:]}" if name.startswith("@") else self.address)

    def environment(self, watchdog_seconds: float = 0.0) -> dict[str, str]:
        """What systemd sets; WATCHDOG_PID can't be known before the process is there, and may be absent."""
        given = {"NOTIFY_SOCKET": self.address}
        return given | {"WATCHDOG_USEC": f"{watchdog_seconds * 1e6:.0f}"} if watchdog_seconds else given

    def next(self, seconds: float = DEADLINE_SECONDS) -> Message | None:
        """The next message; None if none comes for so long."""
        self._socket.settimeout(seconds)
        try:
            text = self._socket.recv(65536).decode()
        except TimeoutError:
            return None
        self.heard.append(dict(line.partition("=")[::2] for line in text.splitlines()))
        return self.heard[-1]

    def until(self, holds: Callable[[Message], object], what: str = "") -> Message:
        """The next message of which that holds."""
        end = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < end:
            message = self.next()
            if message is not None and holds(message):
                return message
        raise AssertionError(f"not heard: {what or holds}; but {self.heard[-5:]}")

    def is_silent_for(self, seconds: float) -> bool:
        """Whether nothing comes for so long, once what was sent before has been read: then a watchdog barks."""
        end = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < end:
            if self.next(seconds) is None:
                return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()
