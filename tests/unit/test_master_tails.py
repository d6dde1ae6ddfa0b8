"""A master's part in tails: who is asked for what, who is sent it, and what is ignored."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tenure.common.errors import Overloaded
from tenure.master.rpc import tails as tails_module
from tenure.master.rpc.tails import FOLLOWERS_MAX, PIECE_BYTES_MAX, Tails
from tenure.proto import worker_pb2 as pb


class Sessions:
    """One worker's session, which keeps what it is asked."""

    def __init__(self, *, can_tail: bool = True) -> None:
        self.can_tail = can_tail
        self.asked: list[pb.TailRequest] = []

    def get(self, worker_id: str) -> Any:
        return self if worker_id == "w" else None

    def tail(self, request: pb.TailRequest) -> None:
        self.asked.append(request)


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def tails(sessions: Sessions) -> Tails:
    return Tails("here", sessions, relay=None)  # type: ignore[arg-type]


def question(place: int, reply_to: str = "there", worker_id: str = "w") -> bytes:
    asked = pb.TailRequest(task_id="t", epoch=1, place=place, keep_ms=10_000, worker_id=worker_id, reply_to=reply_to)
    return asked.SerializeToString()


def piece(place: int, data: bytes, **more: Any) -> pb.TailPiece:
    return pb.TailPiece(task_id="t", epoch=1, place=place, data=data, **more)


def sent(tails: Tails) -> list[tuple[str, bytes]]:
    found = []
    while not tails._outbox.empty():
        channel, data = tails._outbox.get_nowait()
        found.append((channel, pb.TailPiece.FromString(data).data))
    return found


def test_who_asks_first_gets_all_and_then_what_is_new(tails: Tails, sessions: Sessions) -> None:
    tails._take_question(question(0))
    tails.take_piece("w", piece(0, b"abc"))
    tails._take_question(question(3))
    tails._take_question(question(0, reply_to="elsewhere"))
    assert [request.resume for request in sessions.asked] == [True, False, True]
    assert not any(request.worker_id or request.reply_to for request in sessions.asked)
    tails.take_piece("w", piece(3, b"d", last=True))
    assert sent(tails) == [
        ("tail-pieces:there", b"abc"),
        ("tail-pieces:there", b"d"),
        ("tail-pieces:elsewhere", b"d"),
    ]
    tails.take_piece("w", piece(4, b"after the end"))
    assert sent(tails) == []


def test_who_is_still_where_he_was_though_more_was_sent_is_sent_it_again(tails: Tails, sessions: Sessions) -> None:
    tails._take_question(question(0))
    tails.take_piece("w", piece(0, b"lost"))
    # It may have been on its way when he asked.
    tails._take_question(question(0))
    tails._take_question(question(0))
    assert [request.resume for request in sessions.asked] == [True, True, True]
    tails._take_question(question(4))
    tails._take_question(question(4))
    assert [request.resume for request in sessions.asked][3:] == [False, False]


def test_a_worker_whose_session_is_over_is_asked_anew(tails: Tails, sessions: Sessions) -> None:
    tails._take_question(question(0))
    tails.forget_worker("w")
    tails.take_piece("w", piece(0, b"of the old session"))
    tails._take_question(question(0))
    assert [request.resume for request in sessions.asked] == [True, True]
    assert sent(tails) == []


def test_what_nobody_asked_for_or_can_be_read_is_ignored(tails: Tails, sessions: Sessions) -> None:
    tails.take_piece("w", piece(0, b"unasked"))
    for data in (b"\xff\xff\xff", b""):
        tails._take_question(data)
        tails._take_relayed(data)
    tails._take_question(question(0, worker_id="of another master"))
    # One's own question comes back, too.
    tails._take_question(question(0, reply_to="here"))
    assert sessions.asked == []
    tails._take_question(question(0))
    tails.take_piece("w", piece(0, b"x" * (PIECE_BYTES_MAX + 1)))
    assert sent(tails) == []


def test_a_worker_that_cannot_tail_is_not_asked() -> None:
    older = Sessions(can_tail=False)
    Tails("here", older, relay=None)._take_question(question(0))  # type: ignore[arg-type]
    assert older.asked == []


def test_a_full_outbox_leaves_out(tails: Tails, monkeypatch: pytest.MonkeyPatch) -> None:
    tails._take_question(question(0))
    for number in range(tails_module.OUTBOX_MAX + 10):
        tails.take_piece("w", piece(number, b"x"))
    assert len(sent(tails)) == tails_module.OUTBOX_MAX


async def test_followers_share_a_tail_and_their_number_is_bounded(tails: Tails) -> None:
    readers = asyncio.Event(), asyncio.Event()
    with tails.reading(("t", 1), "w", readers[0]) as one, tails.reading(("t", 1), "w", readers[1]) as other:
        assert one is other
        tails._take_relayed(piece(0, b"abc").SerializeToString())
        assert all(reader.is_set() for reader in readers)
        assert one.ring.read(0, 10) == (0, b"abc")
    assert tails._tails == {}
    contexts = [tails.following("t") for _ in range(FOLLOWERS_MAX)]
    for context in contexts:
        context.__enter__()
    with pytest.raises(Overloaded), tails.following("another"):
        pass
    for context in contexts:
        context.__exit__(None, None, None)
    with tails.following("t"):
        pass
