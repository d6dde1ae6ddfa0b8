"""What happened in one seed, as one list of events in the order of their times, kept as JSON lines.

Every event is a mapping with ``time`` (monotonic seconds of this machine, the same clock in all its processes) and
``what``; the rest depends on ``what``. docs/chaos.md lists them. The checker reads nothing else.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class History:
    """Collects events, from any thread, and keeps each on disk at once: a run that is killed leaves its story.

    Args:
        path: Where to; appended to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self._mutex = threading.Lock()
        self._file = path.open("a")

    def note(self, what: str, *, at: float | None = None, **fields: Any) -> Event:
        """Add one event, of now unless ``at`` says otherwise."""
        event: Event = {"time": time.monotonic() if at is None else at, "what": what, **fields}
        with self._mutex:
            self.events.append(event)
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
        return event

    def add(self, events: Iterable[Event]) -> None:
        """Add what other processes have written."""
        with self._mutex:
            self.events.extend(events)

    def close(self) -> None:
        """Nothing more is noted."""
        self._file.close()

    def written_whole(self) -> list[Event]:
        """All events in order of time; the file is them from now on."""
        self.events.sort(key=lambda event: event["time"])
        self.path.write_text("".join(json.dumps(event) + "\n" for event in self.events))
        return self.events


def read_lines(path: Path) -> list[Event]:
    """JSON lines; an absent file has none. A line that its writer was killed in is left out."""
    events = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return events


def tell(events: Iterable[Event]) -> list[str]:
    """The story for people: what struck, and what the search program saw of it."""
    ordered = sorted(events, key=lambda event: event["time"])
    start = ordered[0]["time"] if ordered else 0.0
    shown = (
        "plan",
        "strike",
        "heal",
        "ready",
        "died",
        "healed",
        "drained",
        "unexpected",
        "cancel",
        "requeue",
        "program",
    )
    return [
        f"{event['time'] - start:8.2f} s  {event['what']:<10} "
        + " ".join(f"{name}={value}" for name, value in event.items() if name not in ("time", "what", "pids"))
        for event in ordered
        if event["what"] in shown
    ]
