"""The host's memory as one process sees it: what it could still have, what it took at most, whom the kernel killed.

Linux only; elsewhere nothing is known, and nothing is limited.
"""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_KIB = 1024


def limit_this_process(bytes_max: int) -> None:
    """From now on this process, and each that it starts, gets no more than so much memory of its own.

    What counts is memory that can be written and isn't shared (``VmData``): code, files that are mapped and GPU memory
    don't. Asking for more fails, as if the machine had no more.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        bytes_max = min(bytes_max, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (bytes_max, hard))


def own_limit_bytes() -> int | None:
    """What :func:`limit_this_process` has set, or whoever started this process; None: no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return None if soft == resource.RLIM_INFINITY else soft


def free_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """What this process could allocate now: the least of its limits, its cgroups' and the machine's; None: unknown."""
    found = [*_left_by_limits(proc), *_left_by_cgroup(proc, cgroups)]
    if (available := _field(proc / "meminfo", "MemAvailable")) is not None:
        found.append(available * _KIB)
    return max(0, min(found)) if found else None


def forget_peak(proc: Path = _PROC) -> None:
    """Begin to count anew, where the kernel can."""
    try:
        (proc / "self/clear_refs").write_text("5")
    except OSError:
        # Not Linux, or not allowed: the peak is since the process began then.
        return


def peak_bytes(proc: Path = _PROC) -> int:
    """The most resident memory this process has had, since :func:`forget_peak` where that works."""
    if (highest := _field(proc / "self/status", "VmHWM")) is not None:
        return highest * _KIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIB


def total_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """What this process and its like may have together: the machine's memory, or its cgroups'; 0: unknown."""
    total = (_field(proc / "meminfo", "MemTotal") or 0) * _KIB
    limits = [limit for limit, _ in _cgroup_figures(proc, cgroups)]
    return min([total, *limits]) if total else 0


def cgroup_used_ratio(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> float:
    """How much of what its cgroup allows is in use and couldn't be dropped, as ``MemAvailable`` says it of a machine.

    Of those it is in, the fullest's; 0: none has a limit.
    """
    return max((used / limit for limit, used in _cgroup_figures(proc, cgroups) if limit), default=0.0)


def kernel_kills(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """How many processes the kernel has killed for want of memory: of this one's cgroup, else of the whole machine.

    It rises before the signal is sent: who finds a process killed and this number risen knows why.
    """
    for directory, second_version in _memory_cgroups(proc, cgroups):
        name = "memory.events" if second_version else "memory.oom_control"
        if (kills := _field(directory / name, "oom_kill")) is not None:
            return kills
    return _field(proc / "vmstat", "oom_kill") or 0


def _left_by_limits(proc: Path) -> Iterator[int]:
    for limit, field in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        soft, _ = resource.getrlimit(limit)
        used = _field(proc / "self/status", field)
        if soft != resource.RLIM_INFINITY and used is not None:
            yield soft - used * _KIB


def _left_by_cgroup(proc: Path, cgroups: Path) -> Iterator[int]:
    for limit, used in _cgroup_figures(proc, cgroups):
        yield limit - used


def _cgroup_figures(proc: Path, cgroups: Path) -> Iterator[tuple[int, int]]:
    """(limit, used and not to be dropped) of each cgroup with a limit."""
    for directory, second_version in _memory_cgroups(proc, cgroups):
        names = (
            ("memory.max", "memory.current") if second_version else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        limit, used = (_number(directory / name) for name in names)
        # Without a limit the first version says a number near 2**63.
        if limit is not None and used is not None and limit < 2**60:
            # The particulars are older than the sum, and may be more.
            yield limit, max(0, used - _reclaimable_bytes(directory / "memory.stat", second_version=second_version))


def _reclaimable_bytes(stat: Path, *, second_version: bool) -> int:
    """What the kernel drops before it kills: as ``si_mem_available`` in its mm/show_mem.c, by LXCFS done for cgroups.

    That is files' pages, active ones too: data that is read in every epoch is active for good. Shared memory and tmpfs
    aren't among them, they stand in the lists of anonymous memory, as do locked pages in one of their own. Unlike
    there, what isn't on the disk yet counts as used: of a disk that hangs it stays. The first version doesn't say how
    much of the kernel's own memory could be dropped, mostly names and inodes.
    """
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return 0
    bytes_of = {name: int(number) for name, _, number in (line.partition(" ") for line in lines)}
    prefix, unwritten = ("", "file_") if second_version else ("total_", "total_")
    files = sum(bytes_of.get(f"{prefix}{name}", 0) for name in ("active_file", "inactive_file"))
    dirty = sum(bytes_of.get(f"{unwritten}{name}", 0) for name in ("dirty", "writeback"))
    return max(0, files - dirty) + bytes_of.get("slab_reclaimable", 0)


def _memory_cgroups(proc: Path, cgroups: Path) -> Iterator[tuple[Path, bool]]:
    """Directories of the memory cgroups that this process is in, its own first, and whether of the second version.

    Each one's limit holds for all below it: a batch job's for its steps, a slice's for its units. Inside a container
    the paths in ``/proc`` may be the host's; its own cgroup then is at the root of what it sees.
    """
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            second_version = not controllers
            root = cgroups if second_version else cgroups / "memory"
            own = root / path.lstrip("/")
            for directory in (own, *own.parents):
                if (directory / ("memory.events" if second_version else "memory.oom_control")).exists():
                    yield directory, second_version
                if directory == root:
                    break


def _field(path: Path, name: str) -> int | None:
    """The number behind ``name`` in a file of lines ``name: number`` or ``name number``."""
    try:
        found = re.search(rf"^{name}:?\s+(\d+)", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
