"""What the pusher remembers has a bound."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tenure.master.loops import pusher as pusher_module
from tenure.master.loops.pusher import Pusher


def test_workers_that_pull_are_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each worker has a new id, as in pods, they are ever more."""
    monkeypatch.setattr(pusher_module, "OTHERS_MAX", 10)
    pusher = Pusher(SimpleNamespace())  # type: ignore[arg-type]
    for number in range(25):
        pusher.forget(f"w{number}")
        assert f"w{number}" in pusher._others
        assert len(pusher._others) <= 10
