"""A memory cgroup of a test's own, as a container has one; for root, on a Linux whose cgroups may be written."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Self

from processes import wait_for

_ROOT = Path("/sys/fs/cgroup")


class MemoryBox:
    """Made when entered, removed at the end, when whoever is in it must have ended.

    Attributes:
        folder: Of the cgroup.
    """

    def __init__(self) -> None:
        first_version = _ROOT / "memory"
        self._first = first_version.is_dir()
        self.folder = (first_version if self._first else _ROOT) / f"tenure-test-{secrets.token_hex(4)}"

    def __enter__(self) -> Self:
        self.folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        # Who was killed is in it until its memory has been given back.
        wait_for(self._removed, what=f"{self.folder} is empty")

    @property
    def entering(self) -> str:
        """What a Python program says to be in it from then on, with all that it starts."""
        return f"open({str(self.folder / 'cgroup.procs')!r}, 'w').write('0')"

    def allow(self, bytes_max: int) -> None:
        """Let those in it have so much altogether."""
        (self.folder / self._limit).write_text(str(bytes_max))

    def leave_free(self, bytes_free: int) -> None:
        """Let those in it have so much more than they have now, apart from files that were read."""
        used = int((self.folder / ("memory.usage_in_bytes" if self._first else "memory.current")).read_text())
        fields = dict(line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
        prefix = "total_" if self._first else ""
        files = sum(int(fields[f"{prefix}{name}"]) for name in ("active_file", "inactive_file"))
        self.allow(used - files + bytes_free)

    def lift(self) -> None:
        """No limit any more."""
        (self.folder / self._limit).write_text("-1" if self._first else "max")

    @property
    def _limit(self) -> str:
        return "memory.limit_in_bytes" if self._first else "memory.max"

    def _removed(self) -> bool:
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        return not self.folder.exists()


def can_limit_memory() -> bool:
    """Whether this process may make one, and its limit be set."""
    if os.name != "posix" or not os.access(_ROOT, os.W_OK):
        return False
    try:
        with MemoryBox() as box:
            box.lift()
    except OSError:
        return False
    return True
