"""Whether an executor has gathered too much between its runs to be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tenure.worker.pipe import Message

# The first runs fill caches that later ones use.
_FIRST_RUNS = 2
# Libraries keep a few for all runs; more are piling up.
THREADS_LEFT_MAX = 64
_TEXTS_MAX = 20


@dataclass(frozen=True)
class Leftovers:
    """What an executor says after a run that could not be cleared away.

    Attributes:
        gpu_bytes: Of GPU memory that something still refers to, if that is much.
        resident_bytes: Of host memory, of the executor and what it keeps, without mapped files; 0: it can't tell.
        processes: That the run left, and that were ended.
        threads: That the run left.
        threads_left: Of all runs.
    """

    gpu_bytes: int = 0
    resident_bytes: int = 0
    processes: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()
    threads_left: int = 0

    @classmethod
    def of(cls, idle: Message) -> Leftovers:
        """From the ``idle`` message of a process in which user code may do anything: nonsense counts as nothing."""
        return cls(
            _number(idle.get("leaked_bytes")),
            _number(idle.get("resident_bytes")),
            _texts(idle.get("processes")),
            _texts(idle.get("threads")),
            _number(idle.get("threads_left")),
        )


class LeakWatch:
    """The watch over one executor, from its start to its end.

    Args:
        memory_bytes_max: How much more host memory than after its first runs it may hold after a run; 0: any.

    Attributes:
        grown_bytes: How much more it held after the last run.
    """

    def __init__(self, memory_bytes_max: int) -> None:
        self.grown_bytes = 0
        self._memory_bytes_max = memory_bytes_max
        self._runs = 0
        self._baseline_bytes = 0

    def judge(self, left: Leftovers) -> str:
        """Why the executor is to be replaced; empty if it isn't."""
        self._runs += 1
        if self._runs <= _FIRST_RUNS:
            self._baseline_bytes = max(self._baseline_bytes, left.resident_bytes)
        self.grown_bytes = max(0, left.resident_bytes - self._baseline_bytes)
        if left.gpu_bytes:
            return "gpu_memory_leak"
        if left.processes:
            # They are gone, and maybe a later run would have needed them: a pool of workers, for example.
            return "processes_left"
        if left.threads_left > THREADS_LEFT_MAX:
            return "threads_left"
        if self._runs > _FIRST_RUNS and 0 < self._memory_bytes_max < self.grown_bytes:
            return "host_memory_leak"
        return ""


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(one)[:200] for one in value[:_TEXTS_MAX]) if isinstance(value, list) else ()
