"""Curves of any length in bounded memory, read once; the pace; answers that viewers share."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest

from tenure.common.states import TaskState
from tenure.master.console.cache import ENTRIES_MAX, SharedAnswers
from tenure.master.console.curve import POINTS_MAX, STEPS_MAX, Curve
from tenure.master.console.curves import CURVES_MAX, PIECE, Curves
from tenure.master.console.forecast import MINUTE_MS, WINDOWS_MS, forecast
from tenure.master.store.looks import Ended, Piece
from tenure.master.store.records import SearchView


def search(name: str = "s", succeeded: int = 0, *, queued: int = 0, leased: int = 0, created: int = 1) -> SearchView:
    counts = dict.fromkeys(TaskState, 0)
    counts |= {TaskState.SUCCEEDED: succeeded, TaskState.QUEUED: queued, TaskState.LEASED: leased}
    return SearchView(name, "active", 0, 1.0, 0, "graph", created, 0, counts, 0, None, "")


class Results:
    """A search's index of results, as the store has it, and how often it was read.

    Args:
        most: Rows that a read returns at most, however many are asked for: the outcomes are long.
    """

    def __init__(self, most: int = PIECE) -> None:
        self._most = most
        self.rows: list[Ended] = []
        self.reads: list[tuple[int, int]] = []

    def add(self, *fitnesses: float | None, at: int | None = None) -> None:
        for fitness in fitnesses:
            number = len(self.rows)
            self.rows.append(Ended(f"t{number}", number if at is None else at, fitness))

    def read(self, name: str, start_unix_ms: int, skip: int, count: int) -> Piece:
        self.reads.append((start_unix_ms, count))
        rows = sorted(
            (row for row in self.rows if row.ended_unix_ms >= start_unix_ms), key=lambda row: row.ended_unix_ms
        )
        found = rows[skip : skip + min(count, self._most)]
        return Piece(found, len(found) == count or skip + len(found) < len(rows))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class TestCurve:
    def test_a_short_one_is_kept_whole(self) -> None:
        curve = Curve()
        for number, fitness in enumerate([0.1, None, 0.3, 0.2, 0.4]):
            curve.add(f"t{number}", 1000 + number, fitness)
        assert [point.fitness for point in curve.points] == [0.1, None, 0.3, 0.2, 0.4]
        assert [(step.number, step.task_id) for step in curve.steps] == [(1, "t0"), (3, "t2"), (5, "t4")]

    def test_a_long_one_is_thinned_evenly_and_keeps_its_best(self) -> None:
        curve, rng, best = Curve(), random.Random(1), 0.0
        for number in range(100_000):
            fitness = rng.random()
            best = max(best, fitness)
            curve.add(f"t{number}", number, fitness)
        assert curve.count == 100_000
        assert POINTS_MAX / 2 <= len(curve.points) <= POINTS_MAX
        gaps = {after.number - before.number for before, after in zip(curve.points, curve.points[1:], strict=False)}
        assert len(gaps) == 1
        assert curve.steps[-1].fitness == best

    def test_a_search_that_always_improves_is_bounded_too(self) -> None:
        curve = Curve()
        for number in range(50_000):
            curve.add(f"t{number}", number, float(number))
        assert len(curve.steps) <= STEPS_MAX
        assert curve.steps[-1].number == 50_000
        assert [step.number for step in curve.steps] == sorted(step.number for step in curve.steps)


class TestCurves:
    def test_only_what_is_new_is_read(self) -> None:
        results = Results()
        results.add(*[0.5] * 10)
        curves = Curves(results.read, Clock())
        assert curves.look(search(succeeded=10)).count == 10
        results.add(0.9)
        look = curves.look(search(succeeded=11))
        assert (look.count, look.whole, look.steps[-1].task_id) == (11, True, "t10")
        assert results.reads[-1][0] == 9

    def test_results_of_one_millisecond_are_neither_lost_nor_doubled(self) -> None:
        results = Results()
        results.add(*[0.5] * (2 * PIECE + 7), at=1000)
        curves = Curves(results.read, Clock())
        assert curves.look(search()).count == 2 * PIECE + 7
        results.add(0.6, at=1000)
        results.add(0.7, at=2000)
        assert curves.look(search()).count == 2 * PIECE + 9

    @pytest.mark.parametrize("apart_ms", [0, 1])
    def test_pieces_may_be_short_before_the_end(self, apart_ms: int) -> None:
        """The store reads only so many bytes at once."""
        results = Results(most=8)
        for number in range(100):
            results.add(0.5, at=1000 + apart_ms * number)
        look = Curves(results.read, Clock()).look(search(succeeded=100))
        assert (look.count, look.whole) == (100, True)
        assert len(results.reads) == 13

    def test_a_long_one_comes_in_several_looks(self) -> None:
        results, clock = Results(), Clock()
        results.add(*[0.5] * (10 * PIECE))

        def slow(*arguments: int | str) -> Piece:
            clock.now += 1.0
            return results.read(*arguments)  # type: ignore[arg-type]

        curves = Curves(slow, clock)
        first = curves.look(search())
        assert (first.count, first.whole) == (PIECE, False)
        looks = [curves.look(search()) for _ in range(11)]
        assert (looks[-1].count, looks[-1].whole) == (10 * PIECE, True)

    def test_another_search_of_the_same_name_starts_anew(self) -> None:
        results = Results()
        results.add(0.5, 0.6)
        curves = Curves(results.read, Clock())
        curves.look(search(created=1))
        results.rows.clear()
        results.add(0.1)
        look = curves.look(search(created=2))
        assert (look.count, look.steps[-1].fitness) == (1, 0.1)

    def test_what_came_to_stand_before_the_place_that_was_read_is_found_in_time(self) -> None:
        """The store's clock was set back, by a failover."""
        results, clock = Results(), Clock()
        results.add(0.5, at=5000)
        curves = Curves(results.read, clock)
        curves.look(search(succeeded=1))
        results.add(0.9, at=4000)
        assert curves.look(search(succeeded=2)).count == 1
        clock.now += 61
        assert curves.look(search(succeeded=2)).count == 2
        # Once it has everything, it is not read anew.
        clock.now += 61
        reads = len(results.reads)
        curves.look(search(succeeded=2))
        assert results.reads[reads:] == [(5000, PIECE)]

    def test_of_many_searches_those_looked_at_last_are_kept(self) -> None:
        results = Results()
        results.add(0.5, at=7)
        curves = Curves(results.read, Clock())
        for number in range(CURVES_MAX + 1):
            curves.look(search(f"s{number}"))
        curves.look(search(f"s{CURVES_MAX}"))
        assert results.reads[-1] == (7, PIECE)
        curves.look(search("s0"))
        assert results.reads[-1] == (0, PIECE)

    @pytest.mark.parametrize("points", [1, 2, 59, 60, 61, 1000])
    def test_a_small_one_has_its_ends(self, points: int) -> None:
        results = Results()
        results.add(*[0.5] * points)
        look = Curves(results.read, Clock()).look(search())
        thinned = list(look.thinned(60))
        assert (thinned[0].number, thinned[-1].number) == (1, points)
        assert len(thinned) <= 121


