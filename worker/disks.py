"""How much room a worker has where it writes."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

from tenure.worker.checkpoint.naming import local_path

# A file system that doesn't answer (a dead NFS server) must not hold a scrape up.
_ANSWER_SECONDS_MAX = 1.0


class Disks:
    """Asks the file systems of ``places`` (by kind, such as ``work_dir``). Any thread may."""

    def __init__(self, places: Mapping[str, Path]) -> None:
        self._places = dict(places)
        self._asking: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, work_dir: Path, checkpoints_url: str) -> Disks:
        """A worker's: where it spools, and where its checkpoints go if that is a directory."""
        checkpoints = local_path(checkpoints_url)
        return cls({"work_dir": work_dir, **({} if checkpoints is None else {"checkpoints": checkpoints})})

    def free_bytes(self) -> dict[str, int]:
        """What this user may still write there, by kind; without those that don't answer within a second.

        A place that doesn't exist yet is where its nearest parent is. One that still keeps an earlier call waiting
        isn't asked again.
        """
        answers: dict[str, int] = {}
        with self._lock:
            for kind, place in self._places.items():
                if (earlier := self._asking.get(kind)) is None or not earlier.is_alive():
                    asking = threading.Thread(
                        target=_ask, args=(kind, place, answers), name=f"disk-{kind}", daemon=True
                    )
                    self._asking[kind] = asking
                    asking.start()
            for asking in self._asking.values():
                asking.join(_ANSWER_SECONDS_MAX)
        return dict(answers)


def _ask(kind: str, place: Path, answers: dict[str, int]) -> None:
    for path in (place, *place.parents):
        try:
            answers[kind] = shutil.disk_usage(path).free
        except FileNotFoundError:
            continue
        except OSError:
            # Not mounted right, or forbidden: no figure is better than a wrong one.
            return
        return
