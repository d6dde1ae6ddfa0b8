"""A worker's tails: what is due when, and how much at most."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.proto import worker_pb2 as pb
from tenure.worker import tails as tails_module
from tenure.worker.output import LOG_FILE_BYTES_MAX, RECENT_BYTES_MAX, RunLogs
from tenure.worker.tails import END_BYTES_MAX, INTERVAL_SECONDS, PIECE_BYTES_MAX, TAILS_MAX, Tails

HELD = {("t", 1)}


class Clock:
    """Monotonic time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(tails_module, "time", made)
    return made


class Scene:
    """Logs, tails, and a count of wakings."""

    def __init__(self, folder: Path) -> None:
        self.logs = RunLogs(folder)
        self.woken = 0
        self.held = set(HELD)
        self.tails = Tails(self.logs, self.held.__contains__, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def ask(self, place: int = 0, *, resume: bool = True, keep_ms: int = 10_000, task: str = "t") -> None:
        self.tails.ask(pb.TailRequest(task_id=task, epoch=1, place=place, resume=resume, keep_ms=keep_ms))

    def due(self) -> list[pb.TailPiece]:
        return [*self.tails.ends(), *self.tails.pieces()]


@pytest.fixture
def scene(tmp_path: Path, clock: Clock) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    for task in ("t", *(f"t{number}" for number in range(TAILS_MAX))):
        if (output := made.logs.find(task, 1)) is not None:
            output.close()


def test_nobody_is_woken_and_nothing_sent_unless_somebody_asked(scene: Scene) -> None:
    scene.logs.open("t", 1).write(b"hello")
    assert (scene.woken, scene.due()) == (0, [])


def test_what_is_there_comes_at_once_and_the_rest_in_pieces_at_intervals(scene: Scene, clock: Clock) -> None:
    output = scene.logs.open("t", 1)
    output.write(b"hello")
    scene.ask()
    (piece,) = scene.due()
    assert (piece.place, piece.data, piece.caught_up, piece.last) == (0, b"hello", True, False)
    output.write(b" world")
    assert scene.due() == []
    assert scene.tails.look_up_at() == clock.now + INTERVAL_SECONDS
    clock.now += INTERVAL_SECONDS
    (piece,) = scene.due()
    assert (piece.place, piece.data) == (5, b" world")
    assert scene.tails.look_up_at() == float("inf")


def test_a_flood_wakes_seldom_and_is_cut(scene: Scene, clock: Clock) -> None:
    output = scene.logs.open("t", 1)
    scene.ask()
    scene.due()
    before = scene.woken
    for _ in range(1000):
        output.write(b"x" * 65_536)
    assert scene.woken == before
    clock.now += INTERVAL_SECONDS
    (piece,) = scene.due()
    assert len(piece.data) == PIECE_BYTES_MAX
    assert piece.place >= 1000 * 65_536 - RECENT_BYTES_MAX - 65_536
    output.finish()
    assert scene.woken == before + 1
    ends = scene.due()
    assert sum(len(piece.data) for piece in ends) == END_BYTES_MAX
    assert [piece.last for piece in ends] == [False, True]
    assert ends[-1].place + len(ends[-1].data) == 1000 * 65_536
    assert scene.due() == []


def test_a_run_that_has_not_begun_is_waited_for(scene: Scene) -> None:
    scene.ask()
    assert scene.due() == []
    before = scene.woken
    output = scene.logs.open("t", 1)
    assert scene.woken == before + 1
    output.write(b"now")
    assert [piece.data for piece in scene.due()] == [b"now"]


def test_asked_again_it_goes_on_and_by_a_place_it_begins_there(scene: Scene, clock: Clock) -> None:
    output = scene.logs.open("t", 1)
    output.write(b"0123456789")
    scene.ask(4)
    assert [(piece.place, piece.data) for piece in scene.due()] == [(4, b"456789")]
    clock.now += 1
    scene.ask(4, resume=False)
    assert scene.due() == []
    scene.ask(8)
    assert [(piece.place, piece.data) for piece in scene.due()] == [(8, b"89")]
    clock.now += 1
    # Whoever has everything hears that.
    scene.ask(10)
    assert [(piece.place, piece.data, piece.caught_up) for piece in scene.due()] == [(10, b"", True)]


def test_it_ends_when_nobody_asks_any_more(scene: Scene, clock: Clock) -> None:
    output = scene.logs.open("t", 1)
    scene.ask(keep_ms=1000)
    scene.due()
    clock.now += 1.5
    output.write(b"nobody reads this")
    assert scene.due() == []
    before = scene.woken
    output.write(b"or this")
    assert scene.woken == before


def test_of_a_run_that_has_ended_the_file_is_read(scene: Scene) -> None:
    scene.held.clear()
    output = scene.logs.open("t", 1)
    output.write(b"a" * END_BYTES_MAX + b"b" * 10)
    output.close()
    scene.ask()
    pieces = scene.due()
    assert pieces[0].place == 10
    assert b"".join(piece.data for piece in pieces) == b"a" * (END_BYTES_MAX - 10) + b"b" * 10
    assert pieces[-1].last
    scene.ask(task="unknown")
    (piece,) = scene.due()
    assert piece.last
    assert "has no output of this run" in piece.trouble


def test_the_number_of_tails_is_bounded(scene: Scene) -> None:
    for number in range(TAILS_MAX + 1):
        scene.held.add((f"t{number}", 1))
        scene.ask(task=f"t{number}")
    (piece,) = scene.due()
    assert piece.task_id == f"t{TAILS_MAX}"
    assert "followed already" in piece.trouble


def test_the_end_of_the_file_is_not_the_end_of_the_output(scene: Scene, clock: Clock, tmp_path: Path) -> None:
    output = scene.logs.open("t", 1)
    scene.ask()
    scene.due()
    for _ in range(LOG_FILE_BYTES_MAX // 65_536 + 1):
        output.write(b"x" * 65_536)
    assert (tmp_path / "t.1.log").read_bytes().endswith(b"... the rest is not kept\n")
    clock.now += 1
    assert not any(piece.last for piece in scene.due())
