"""Small disks of a seed's own, to be filled up: tmpfs, where this user may mount them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

_FILLER = "filler"
_BLOCK = bytes(1 << 16)


class SmallDisks:
    """File systems below one folder.

    Args:
        root: Where they are mounted, each under its name.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._mounted: list[Path] = []

    def make(self, name: str, megabytes: int) -> None:
        """An empty file system; a plain folder where nothing can be mounted."""
        path = self._root / name
        path.mkdir(parents=True, exist_ok=True)
        if sys.platform == "linux" and _mount(path, megabytes):
            self._mounted.append(path)

    def fill(self, name: str) -> None:
        """Use up all that is left of it."""
        assert self._root / name in self._mounted
        with (self._root / name / _FILLER).open("ab", buffering=0) as file:
            size = len(_BLOCK)
            while size:
                try:
                    file.write(_BLOCK[:size])
                except OSError:
                    # Down to single bytes: a file system with room for a page is not full.
                    size //= 2

    def free(self, name: str) -> None:
        """Give that back."""
        (self._root / name / _FILLER).unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount all, however busy."""
        for path in self._mounted:
            subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)
        self._mounted.clear()


def can_mount() -> bool:
    """Whether this user may mount a tmpfs here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        if not _mount(Path(folder), 1):
            return False
        subprocess.run(["umount", folder], capture_output=True, check=False)
    return True


def _mount(path: Path, megabytes: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
