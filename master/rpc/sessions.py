"""All sessions of a master: who is connected here, and who has to hear of what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tenure.common.errors import InvalidInput, StaleLease
from tenure.master.metrics import MasterMetrics
from tenure.master.rpc.leases import Holders
from tenure.master.rpc.workers import Registration, read_registration
from tenure.master.store.records import TaskEvent
from tenure.proto import worker_pb2

if TYPE_CHECKING:
    from tenure.master.rpc.session import Session


class SessionTable:
    """This master's open sessions.

    Attributes:
        holders: Task id -> the leases that it is among. The sessions keep it up.
    """

    def __init__(self, metrics: MasterMetrics) -> None:
        self._by_worker: dict[str, Session] = {}
        self.holders: Holders = {}
        self._metrics = metrics

    def add(self, session: Session, held: Sequence[worker_pb2.Renewal]) -> None:
        """The newer session of a worker id ends the older. ``held``: the leases that the newer one's hello names."""
        older = self._by_worker.get(session.worker_id)
        self._by_worker[session.worker_id] = session
        if older is not None and older.instance_id != session.instance_id:
            older.end(superseded(session.worker_id))
        elif older is not None:
            older.replace(held)
        self._metrics.sessions.set(len(self._by_worker))

    def remove(self, session: Session) -> None:
        """The session's stream is gone."""
        if self._by_worker.get(session.worker_id) is session:
            del self._by_worker[session.worker_id]
        self._metrics.sessions.set(len(self._by_worker))

    def get(self, worker_id: str) -> Session | None:
        """A worker's session here, if it has one."""
        return self._by_worker.get(worker_id)

    def note_event(self, event: TaskEvent) -> None:
        """Hand an event to the session whose worker holds its task."""
        leases = self.holders.get(event.task_id)
        if leases is not None:
            leases.note_event(event)

    def all(self) -> list[Session]:
        """Every open session."""
        return list(self._by_worker.values())


def read_hello(message: worker_pb2.SessionUp, peer: str) -> Registration:
    """The registration in a stream's first message; raises InvalidInput when that is none."""
    if message.WhichOneof("message") != "hello":
        raise InvalidInput(
            "must be the first message", field="hello", given=str(message.WhichOneof("message")), expected="send hello"
        )
    registration = read_registration(message.hello.worker, peer, session=True)
    if not registration.instance_id:
        raise InvalidInput("must not be empty", field="hello.worker.instance_id", expected="a random id for each start")
    return registration


def superseded(worker_id: str) -> StaleLease:
    """How the older of two processes with one worker id is ended (ABORTED)."""
    return StaleLease(
        "a newer process has registered this worker id",
        field="worker_id",
        given=worker_id,
        expected="end this one, or give each worker an id of its own",
    )
