"""When a master holds its claims for a rollback of its store, for how long, and when it doesn't believe in one."""

from __future__ import annotations

import pytest

from tenure.master.loops.rollback import RollbackAlarm
from tenure.master.metrics import MasterMetrics

HOLD = 10.0
QUIET = 90.0


class Scene:
    """An alarm on a clock of the test's own, and what it made of the signs."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.held_until = 0.0
        self.holds = 0
        self.asked = 0
        self.metrics = MasterMetrics()
        self.alarm = RollbackAlarm(self.metrics, HOLD, QUIET, self.hold, self.ask_all, clock=lambda: self.now)

    def hold(self, seconds: float) -> None:
        """As the matchmaker's."""
        self.holds += 1
        self.held_until = self.now + seconds

    def ask_all(self) -> None:
        """Everybody is to say what they have."""
        self.asked += 1

    @property
    def counted(self) -> float:
        """Rollbacks, as exported."""
        value = self.metrics.registry.get_sample_value("tenure_store_rollbacks_total")
        assert value is not None
        return value

    @property
    def seen(self) -> tuple[int, int, float]:
        """(holds, times that everybody was asked, rollbacks counted)."""
        return self.holds, self.asked, self.counted


@pytest.fixture
def scene() -> Scene:
    """Nothing was noticed yet."""
    return Scene()


class TestCertainSigns:
    """The lease clock went back, or events that were read are gone."""

    def test_one_holds_claims_asks_everybody_and_is_counted(self, scene: Scene) -> None:
        scene.alarm.noticed("the clock went back")
        assert scene.seen == (1, 1, 1)
        assert scene.held_until == scene.now + HOLD

    def test_those_within_one_hold_are_one_rollback(self, scene: Scene) -> None:
        for _ in range(9):
            scene.alarm.noticed("a cursor is gone")
            scene.now += 1
        assert scene.seen == (1, 1, 1)
        assert scene.held_until == 1000 + HOLD, "as long as it was at first"

    def test_steady_ones_hide_no_second_rollback(self, scene: Scene) -> None:
        for _ in range(25):
            scene.alarm.noticed("a cursor is gone")
            scene.now += 1
        assert scene.seen == (3, 3, 3)

    def test_one_right_after_a_hold_counts(self, scene: Scene) -> None:
        scene.alarm.noticed("the clock went back")
        scene.now += HOLD
        scene.alarm.noticed("the clock went back")
        assert scene.seen == (2, 2, 2)


class TestSuspicions:
    """A hello shows a lease that is newer than the store's: any worker can say so."""

    def test_the_first_holds_claims_and_is_counted_and_nobody_is_asked(self, scene: Scene) -> None:
        """Whoever is connected has just said hello."""
        scene.alarm.suspected("a newer lease")
        assert scene.seen == (1, 0, 1)
        assert scene.held_until == scene.now + HOLD

    def test_a_series_holds_once(self, scene: Scene) -> None:
        while scene.now < 1000 + HOLD + QUIET:
            scene.alarm.suspected("a newer lease")
            scene.now += 1
        assert scene.seen == (1, 0, 1)
        assert scene.held_until == 1000 + HOLD
        scene.alarm.suspected("a newer lease")
        assert scene.seen == (2, 0, 2)

    def test_after_a_rollback_that_was_seen_they_hold_nothing_for_as_long(self, scene: Scene) -> None:
        scene.alarm.noticed("the clock went back")
        scene.now += HOLD + QUIET - 1
        scene.alarm.suspected("a newer lease")
        assert scene.seen == (1, 1, 1)
        scene.now += 1
        scene.alarm.suspected("a newer lease")
        assert scene.seen == (2, 1, 2)

    def test_a_certain_sign_behind_one_asks_everybody_and_has_its_own_whole_hold(self, scene: Scene) -> None:
        """It is told of the same rollback, so it isn't counted again."""
        scene.alarm.suspected("a newer lease")
        scene.now += HOLD - 1
        scene.alarm.noticed("the clock went back")
        assert scene.seen == (2, 1, 1)
        assert scene.held_until == scene.now + HOLD
        scene.now += 1
        scene.alarm.noticed("a cursor is gone")
        assert scene.seen == (2, 1, 1)

    def test_they_do_not_hide_a_certain_sign_later(self, scene: Scene) -> None:
        for _ in range(50):
            scene.alarm.suspected("a newer lease")
            scene.now += 1
        scene.alarm.noticed("the clock went back")
        assert scene.seen == (2, 1, 2)
