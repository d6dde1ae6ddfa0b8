"""The brake on mass expiry, and how a worker's silence is spoken of."""

from __future__ import annotations

import pytest

from tenure.common.limits import BATCH_TASKS_MAX
from tenure.master.core.liveness import worker_status
from tenure.master.core.reaping import Brake

HOLD = 30_000


def allowed(brake: Brake, clock_ms: int = 0, due: int = 10, leases: int = 10, workers: int = 3) -> int:
    return brake.allowed(clock_ms=clock_ms, due=due, leases=leases, workers_due=workers)


@pytest.mark.parametrize(
    ("due", "leases", "workers"),
    [
        (1, 1, 1),
        (10, 10, 2),  # two machines may well die together
        (5, 10, 5),  # half is not most
        (55, 100, 9),  # nor is exactly the fraction
        (0, 0, 0),
        (0, 100, 0),
    ],
)
def test_ordinary_deaths_are_reaped(due: int, leases: int, workers: int) -> None:
    brake = Brake(HOLD)
    assert allowed(brake, due=due, leases=leases, workers=workers) == due
    assert not brake.on


@pytest.mark.parametrize(("due", "leases", "workers"), [(10, 10, 3), (56, 100, 3), (2, 3, 3)])
def test_most_leases_of_several_workers_at_once_are_not(due: int, leases: int, workers: int) -> None:
    brake = Brake(HOLD)
    assert allowed(brake, due=due, leases=leases, workers=workers) == 0
    assert brake.on


def test_the_brake_lets_go_after_its_time_on_the_lease_clock() -> None:
    brake = Brake(HOLD)
    assert allowed(brake, clock_ms=1000) == 0
    assert allowed(brake, clock_ms=1000 + HOLD - 1) == 0
    assert allowed(brake, clock_ms=1000 + HOLD) == 10
    # Still suspicious, so the alert stays until what was due is gone.
    assert brake.on
    assert allowed(brake, clock_ms=1000 + HOLD, due=0, leases=0, workers=0) == 0
    assert not brake.on


def test_the_hold_does_not_begin_anew_while_it_lasts() -> None:
    brake = Brake(HOLD)
    for clock in range(0, HOLD, 500):
        assert allowed(brake, clock_ms=clock) == 0
    assert allowed(brake, clock_ms=HOLD) == 10


def test_workers_that_came_back_release_it_at_once_and_the_next_time_counts_anew() -> None:
    brake = Brake(HOLD)
    assert allowed(brake) == 0
    assert allowed(brake, clock_ms=500, due=1, leases=10, workers=1) == 1
    assert not brake.on
    assert allowed(brake, clock_ms=HOLD) == 0


def test_a_clock_that_stands_still_holds_it() -> None:
    brake = Brake(HOLD)
    assert {allowed(brake, clock_ms=7) for _ in range(100)} == {0}


def test_one_step_takes_at_most_a_batch() -> None:
    assert allowed(Brake(HOLD), due=5000, leases=100_000) == BATCH_TASKS_MAX
    assert allowed(Brake(0), due=5000, leases=5000, workers=50) == BATCH_TASKS_MAX


@pytest.mark.parametrize(
    ("seen_ms_ago", "left", "status"),
    [
        (0, False, "live"),
        (30_000, False, "live"),
        (30_001, False, "silent"),
        (300_000, False, "silent"),
        (300_001, False, "gone"),
        (0, True, "gone"),
    ],
)
def test_how_a_worker_is_spoken_of(seen_ms_ago: int, left: bool, status: str) -> None:
    assert worker_status(seen_ms_ago=seen_ms_ago, left=left, lease_ttl_ms=30_000) == status
