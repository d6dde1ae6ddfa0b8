"""The thread that writes a run's checkpoints while its training goes on.

One is being written, one may wait. What happens when a third comes:

* the one that waits is superseded: it is never written, as the newer one is what a resumed run wants;
* but if it has the best score so far, the caller waits until its writing begins, as the best is to be kept.

So at most two copies of a state are in memory, and a slow storage never holds up a training that only saves what is
newer.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tenure.worker.checkpoint.snapshot import Snapshot


@dataclass
class Save:
    """One checkpoint that is to be written.

    Attributes:
        snapshot: The state.
        step: It stands after.
        score: Higher is better.
        stall_seconds: For which taking the snapshot held the evaluation up; None if the evaluation waits anyway.
    """

    snapshot: Snapshot
    step: int
    score: float | None
    stall_seconds: float | None = None


class BackgroundWriter:
    """Carries out saves in a thread of its own, in order. One thread uses it.

    Args:
        write: Writes one; runs in the thread. What it raises is raised by the next call of :meth:`make_room` or
            :meth:`wait`; nothing more is written then.
        superseded: Called (in the caller's thread) for each save that never gets written for a newer one.
    """

    def __init__(self, write: Callable[[Save], None], superseded: Callable[[Save], None]) -> None:
        self._write = write
        self._superseded = superseded
        self._changed = threading.Condition()
        # Held while something is announced: after abandon() has returned, nothing is.
        self._announcing = threading.Lock()
        self._waiting: Save | None = None
        self._writing = False
        self._abandoned = False
        self._failure: BaseException | None = None
        self._best = -math.inf
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being written, or waits for that."""
        return self._writing or self._waiting is not None

    @property
    def abandoned(self) -> bool:
        """Whether nobody wants any more what isn't announced yet."""
        return self._abandoned

    def make_room(self, score: float | None) -> Save | None:
        """Before a save with ``score`` is made: take away what waits, or let its writing begin (see the module).

        Returns:
            What was superseded, for its memory.
        """
        with self._changed:
            self._raise_failure()
            if self._waiting is not None and _worth(self._waiting.score) > max(self._best, _worth(score)):
                self._changed.wait_for(lambda: self._waiting is None or self._failure is not None)
                self._raise_failure()
            superseded, self._waiting = self._waiting, None
        if superseded is not None:
            self._superseded(superseded)
        return superseded

    def hand_over(self, save: Save) -> None:
        """Have it written next. There must be room."""
        with self._changed:
            if self._waiting is not None:
                raise RuntimeError("a save waits already")
            if self._abandoned:
                return
            self._waiting = save
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="tenure-checkpoints", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait(self) -> None:
        """Until everything handed over is written or has failed; raises what the writing raised."""
        with self._changed:
            self._changed.wait_for(lambda: not self.busy or self._failure is not None)
            self._raise_failure()

    def announce(self, tell: Callable[[], None]) -> bool:
        """Call ``tell`` unless nobody wants it any more; whether it was called."""
        with self._announcing:
            if self._abandoned:
                return False
            tell()
            return True

    def abandon(self) -> None:
        """From now on nothing begins and nothing is announced; what is being written is given up at its next step."""
        with self._announcing, self._changed:
            self._abandoned = True
            self._waiting = None
            self._changed.notify_all()

    def close(self) -> None:
        """:meth:`abandon`, and wait for the end of the thread."""
        self.abandon()
        if self._thread is not None:
            self._thread.join()

    def _serve(self) -> None:
        while (save := self._next()) is not None:
            try:
                self._write(save)
            except BaseException as error:  # noqa: BLE001 - translated: the evaluator's thread raises it
                with self._changed:
                    self._failure = error
            # The snapshot's memory is free before the next save is waited for.
            del save
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _next(self) -> Save | None:
        """What to write next; None once there will be nothing more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._abandoned or self._failure is not None)
            if self._waiting is None or self._abandoned or self._failure is not None:
                return None
            save, self._waiting = self._waiting, None
            self._writing = True
            self._best = max(self._best, _worth(save.score))
            self._changed.notify_all()
            return save

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _worth(score: float | None) -> float:
    return -math.inf if score is None else score
