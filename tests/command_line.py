"""Runs ``tenure`` in this process, as the console script would, and keeps what it said."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from tenure.client.cli import main


@dataclass(frozen=True)
class Said:
    """What one command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its stdout as JSON."""
        return json.loads(self.out)


class CommandLine:
    """Calls commands on one master.

    Args:
        master: Where ``--master`` points, by the environment variable.
    """

    def __init__(self, master: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("TENURE_MASTER", master)

    def __call__(self, *arguments: str, stdin: str | bytes = "") -> Said:
        """``tenure ARGUMENTS…``."""
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        self._capsys.readouterr()
        code = main(list(arguments))
        captured = self._capsys.readouterr()
        return Said(int(code), captured.out, captured.err)
