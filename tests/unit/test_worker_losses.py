"""How often a worker loses runs, over restarts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tenure.worker.losses import LossRecord
from tenure.worker.metrics import Instruments
from tenure.worker.runs import Run, StopReason

DAY = 24 * 3600.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_at_first_one_loss_in_a_day_is_taken_for_granted() -> None:
    assert LossRecord().mean_seconds_between_losses == DAY


def test_run_time_of_all_slots_counts_while_it_passes(tmp_path: Path) -> None:
    clock = Clock()
    record = LossRecord(tmp_path / "losses.json", clock)
    record.run_started()
    clock.now += 3600
    record.run_started()
    clock.now += 3600
    assert record.mean_seconds_between_losses == DAY + 3 * 3600, "before any has ended"
    record.run_ended(lost=False)
    clock.now += 3600
    record.run_ended(lost=True)
    clock.now += 1_000_000
    assert record.mean_seconds_between_losses == (DAY + 4 * 3600) / 2, "idle time is no run time"
    again = LossRecord(tmp_path / "losses.json", clock)
    assert again.mean_seconds_between_losses == record.mean_seconds_between_losses
    again.lost()
    assert LossRecord(tmp_path / "losses.json").mean_seconds_between_losses == (DAY + 4 * 3600) / 3


def test_the_past_is_forgotten_slowly(tmp_path: Path) -> None:
    clock = Clock()
    record = LossRecord(tmp_path / "losses.json", clock)
    for _ in range(100):
        record.lost()
    assert record.mean_seconds_between_losses == DAY / 101
    record.run_started()
    for _ in range(200):
        clock.now += DAY
        _ = record.mean_seconds_between_losses
    assert record.mean_seconds_between_losses > 10 * DAY


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"losses": 1}', '{"losses": "NaN", "run_seconds": 1}', '{"losses": -1, "run_seconds": 1}']
)
def test_a_damaged_record_is_begun_anew(text: str, tmp_path: Path) -> None:
    path = tmp_path / "losses.json"
    path.write_text(text)
    record = LossRecord(path)
    assert record.mean_seconds_between_losses == DAY
    record.lost()
    assert json.loads(path.read_text())["losses"] == 1


def test_a_disk_that_refuses_stops_nothing(tmp_path: Path) -> None:
    record = LossRecord(tmp_path / "missing" / "losses.json")
    record.lost()
    assert record.mean_seconds_between_losses == DAY / 2


@pytest.mark.parametrize(
    ("outcome", "reason", "lost"),
    [
        ("success", None, False),
        ("failure", None, False),
        ("loss", None, True),
        ("release", StopReason.PREEMPTED, True),
        ("release", StopReason.DRAIN, False),
        ("dropped", StopReason.LOST, False),
    ],
)
def test_crashes_and_preemptions_are_losses(outcome: str, reason: StopReason | None, lost: bool) -> None:
    instruments = Instruments()
    run = SimpleNamespace(number=1, started_at=0.0, stop_reason=reason, seconds=lambda: 1.0)
    instruments.run_started(cast(Any, SimpleNamespace(idle_gap_seconds=None)))
    instruments.run_ended(cast(Run, run), outcome)
    mean = instruments.losses.mean_seconds_between_losses
    assert mean == pytest.approx(DAY / 2 if lost else DAY, rel=0.01)
    assert instruments.losses.policy(0.02).overhead == 0.02
