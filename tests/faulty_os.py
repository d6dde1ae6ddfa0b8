"""File-system operations that fail or kill at a chosen one.

The operations are the real ones: only the name ``os`` of the module that writes checkpoints is replaced by a proxy that
counts the calls, or lets them wait. Import ``injected`` and ``slow`` where they are used as fixtures.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenure.worker.checkpoint import local

OPERATIONS = ("mkdir", "open", "write", "fsync", "close", "rename", "unlink", "rmdir", "listdir", "lstat", "scandir")
Fault = Callable[[int, str], None]
Inject = Callable[[Fault], "FaultyOs"]


class FaultyOs:
    """Passes everything on to ``os``; before each operation it asks ``fault``, which may raise."""

    def __init__(self, fault: Fault) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in OPERATIONS:
            return real

        def operation(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args))
            self._fault(len(self.calls), name)
            return real(*args, **kwargs)

        return operation


@pytest.fixture
def injected(monkeypatch: pytest.MonkeyPatch) -> Inject:
    """``injected(fault)`` puts the proxy in place and returns it."""

    def inject(fault: Fault) -> FaultyOs:
        faulty = FaultyOs(fault)
        monkeypatch.setattr(local, "os", faulty)
        return faulty

    return inject


def at(n: int, error: int) -> Fault:
    """Only the N-th operation fails."""

    def fault(count: int, operation: str) -> None:
        if count == n:
            raise OSError(error, os.strerror(error))

    return fault


def from_there(n: int, error: int) -> Fault:
    """The N-th operation and all that follow fail."""

    def fault(count: int, operation: str) -> None:
        if count >= n:
            raise OSError(error, os.strerror(error))

    return fault


def steps() -> Iterator[int]:
    """1, 2, 3, …: until the caller has come past the last operation."""
    yield from range(1, 200)
    raise AssertionError("more operations than there can be")


class GatedOs:
    """Passes everything on to ``os``; ``gated`` operations wait for the gate first, and say that they do."""

    def __init__(self, *gated: str) -> None:
        # Of other tests in this process, which gave up their runs without closing them.
        self._others = set(_writing_threads())
        self.gate, self.reached = threading.Event(), threading.Event()
        self._gated = gated

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self._gated:
            return real

        def operation(*args: Any, **kwargs: Any) -> Any:
            self.reached.set()
            assert self.gate.wait(60)
            return real(*args, **kwargs)

        return operation

    def writing_threads(self) -> list[threading.Thread]:
        """Those that the test's runs have left, or are using."""
        return [thread for thread in _writing_threads() if thread not in self._others]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[GatedOs]:
    """A storage that makes nothing durable before its gate is opened."""
    gated = GatedOs("fsync")
    monkeypatch.setattr(local, "os", gated)
    yield gated
    gated.gate.set()


def _writing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tenure-checkpoints"]


def files(base: Path) -> list[Path]:
    """Every file below."""
    return [path for path in base.rglob("*") if path.is_file()]
