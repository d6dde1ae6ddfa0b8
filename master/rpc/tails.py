"""Tails of what evaluations print: from the worker that runs them, over its master, to the master that a client asked.

A client may ask any master. That one keeps a :class:`Tail` for each run that is followed at it, however many follow it,
and asks for pieces over the store's relay, again and again as long as somebody reads. The master at which the worker
has its session hears that, passes the question on, and sends the pieces back. Nothing of it is kept in the store, all
of it may get lost, and every buffer has a bound: the places that pieces name in the output tell what is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from google.protobuf.message import DecodeError

from tenure.common.errors import Overloaded, TenureError
from tenure.common.output_ring import OutputRing
from tenure.master.rpc.sessions import SessionTable
from tenure.master.store.records import TaskEvent
from tenure.master.store.relay import Relay
from tenure.proto import worker_pb2

log = structlog.get_logger()

FOLLOWERS_MAX = 200
RING_BYTES_MAX = 256 * 1024
# How long an unrepeated question counts, and how often it is repeated.
KEEP_SECONDS = 10.0
REPEAT_SECONDS = 2.0
PIECE_BYTES_MAX = 64 * 1024
# Pieces on their way to other masters; more are left out.
OUTBOX_MAX = 256
QUESTIONS = "tail-questions"

RunKey = tuple[str, int]
"""A run: (task id, lease epoch)."""


class Tail:
    """A run's output at this master, for all who follow it here.

    Attributes:
        ring: The last of it.
        caught_up: Whether the worker had nothing more when it last sent something.
        last: Whether nothing follows.
        trouble: Why there is nothing.
    """

    def __init__(self, key: RunKey, worker_id: str) -> None:
        self.key = key
        self.worker_id = worker_id
        self.ring = OutputRing(RING_BYTES_MAX)
        self.caught_up = False
        self.last = False
        self.trouble = ""
        self.readers: set[asyncio.Event] = set()

    def take(self, piece: worker_pb2.TailPiece) -> None:
        """Something came."""
        self.ring.write_at(piece.place, piece.data)
        self.caught_up = piece.caught_up or piece.last
        self.last = self.last or piece.last
        self.trouble = piece.trouble
        for reader in self.readers:
            reader.set()


@dataclass
class _Asked:
    """What other masters, and this one, want of a run that is here.

    Attributes:
        end: The place behind the last piece that came from its worker.
        until: How long each master's question counts, by master id.
        places: How far each had come when it asked last.
    """

    end: int = 0
    until: dict[str, float] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def note(self, question: worker_pb2.TailRequest) -> bool:
        """Take a question; whether its master needs what was sent before: it is new, or has missed a piece."""
        now = time.monotonic()
        master_id = question.reply_to
        known = self.until.get(master_id, 0.0) >= now
        # What was on its way to it when it asked last has come by now.
        missed = question.place < self.end and self.places.get(master_id) == question.place
        self.until[master_id] = now + question.keep_ms / 1000
        self.places[master_id] = question.place
        return not known or missed


class Tails:
    """All tails of a master, those that are followed here and those of workers whose sessions are here.

    Args:
        master_id: Names this master to others.
        sessions: Of the workers that are connected here.
        relay: The way to the other masters.

    Attributes:
        stopping: Set when this master goes away: calls end, and their clients go on elsewhere.
    """

    def __init__(self, master_id: str, sessions: SessionTable, relay: Relay) -> None:
        self.stopping = asyncio.Event()
        self._master_id = master_id
        self._sessions = sessions
        self._relay = relay
        self._tails: dict[RunKey, Tail] = {}
        self._followers: dict[str, set[asyncio.Event]] = {}
        self._count = 0
        # By (worker, run).
        self._asked: dict[tuple[str, RunKey], _Asked] = {}
        self._outbox: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(OUTBOX_MAX)
        self._join = asyncio.Event()

    # ---- followers ------------------------------------------------------------------------------------------------

    @contextmanager
    def following(self, task_id: str) -> Iterator[asyncio.Event]:
        """An event that is set with each transition of the task, and may be set for less.

        Raises:
            Overloaded: Too many follow at this master.
        """
        if self._count >= FOLLOWERS_MAX:
            raise Overloaded(
                f"{FOLLOWERS_MAX} tails are read at this master already", expected="ask another master, or later"
            )
        self._count += 1
        event = asyncio.Event()
        self._followers.setdefault(task_id, set()).add(event)
        try:
            yield event
        finally:
            self._count -= 1
            self._followers[task_id].discard(event)
            if not self._followers[task_id]:
                del self._followers[task_id]

    @contextmanager
    def reading(self, key: RunKey, worker_id: str, reader: asyncio.Event) -> Iterator[Tail]:
        """The run's tail; ``reader`` is set whenever something came."""
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = Tail(key, worker_id)
            self._join.set()
        tail.readers.add(reader)
        try:
            yield tail
        finally:
            tail.readers.discard(reader)
            if not tail.readers and self._tails.get(key) is tail:
                del self._tails[key]

    def note_event(self, event: TaskEvent) -> None:
        """A task's transition, at whichever master."""
        for follower in self._followers.get(event.task_id, ()):
            follower.set()

    async def run(self) -> None:
        """Listen to other masters, ask for what is read here, send what they asked for: until cancelled."""
        parts = (
            self._relay.listen({QUESTIONS: self._take_question, _inbox(self._master_id): self._take_relayed}),
            self._keep_asking(),
            self._send_pieces(),
        )
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)

    async def _keep_asking(self) -> None:
        while True:
            now = time.monotonic()
            for asked_key, asked in list(self._asked.items()):
                if all(until < now for until in asked.until.values()):
                    del self._asked[asked_key]
            self._join.clear()
            for tail in list(self._tails.values()):
                if not tail.last:
                    await self._ask(tail)
            try:
                async with asyncio.timeout(REPEAT_SECONDS):
                    await self._join.wait()
            except TimeoutError:
                pass

    async def _ask(self, tail: Tail) -> None:
        question = worker_pb2.TailRequest(
            task_id=tail.key[0],
            epoch=tail.key[1],
            keep_ms=round(KEEP_SECONDS * 1000),
            place=tail.ring.end,
            worker_id=tail.worker_id,
            reply_to=self._master_id,
        )
        if self._pass_on(question):
            return
        try:
            await self._relay.publish(QUESTIONS, question.SerializeToString())
        except TenureError as error:
            log.debug("tail.question_lost", task=tail.key[0], error=str(error))

    # ---- workers that are here ------------------------------------------------------------------------------------

    def take_piece(self, worker_id: str, piece: worker_pb2.TailPiece) -> None:
        """A worker whose session is here sends something: to everybody who asked for it."""
        key = (piece.task_id, piece.epoch)
        asked = self._asked.get((worker_id, key))
        if len(piece.data) > PIECE_BYTES_MAX or asked is None:
            return
        asked.end = max(asked.end, piece.place + len(piece.data))
        now = time.monotonic()
        for master_id, until in asked.until.items():
            if until < now:
                continue
            if master_id == self._master_id:
                self._take(piece)
            elif not self._outbox.full():
                self._outbox.put_nowait((_inbox(master_id), piece.SerializeToString()))
        if piece.last:
            del self._asked[worker_id, key]

    def forget_worker(self, worker_id: str) -> None:
        """Its session here is over: its next one, here or elsewhere, is asked anew."""
        for asked_key in [each for each in self._asked if each[0] == worker_id]:
            del self._asked[asked_key]

    def _pass_on(self, question: worker_pb2.TailRequest) -> bool:
        """Ask the worker if it is here; False if it isn't."""
        session = self._sessions.get(question.worker_id)
        if session is None:
            return False
        if session.can_tail:
            key = (question.task_id, question.epoch)
            asked = self._asked.setdefault((question.worker_id, key), _Asked())
            session.tail(
                worker_pb2.TailRequest(
                    task_id=question.task_id,
                    epoch=question.epoch,
                    keep_ms=question.keep_ms,
                    place=question.place,
                    resume=asked.note(question),
                )
            )
        return True

    # ---- other masters --------------------------------------------------------------------------------------------

    def _take_question(self, data: bytes) -> None:
        try:
            question = worker_pb2.TailRequest.FromString(data)
        except DecodeError:
            return  # of a version that says it otherwise
        if question.reply_to != self._master_id:
            self._pass_on(question)

    def _take_relayed(self, data: bytes) -> None:
        try:
            self._take(worker_pb2.TailPiece.FromString(data))
        except DecodeError:
            return

    def _take(self, piece: worker_pb2.TailPiece) -> None:
        tail = self._tails.get((piece.task_id, piece.epoch))
        if tail is not None:
            tail.take(piece)

    async def _send_pieces(self) -> None:
        while True:
            channel, data = await self._outbox.get()
            try:
                await self._relay.publish(channel, data)
            except TenureError as error:
                log.debug("tail.piece_lost", error=str(error))


def _inbox(master_id: str) -> str:
    return f"tail-pieces:{master_id}"
