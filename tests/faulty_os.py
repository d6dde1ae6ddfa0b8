"""File-system operations that fail or kill at a chosen one.

The operations are the real ones: only the name ``os`` of the module that writes checkpoints is replaced by a proxy that
counts the calls. Import ``injected`` where it is used as a fixture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
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
