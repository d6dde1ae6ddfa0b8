"""How often this worker loses a run: what the interval between checkpoints is reckoned from.

A run is lost when its work since the last checkpoint may be: the executor crashed or was killed, the machine was
preempted, or the worker's own process died under it. The record lies in the work directory, so that a worker that is
preempted every two hours knows so after it was started anew.
"""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from tenure.worker.checkpoint.interval import PRIOR_SECONDS_BETWEEN_LOSSES, CheckpointPolicy

log = structlog.get_logger()

# The past counts, but less and less: at so much run time both numbers are halved.
_REMEMBERED_SECONDS = 30 * 24 * 3600.0
_WRITE_EVERY_SECONDS = 60.0
# On a full disk what little is free, or becomes so, is for outcomes and leases.
_FREE_BYTES_MIN = 1024 * 1024


class LossRecord:
    """Losses and run time, summed over all slots and all processes of this worker. One event loop uses it.

    Args:
        path: Where it is kept; None: nowhere.
        clock: Monotonic seconds.
    """

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._running = 0
        self._counted_at = clock()
        self._losses, self._run_seconds = (0.0, 0.0) if path is None else _read(path)

    @property
    def mean_seconds_between_losses(self) -> float:
        """Of run time. As if one loss in 24 hours had been seen beforehand, so that little evidence says little."""
        self._count()
        return (PRIOR_SECONDS_BETWEEN_LOSSES + self._run_seconds) / (1 + self._losses)

    def policy(self, overhead: float) -> CheckpointPolicy:
        """For a run that begins now."""
        return CheckpointPolicy(overhead, self.mean_seconds_between_losses)

    def run_started(self) -> None:
        """One more run is going on."""
        self._count()
        self._running += 1

    def run_ended(self, *, lost: bool) -> None:
        """One run less is going on."""
        self._count()
        self._running -= 1
        if lost:
            self.lost()

    def lost(self) -> None:
        """A run was lost; on disk on return, as more may be about to die."""
        self._losses += 1
        self.write()

    async def keep(self) -> None:
        """Write the run time down every minute: a run of days may end with the process."""
        while True:
            await asyncio.sleep(_WRITE_EVERY_SECONDS)
            if self._running:
                self._count()
                self.write()

    def write(self) -> None:
        """Replace the file. A disk that refuses costs exactness after a restart, nothing else."""
        if self._path is None:
            return
        text = json.dumps({"losses": self._losses, "run_seconds": self._run_seconds})
        new = self._path.with_suffix(".new")
        try:
            if shutil.disk_usage(self._path.parent).free < _FREE_BYTES_MIN:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            new.write_text(text)
            os.replace(new, self._path)
        except OSError as error:
            log.warning("losses.not_written", path=str(self._path), error=str(error))

    def _count(self) -> None:
        now = self._clock()
        self._run_seconds += self._running * (now - self._counted_at)
        self._counted_at = now
        if self._run_seconds > _REMEMBERED_SECONDS:
            self._run_seconds /= 2
            self._losses /= 2


def _read(path: Path) -> tuple[float, float]:
    """(losses, run seconds); zeros for a file that isn't there, and with a warning for one that is damaged."""
    try:
        kept = json.loads(path.read_text())
        losses, run_seconds = float(kept["losses"]), float(kept["run_seconds"])
    except FileNotFoundError:
        return 0.0, 0.0
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("losses.unreadable", path=str(path), error=f"{type(error).__name__}: {error}")
        return 0.0, 0.0
    if not (math.isfinite(losses) and math.isfinite(run_seconds) and losses >= 0 and run_seconds >= 0):
        log.warning("losses.unreadable", path=str(path), error=f"losses {losses}, run_seconds {run_seconds}")
        return 0.0, 0.0
    return losses, run_seconds
