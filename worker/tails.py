"""What the master at the other end of a session has asked to be sent of what runs print (docs/protocol-session.md).

Best effort, and bounded everywhere: a tail sends at most one piece an interval, reads from the ring that the output is
kept in anyway, and skips what it was too slow for. So an evaluation that prints without end costs its followers some
lines, and heartbeats and memory nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tenure.proto import worker_pb2
from tenure.worker.output import RunLogs, RunOutput

PIECE_BYTES_MAX = 32 * 1024
# One piece an interval: 256 KiB a second.
INTERVAL_SECONDS = 0.125
# What is sent at a run's end of what wasn't sent yet.
END_BYTES_MAX = 64 * 1024
TAILS_MAX = 64
KEEP_MS_MAX = 60_000

RunKey = tuple[str, int]
"""A run: (task id, lease epoch)."""


class _Tail:
    """One run that is followed.

    Attributes:
        output: None until the run has begun.
        place: From where on it is still to be sent.
        until: When it ends unless it is asked for again.
        answered: Whether something was sent since it was asked for from a place.
    """

    def __init__(self, output: RunOutput | None, place: int) -> None:
        self.output = output
        self.place = place
        self.until = 0.0
        self.next_at = 0.0
        self.answered = False


class Tails:
    """The tails of one session stream; they end with it, since the next stream's master may know nothing of them.

    Args:
        logs: What runs print.
        is_held: Whether the worker has such a run, begun or not.
        wake: Called when :meth:`ends` or :meth:`pieces` may have something.
    """

    def __init__(self, logs: RunLogs, is_held: Callable[[RunKey], bool], wake: Callable[[], None]) -> None:
        self._logs = logs
        self._is_held = is_held
        self._wake = wake
        self._woken = False
        self._tails: dict[RunKey, _Tail] = {}
        self._answers: list[worker_pb2.TailPiece] = []
        logs.listener = self._note

    def ask(self, request: worker_pb2.TailRequest) -> None:
        """Send what the run prints from now on, or from a place on, for a while. Asked again, for longer."""
        key = (request.task_id, request.epoch)
        tail = self._tails.get(key) or self._begin(key)
        if tail is None:
            return
        tail.until = time.monotonic() + min(request.keep_ms, KEEP_MS_MAX) / 1000
        if request.resume:
            start = tail.output.recent.start if tail.output is not None else 0
            tail.place = max(request.place, start)
            tail.answered = False
        self._wake()

    def ends(self) -> Iterator[worker_pb2.TailPiece]:
        """The last pieces of runs that have ended: to be sent before their outcomes."""
        self._woken = False
        answers, self._answers = self._answers, []
        yield from answers
        for key, tail in list(self._tails.items()):
            output = tail.output = tail.output or self._logs.find(*key)
            if output is not None and output.finished:
                del self._tails[key]
                yield from _end_of(key, tail, output)

    def pieces(self) -> Iterator[worker_pb2.TailPiece]:
        """What is due of runs that go on."""
        now = time.monotonic()
        for key, tail in list(self._tails.items()):
            if now > tail.until:
                del self._tails[key]
            elif now >= tail.next_at and tail.output is not None and not tail.output.finished:
                piece = _next_of(key, tail, tail.output)
                if piece.data or not tail.answered:
                    tail.answered = True
                    tail.next_at = now + INTERVAL_SECONDS
                    yield piece

    def look_up_at(self) -> float:
        """When :meth:`pieces` is to be called again without being woken; monotonic seconds."""
        return min((tail.next_at for tail in self._tails.values() if _has_more(tail)), default=float("inf"))

    def _begin(self, key: RunKey) -> _Tail | None:
        """A tail of a run that goes on; what is left of one that has ended is answered at once."""
        output = self._logs.find(*key)
        if (output is None or output.finished) and not self._is_held(key):
            if len(self._answers) < TAILS_MAX:
                self._answers += _file_end(key, self._logs)
                self._wake()
            return None
        if len(self._tails) >= TAILS_MAX:
            self._answers.append(_trouble(key, f"{TAILS_MAX} runs of this worker are followed already"))
            self._wake()
            return None
        tail = self._tails[key] = _Tail(output, output.recent.start if output is not None else 0)
        return tail

    def _note(self) -> None:
        if self._woken or not self._tails:
            return
        now = time.monotonic()
        outputs = [(tail, tail.output) for tail in self._tails.values()]
        # Whoever has sent a piece just now wakes by itself.
        if any(output is None or output.finished or now >= tail.next_at for tail, output in outputs):
            self._woken = True
            self._wake()


def _has_more(tail: _Tail) -> bool:
    return tail.output is not None and tail.output.recent.end > tail.place


def _next_of(key: RunKey, tail: _Tail, output: RunOutput) -> worker_pb2.TailPiece:
    place, data = output.recent.read(tail.place, PIECE_BYTES_MAX)
    tail.place = place + len(data)
    return worker_pb2.TailPiece(
        task_id=key[0], epoch=key[1], place=place, data=data, caught_up=tail.place >= output.recent.end
    )


def _end_of(key: RunKey, tail: _Tail, output: RunOutput) -> Iterator[worker_pb2.TailPiece]:
    tail.place = max(tail.place, output.recent.end - END_BYTES_MAX)
    while True:
        piece = _next_of(key, tail, output)
        piece.last = piece.caught_up
        yield piece
        if piece.last:
            return


def _file_end(key: RunKey, logs: RunLogs) -> Iterator[worker_pb2.TailPiece]:
    found = logs.read_end(*key, END_BYTES_MAX)
    if found is None:
        yield _trouble(key, "the worker has no output of this run any more")
        return
    place, data = found
    output = RunOutput(None)
    output.recent.write_at(place, data)
    yield from _end_of(key, _Tail(output, place), output)


def _trouble(key: RunKey, text: str) -> worker_pb2.TailPiece:
    return worker_pb2.TailPiece(task_id=key[0], epoch=key[1], last=True, trouble=text)
