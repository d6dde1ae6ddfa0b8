"""Slow disks, slow forks and clocks that stand, for real processes: slow_calls.c, compiled, and what it is told.

::

    faults = Faults(tmp_path)
    store.environment |= faults.environment     # before it is started
    faults.set(sync_ms=2500)                    # from now on each fsync takes that much longer
    faults.set()                                # none any more
"""

from __future__ import annotations

import struct
import subprocess
import time
from pathlib import Path

from tools import tool

_SOURCE = Path(__file__).with_name("slow_calls.c")
_LAYOUT = struct.Struct("=iiq")


class Faults:
    """For every process that is started with ``environment``.

    Attributes:
        environment: What a process needs to be hit.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "faults"
        self._file.write_bytes(_LAYOUT.pack(0, 0, 0))
        library = folder / "slow_calls.so"
        subprocess.run(
            [tool("cc"), "-Wall", "-Werror", "-O1", "-shared", "-fPIC", _SOURCE, "-o", library, "-ldl"], check=True
        )
        self.environment = {"LD_PRELOAD": str(library), "TENURE_TEST_FAULTS": str(self._file)}

    def set(self, *, sync_ms: int = 0, fork_ms: int = 0, clock_stands: bool = False) -> None:
        """From now on: how much longer an fsync takes, how long a fork holds its process up, whether time stands."""
        # In place: processes have it mapped.
        with self._file.open("r+b") as file:
            file.write(_LAYOUT.pack(sync_ms, fork_ms, int(time.time()) if clock_stands else 0))
