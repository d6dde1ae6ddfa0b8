"""The interval between checkpoints against what it approximates."""

from __future__ import annotations

import math

import pytest

from tenure.worker.checkpoint import interval
from tenure.worker.checkpoint.interval import BusyCores, CheckpointPolicy, CostEstimate, daly_interval_seconds

DAY = 24 * 3600.0


def expected_time(work: float, cost: float, mean: float) -> float:
    """Wall time for a second of work, with ``work`` seconds between checkpoints: Daly's exact model, free restarts."""
    return mean * math.expm1((work + cost) / mean) / work


def best_interval(cost: float, mean: float) -> float:
    """By golden section."""
    low, high = 1e-6, 10 * mean
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(300):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if expected_time(left, cost, mean) < expected_time(right, cost, mean):
            high = right
        else:
            low = left
    return (low + high) / 2


@pytest.mark.parametrize("mean", [600.0, 3600.0, DAY, 30 * DAY])
@pytest.mark.parametrize("cost", [0.01, 0.1, 1.0, 10.0, 60.0])
def test_it_is_the_minimum_of_the_expected_time(cost: float, mean: float) -> None:
    exact = best_interval(cost, mean)
    assert daly_interval_seconds(cost, mean) == pytest.approx(exact, rel=0.002)
    # The first-order estimate of Young would not pass: its error is about the checkpoint's cost.
    if cost > mean / 100:
        assert math.sqrt(2 * cost * mean) != pytest.approx(exact, rel=0.02)


def test_checkpoints_that_cost_more_than_the_time_between_losses() -> None:
    assert daly_interval_seconds(200.0, 100.0) == 100.0
    assert daly_interval_seconds(1000.0, 100.0) == 100.0


def test_the_allowance_stretches_the_interval_and_never_shortens_it() -> None:
    policy = CheckpointPolicy(overhead=0.01, mean_seconds_between_losses=600.0)
    assert daly_interval_seconds(1.0, 600.0) < 100.0 == policy.interval_seconds(1.0)
    rarely = CheckpointPolicy(overhead=0.01, mean_seconds_between_losses=30 * DAY)
    assert rarely.interval_seconds(1.0) == daly_interval_seconds(1.0, 30 * DAY) > 100.0
    assert CheckpointPolicy(overhead=0.0).interval_seconds(0.0) == math.inf
    assert CheckpointPolicy(overhead=1.0).interval_seconds(0.0) == 0.0


def test_a_cost_is_the_stall_and_the_share_of_writing_that_the_training_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BusyCores, "share", lambda self: 0.5)
    cost = CostEstimate()
    assert cost.seconds == interval.FIRST_COST_SECONDS
    cost.measured(0.2, 1.0)
    assert cost.seconds == pytest.approx(0.7), "the first measurement replaces the guess"
    cost.measured(2.0, 4.0)
    assert cost.seconds == pytest.approx(0.5 * 0.7 + 0.5 * 4.0)


def test_the_share_of_busy_cores_is_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = BusyCores()
    assert 0.0 <= cores.share() <= 1.0
    monkeypatch.setattr("os.getloadavg", lambda: (10_000.0, 0.0, 0.0))
    assert cores.share() == 1.0
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr("time.process_time", lambda: cores._started[1])
    assert cores.share() == 0.0
