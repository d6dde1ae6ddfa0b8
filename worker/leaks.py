"""Whether an executor has gathered too much between its runs to be kept."""

from __future__ import annotations

from tenure.worker.pipe import Message

# The first runs fill caches that later ones use.
_FIRST_RUNS = 2
# Libraries keep a few for all runs; more are piling up.
THREADS_LEFT_MAX = 64


class LeakWatch:
    """The watch over one executor, from its start to its end.

    Args:
        memory_bytes_max: How much more host memory than after its first runs it may hold after a run; 0: any.
    """

    def __init__(self, memory_bytes_max: int) -> None:
        self._memory_bytes_max = memory_bytes_max
        self._runs = 0
        self._baseline_bytes = 0
        self.grown_bytes = 0

    def judge(self, idle: Message) -> str:
        """Why the executor is to be replaced, by what it says after a run; empty if it isn't."""
        self._runs += 1
        if idle["leaked_bytes"]:
            return "gpu_memory_leak"
        if idle.get("processes"):
            # They are gone, and maybe a later run would have needed them: a pool of workers, for example.
            return "processes_left"
        if idle.get("threads_left", 0) > THREADS_LEFT_MAX:
            return "threads_left"
        resident = int(idle.get("resident_bytes", 0))
        if self._runs <= _FIRST_RUNS:
            self._baseline_bytes = max(self._baseline_bytes, resident)
        self.grown_bytes = max(0, resident - self._baseline_bytes)
        if self._runs > _FIRST_RUNS and 0 < self._memory_bytes_max < self.grown_bytes:
            return "host_memory_leak"
        return ""
