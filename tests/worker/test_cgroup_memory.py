"""What a real kernel counts as memory of a cgroup, and what of it the worker takes as used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from memory_box import MemoryBox, can_limit_memory
from processes import wait_for

MIB = 2**20
LIMIT_MIB, FILE_MIB, TAKEN_MIB, SHARED_MIB = 96, 88, 40, 24

PROGRAM = """
import json, os, sys
from tenure.worker import host_memory
path, taken, shared = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
{entering}

def say():
    print(json.dumps([host_memory.cgroup_used_ratio(), host_memory.free_bytes(), host_memory.kernel_kills()]))

say()
buffer = bytearray(1 << 20)
for _ in range(2):
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
say()
held = b"x" * taken
say()
tmpfs = os.memfd_create("tmpfs")
os.truncate(tmpfs, shared)
for _ in range(shared >> 20):
    os.write(tmpfs, buffer)
say()
"""

TOTAL = """
from tenure.worker.machine import Machine
{entering}
print(Machine().memory_total_bytes)
"""

pytestmark = pytest.mark.skipif(not can_limit_memory(), reason="needs a cgroup of its own, and may not make one")


def test_a_file_that_was_read_twice_is_free_memory(tmp_path: Path) -> None:
    """As each epoch after the first does with its data. It can really be had: nobody is killed for it."""
    path = tmp_path / "data"
    with path.open("wb") as file:
        for _ in range(FILE_MIB):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())
        # Who reads it is charged for it.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with MemoryBox() as box:
        box.allow(LIMIT_MIB * MIB)
        done = subprocess.run(
            [
                *(sys.executable, "-c", PROGRAM.format(entering=box.entering)),
                *(str(path), str(TAKEN_MIB * MIB), str(SHARED_MIB * MIB)),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    first, read, taken, shared = (json.loads(line) for line in done.stdout.splitlines())
    # What a few pages more or less are, that the kernel counts by the processor.
    near = 8 * MIB / (LIMIT_MIB * MIB)
    assert read[0] < first[0] + near
    assert read[1] > first[1] - 8 * MIB
    assert taken[0] == pytest.approx(read[0] + TAKEN_MIB / LIMIT_MIB, abs=near)
    # Nothing but swap could take what is in tmpfs.
    assert shared[0] == pytest.approx(taken[0] + SHARED_MIB / LIMIT_MIB, abs=near)
    assert shared[2] == first[2], "nobody was killed"


def test_a_limit_above_is_what_there_is_to_share() -> None:
    """As a batch job's, of which the worker is a step without a limit of its own: its slots share no more."""
    with MemoryBox() as box:
        box.allow(512 * MIB)
        inner = box.folder / "inner"
        inner.mkdir()
        program = TOTAL.format(entering=box.entering.replace(str(box.folder), str(inner)))
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        wait_for(lambda: removed(inner), what="the inner one is empty")
    assert int(done.stdout.splitlines()[-1]) == 512 * MIB


def removed(folder: Path) -> bool:
    """Whoever was in it is gone only a moment after it was waited for."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