class TestForecast:
    def test_the_shortest_window_that_says_enough_is_taken(self) -> None:
        now = WINDOWS_MS[-1] * 10
        ahead = forecast(search(succeeded=500, queued=60, leased=2), [3, 20, 100, 400, 500], now)
        assert (ahead.window_ms, ahead.per_hour) == (WINDOWS_MS[1], 120)
        assert ahead.eta_ms == round(62 / 120 * 60 * MINUTE_MS)

    def test_a_young_search_is_judged_by_its_own_age(self) -> None:
        ahead = forecast(search(succeeded=4, queued=8, leased=1, created=1000), [4, 4, 4, 4, 4], 61_000)
        assert (ahead.window_ms, ahead.per_hour) == (60_000, 240)

    @pytest.mark.parametrize(
        ("view", "ended", "why"),
        [
            (search(succeeded=3), [3] * 5, "every task has ended"),
            (search(), [0] * 5, "no tasks"),
            (replace(search(queued=3), status="paused"), [9] * 5, "paused"),
            (search(queued=3), [0, 9, 9, 9, 9], "none of its tasks runs"),
            (search(queued=3, leased=1), [0] * 5, "too few"),
            (search(queued=3, leased=1), [2] * 5, "too few"),
        ],
    )
    def test_where_the_end_cannot_be_known_it_says_why(self, view: SearchView, ended: list[int], why: str) -> None:
        ahead = forecast(view, ended, WINDOWS_MS[-1])
        assert ahead.eta_ms is None
        assert why in ahead.why


class TestSharedAnswers:
    def test_many_viewers_ask_once(self) -> None:
        clock, asked = Clock(), []
        answers = SharedAnswers(clock)
        for _ in range(10):
            assert answers.get("q", lambda: asked.append(1) or len(asked)) == 1
        clock.now += 1.01
        assert answers.get("q", lambda: asked.append(1) or len(asked)) == 2

    def test_what_takes_long_is_asked_for_rarely(self) -> None:
        clock = Clock()
        answers = SharedAnswers(clock)

        def slow() -> float:
            clock.now += 0.5
            return clock.now

        first = answers.get("q", slow)
        clock.now += 9.9
        assert answers.get("q", slow) == first
        clock.now += 0.2
        assert answers.get("q", slow) != first

    def test_an_error_is_not_kept(self) -> None:
        answers = SharedAnswers(Clock())
        with pytest.raises(ZeroDivisionError):
            answers.get("q", lambda: 1 // 0)
        assert answers.get("q", lambda: 7) == 7

    def test_after_an_action_everybody_looks_anew(self) -> None:
        answers = SharedAnswers(Clock())
        answers.get("q", lambda: 1)
        answers.forget()
        assert answers.get("q", lambda: 2) == 2

    def test_two_at_once_wait_for_one_answer(self) -> None:
        answers, begun, go = SharedAnswers(), threading.Event(), threading.Event()
        asked = []

        def make() -> int:
            asked.append(1)
            begun.set()
            go.wait(20)
            return 5

        found: list[int] = []
        threads = [threading.Thread(target=lambda: found.append(answers.get("q", make))) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert begun.wait(20)
        go.set()
        for thread in threads:
            thread.join(20)
        assert (found, len(asked)) == ([5, 5, 5], 1)

    def test_whoever_has_an_answer_does_not_wait_for_the_next_but_not_for_ever(self) -> None:
        clock, begun, go = Clock(), threading.Event(), threading.Event()
        answers = SharedAnswers(clock)
        answers.get("q", lambda: "old")
        clock.now += 1.5

        def make() -> str:
            begun.set()
            go.wait(20)
            return "new"

        maker = threading.Thread(target=answers.get, args=("q", make))
        maker.start()
        assert begun.wait(20)
        assert answers.get("q", make) == "old"
        clock.now += 5
        late: list[str] = []
        waiter = threading.Thread(target=lambda: late.append(answers.get("q", make)))
        waiter.start()
        go.set()
        maker.join(20)
        waiter.join(20)
        assert late == ["new"]

    def test_questions_are_bounded(self) -> None:
        answers = SharedAnswers(Clock())
        for number in range(2 * ENTRIES_MAX):
            answers.get(number, lambda: 1)
        assert len(answers._entries) == ENTRIES_MAX
