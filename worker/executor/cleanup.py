"""What is done between two runs of an executor: clear away what the first left, and say what can't be.

An evaluation may leave memory, threads and processes behind. Memory that nobody refers to is given back, of the GPU and
of the host. A process that a run has started and left is ended, with its children, wherever it has moved to: the
executor adopts orphans of its descendants (Linux). What can't be ended from inside (threads, memory that is still
referred to) is told to the supervisor, who replaces an executor that has gathered too much.

Kept are processes that were there before the first run, started while the evaluator was imported, and those by which
multiprocessing, joblib and torch.compile serve later runs, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tenure.worker.pipe import Message

_PR_SET_CHILD_SUBREAPER = 36
# A CUDA context and cuDNN's workspaces stay; more than this that a finished run still holds is a leak.
GPU_LEAK_BYTES = 256 * 1024 * 1024
# Growth that is worth asking the C library to give free memory back, which takes milliseconds.
_TRIM_BYTES = 32 * 1024 * 1024
# Data loaders' workers and the like are told to end, and may not have yet.
_ENDING_SECONDS = 0.3
_FREEZING_RUNS = 2
_LOOK_SECONDS = 0.01
_NAMES_MAX = 20
# By what their command lines say: multiprocessing's, joblib's (whose workers end by themselves when idle), torch's.
_SERVING_LATER_RUNS = ("resource_tracker", "forkserver", "popen_loky", "compile_worker")
# fsspec keeps one thread for all object stores, and asyncio's executor in it looks up names; tqdm one for all bars.
_THREADS_KEPT = ("tenure-", "fsspecIO", "asyncio_", "tqdm_monitor")
_KIB = 1024
_KEPT_RESIDENT = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)


def adopt_orphans() -> None:
    """Have the kernel make this process the parent of its descendants' orphans (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Cleanup:
    """Make it when the evaluator is imported; call :meth:`after_run` after each run, in the main thread."""

    def __init__(self) -> None:
        self._kept = set(_children(os.getpid()))
        # Threads have no id that isn't used again; this holds a few small objects of dead ones until the next look.
        self._before = set(threading.enumerate())
        self._left: set[threading.Thread] = set()
        self._trimmed_bytes = 0
        self._runs = 0

    def after_run(self) -> Message:
        """Clear away.

        Returns:
            ``leaked_bytes`` of GPU memory that can't be given back, ``resident_bytes`` of host memory, ``processes``
            that were ended (as texts), ``threads`` that this run left (their names), and ``threads_left`` of all runs.
        """
        gc.collect()
        if self._runs < _FREEZING_RUNS:
            # What the first runs have imported and cached stays for later ones, and need not be walked each time: of
            # torch alone that takes 150 ms.
            gc.freeze()
        self._runs += 1
        leaked_bytes = _clear_gpus()
        processes = self._end_processes()
        threads = self._new_threads()
        return {
            "leaked_bytes": leaked_bytes,
            "resident_bytes": self._resident_bytes(),
            "processes": processes[:_NAMES_MAX],
            "threads": threads[:_NAMES_MAX],
            "threads_left": len(self._left),
        }

    def _new_threads(self) -> list[str]:
        alive = {thread for thread in threading.enumerate() if not thread.name.startswith(_THREADS_KEPT)}
        alive -= self._before
        new = alive - self._left
        self._left = alive
        return sorted(thread.name for thread in new)

    def _end_processes(self) -> list[str]:
        """Wait a moment for the run's processes to end by themselves, then end them; what they were."""
        deadline = time.monotonic() + _ENDING_SECONDS
        while (strays := self._strays()) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        names = [f"{pid} {_command_of(pid)[:100]}" for pid in strays]
        while strays:
            for pid in strays:
                for member in (*_descendants(pid), pid):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(member, signal.SIGKILL)
            for pid in strays:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
            # What they had started is ours now.
            strays = self._strays()
        return names

    def _strays(self) -> list[int]:
        strays = []
        for pid in _children(os.getpid()):
            if pid in self._kept or _has_ended(pid):
                continue
            if any(word in _command_of(pid) for word in _SERVING_LATER_RUNS):
                self._kept.add(pid)
            else:
                strays.append(pid)
        return strays

    def _resident_bytes(self) -> int:
        """Of this process and what it keeps, after free memory was given back."""
        total = self._measure()
        if total > self._trimmed_bytes + _TRIM_BYTES:
            _give_back_free_memory()
            total = self._trimmed_bytes = self._measure()
        return total

    def _measure(self) -> int:
        pid = os.getpid()
        return sum(_resident_bytes_of(member) for member in (pid, *_descendants(pid)))


def _clear_gpus() -> int:
    """Empty the caches; returns the bytes of the slot's GPUs that can't be given back."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0
    torch.cuda.empty_cache()
    held = sum(int(torch.cuda.memory_allocated(device)) for device in range(torch.cuda.device_count()))
    return held if held > GPU_LEAK_BYTES else 0


def _give_back_free_memory() -> None:
    with contextlib.suppress(AttributeError, OSError):
        # glibc's; other C libraries don't hoard.
        ctypes.CDLL(None).malloc_trim(0)


def _has_ended(pid: int) -> bool:
    """Whether it is a child that has ended; its remains are cleared away."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _children(pid: int) -> list[int]:
    """Child processes. The kernel lists them by thread; asking every process for its parent takes long on big hosts."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _command_of(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return b" ".join(words).decode(errors="replace").strip() or "?"


def _resident_bytes_of(pid: int) -> int:
    """Without files that are mapped, which the kernel drops when it wants memory; shared memory counts."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return _KIB * sum(map(int, _KEPT_RESIDENT.findall(status)))
