"""Runs the scripts of ops/ as an operator would; the fixture ``scripts`` of tests/ops/conftest.py is one of these."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

# Their exit codes, see console.py of restarting.
KEPT, BROKEN, USAGE, UNAVAILABLE, REFUSED, FAILED = 0, 1, 2, 3, 5, 6


@dataclass(frozen=True)
class Said:
    """What a script came to."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> Any:
        """Its stdout as JSON; without one, what it said instead."""
        assert self.out.startswith("{"), self.err
        return json.loads(self.out)


class Scripts:
    """Runs ``FOLDER/NAME ARGUMENTS…``.

    Args:
        folder: Of the scripts.
        home: Their TENURE_HOME, where runs keep each other out; None: the user's.
    """

    def __init__(self, folder: Path, home: Path | None = None) -> None:
        self.folder = folder
        self._home = {"TENURE_HOME": str(home)} if home is not None else {}

    async def __call__(self, name: str, *arguments: str | Path, **environment: str) -> Said:
        """Run one to its end; no setting of Tenure's goes along that isn't given here."""
        process = await self.start(name, *arguments, **environment)
        out, err = await process.communicate()
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode())

    async def start(self, name: str, *arguments: str | Path, **environment: str) -> asyncio.subprocess.Process:
        """Start one, with its output in pipes."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            str(self.folder / name),
            *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
            | self._home
            | environment,
        )


def pid_of(ready_file: Path) -> int:
    """Of the process that wrote it."""
    return int(json.loads(ready_file.read_text())["pid"])


def end_what_was_started(root: Path) -> None:
    """End whoever wrote the ready files below this folder last, with their children: scripts start things anew."""
    for path in [*root.glob("*.ready"), *root.glob("*/ready.json")]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid_of(path))
            if "tenure" in " ".join(process.cmdline()):
                for each in [*process.children(recursive=True), process]:
                    each.kill()
