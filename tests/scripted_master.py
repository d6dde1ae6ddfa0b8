"""A master for tests of workers: a real grpc.aio server whose every answer the test decides.

It keeps what it hears (``heard``), gives out the tasks it was given (``offer``) to sessions that want some, and says
yes to everything unless told otherwise. It can vanish (``vanish``) and come back on the same port (``start``), fall
silent (``mute``), and it can be as plain as a MorphML master (``legacy=True``: no extension field is ever set, no
Session exists).
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tenure.common.limits import MESSAGE_BYTES_MAX
from tenure.proto import worker_pb2 as pb
from tenure.proto import worker_pb2_grpc

OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)


def make_task(task_id: str, *, epoch: int = 1, token: str | None = None, **extra: Any) -> pb.EvaluateRequest:
    """A task for ``evaluators:evaluate``; ``extra`` becomes ``config.extra``."""
    return pb.EvaluateRequest(
        task_id=task_id,
        search="tests",
        architecture='{"nodes": [{"id": "a", "operation": "input"}]}',
        config=pb.EvaluationConfig(extra={name: str(value) for name, value in extra.items()}),
        lease_token=secrets.token_hex(8) if token is None else token,
        epoch=epoch,
        attempt=1,
        lease_ttl_ms=30_000,
    )


@dataclass
class Heard:
    """Everything that workers said, in order."""

    hellos: list[pb.Hello] = field(default_factory=list)
    wants: list[int] = field(default_factory=list)
    outcomes: list[pb.Outcome] = field(default_factory=list)
    checkpoints: list[pb.RegisterCheckpoint] = field(default_factory=list)
    heartbeats: list[pb.HeartbeatRequest] = field(default_factory=list)
    renewals: list[pb.Renewal] = field(default_factory=list)
    goodbyes: list[pb.Goodbye] = field(default_factory=list)
    registrations: list[pb.RegisterRequest] = field(default_factory=list)
    results: list[pb.ResultRequest] = field(default_factory=list)
    order: list[str] = field(default_factory=list)


class ScriptedMaster:
    """See the module. Attributes may be changed at any time; they decide what is answered from then on.

    Attributes:
        heard: What was said.
        verdict: Of outcomes: a function of the outcome; None withholds the answer.
        checkpoint_verdict: Of checkpoints, the same way.
        delete_urls: Sent with the next checkpoint verdict, once.
        registers: Whether RegisterWorker succeeds.
        acknowledges: Whether Heartbeat is acknowledged.
        should_continue: The heartbeat's.
        takes_results: Whether SubmitResult is acknowledged; an integer n fails the next n calls with UNAVAILABLE.
        version: Named in registrations; a MorphML master names none.
        muted: It hears, and answers nothing.
        sessions: The sessions that are open now.
    """

    def __init__(
        self,
        *,
        ttl_ms: int = 30_000,
        heartbeat_ms: int = 10_000,
        legacy: bool = False,
        verdict: Callable[[pb.Outcome], int | None] = lambda outcome: pb.VERDICT_OK,
    ) -> None:
        self.heard = Heard()
        self.verdict = verdict
        self.checkpoint_verdict: Callable[[pb.RegisterCheckpoint], int | None] = lambda checkpoint: pb.VERDICT_OK
        self.delete_urls: list[str] = []
        self.registers = True
        self.acknowledges = True
        self.should_continue = True
        self.takes_results: bool = True
        self.unavailable_results = 0
        self.sessions: list[_Session] = []
        self.refuse_sessions: grpc.StatusCode | None = None
        self.muted = False
        self.version = ""
        self.heartbeat_revocations: list[pb.Revocation] = []
        self.port = 0
        self._ttl_ms = ttl_ms
        self._heartbeat_ms = heartbeat_ms
        self._legacy = legacy
        self._offers: deque[pb.EvaluateRequest] = deque()
        self._changed = asyncio.Condition()
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> ScriptedMaster:
        """Listen: on a free port the first time, on the same one from then on."""
        server = grpc.aio.server(options=OPTIONS)
        servicer = _LegacyServicer(self) if self._legacy else _Servicer(self)
        worker_pb2_grpc.add_MasterServiceServicer_to_server(servicer, server)
        if not self._legacy:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server
        return self

    async def vanish(self) -> None:
        """Break every connection and stop listening, without a word."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)
        self.sessions.clear()

    async def lose_store(self) -> None:
        """What a Tenure master does whose store is away: it answers nothing and says NOT_SERVING."""
        self.muted = True
        await self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)

    async def offer(self, *requests: pb.EvaluateRequest) -> None:
        """Give these tasks to whoever wants some."""
        self._offers.extend(requests)
        await self.serve_wants()

    async def revoke(self, request: pb.EvaluateRequest, reason: str) -> None:
        """Tell every session that the lease is lost."""
        revocation = pb.Revocation(task_id=request.task_id, lease_token=request.lease_token, reason=reason)
        await self.say(pb.SessionDown(revocations=pb.Revocations(revocations=[revocation])))

    async def say(self, down: pb.SessionDown) -> None:
        """Send a message down every session."""
        for session in self.sessions:
            await session.send(down)

    async def until(self, condition: Callable[[Heard], Any], seconds: float = 60.0) -> Any:
        """Wait until ``condition(heard)`` is true; returns its value."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                while not (value := condition(self.heard)):
                    await self._changed.wait()
                return value
        except TimeoutError:
            raise AssertionError(f"not heard within {seconds} s; heard: {self.heard.order[-30:]}") from None

    async def outcome_of(self, request: pb.EvaluateRequest, seconds: float = 60.0) -> pb.Outcome:
        """Wait for the outcome of that lease."""
        found: pb.Outcome = await self.until(
            lambda heard: next((one for one in heard.outcomes if one.lease_token == request.lease_token), None), seconds
        )
        return found

    async def carry_out(self, request: pb.EvaluateRequest, seconds: float = 60.0) -> pb.Outcome:
        """Offer the task; its outcome. Offered again, under a lease of its own, as often as it comes back unstarted:
        the number wanted and a task cross on the wire when an executor is replaced, and starting one may take long."""
        while True:
            await self.offer(request)
            outcome = await self.outcome_of(request, seconds)
            if outcome.kind != pb.OUTCOME_RELEASE or outcome.error_class != "NotStarted":
                return outcome
            request.lease_token, request.epoch = secrets.token_hex(8), request.epoch + 1

    async def serve_wants(self) -> None:
        """Send offered tasks to sessions that want them."""
        for session in self.sessions:
            while self._offers and session.wanted > 0 and not self.muted:
                session.wanted -= 1
                await session.send(pb.SessionDown(tasks=pb.Tasks(tasks=[self._offers.popleft()])))

    async def note(self, what: str) -> None:
        """Something was heard."""
        self.heard.order.append(what)
        async with self._changed:
            self._changed.notify_all()


class _Session:
    def __init__(self, context: Any) -> None:
        self.context = context
        self.wanted = 0
        self._writing = asyncio.Lock()

    async def send(self, down: pb.SessionDown) -> None:
        async with self._writing:
            await self.context.write(down)


class _LegacyServicer(worker_pb2_grpc.MasterServiceServicer):
    """What a MorphML master serves, in its own fields only."""

    def __init__(self, master: ScriptedMaster) -> None:
        self._master = master

    async def RegisterWorker(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:
        self._master.heard.registrations.append(request)
        await self._master.note("register")
        return pb.RegisterResponse(
            success=self._master.registers,
            message="as the script says",
            master_id="scripted",
            version=self._master.version,
            heartbeat_interval_ms=0 if self._master._legacy else self._master._heartbeat_ms,
        )

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatResponse:
        master = self._master
        master.heard.heartbeats.append(request)
        await master.note("heartbeat")
        revocations, master.heartbeat_revocations = master.heartbeat_revocations, []
        return pb.HeartbeatResponse(
            acknowledged=master.acknowledges, should_continue=master.should_continue, revocations=revocations
        )

    async def SubmitResult(self, request: pb.ResultRequest, context: Any) -> pb.ResultResponse:
        master = self._master
        if master.unavailable_results > 0:
            master.unavailable_results -= 1
            await master.note("unavailable")
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        master.heard.results.append(request)
        await master.note("result")
        return pb.ResultResponse(acknowledged=master.takes_results, message="as the script says")


class _Servicer(_LegacyServicer):
    """What a Tenure master serves beside."""

    async def Session(self, requests: Any, context: Any) -> None:
        master = self._master
        if master.refuse_sessions is not None:
            await context.abort(master.refuse_sessions, "as the script says")
        session = _Session(context)
        try:
            async for up in requests:
                await self._hear(session, up)
        finally:
            if session in master.sessions:
                master.sessions.remove(session)

    async def _hear(self, session: _Session, up: pb.SessionUp) -> None:
        master, heard = self._master, self._master.heard
        kind = up.WhichOneof("message")
        if not master.muted:
            await self._answer(session, kind, up)
        match kind:
            case "hello":
                heard.hellos.append(up.hello)
            case "want":
                heard.wants.append(up.want.slots)
            case "outcomes":
                heard.outcomes.extend(up.outcomes.outcomes)
                if up.outcomes.HasField("want_slots"):
                    heard.wants.append(up.outcomes.want_slots)
            case "checkpoint":
                heard.checkpoints.append(up.checkpoint)
            case "heartbeat":
                heard.heartbeats.append(up.heartbeat)
                heard.renewals.extend(up.heartbeat.renewals)
            case "renewals":
                heard.renewals.extend(up.renewals.renewals)
            case "goodbye":
                heard.goodbyes.append(up.goodbye)
        await master.note(kind)
        await master.serve_wants()

    async def _answer(self, session: _Session, kind: str, up: pb.SessionUp) -> None:
        master = self._master
        match kind:
            case "hello":
                welcome = pb.Welcome(
                    master_id="scripted",
                    lease_ttl_ms=master._ttl_ms,
                    heartbeat_interval_ms=master._heartbeat_ms,
                    grace_ms=2000,
                )
                await session.send(pb.SessionDown(welcome=welcome))
                await session.send(pb.SessionDown(renewals_done=pb.RenewalsDone(renewed=len(up.hello.held))))
                master.sessions.append(session)
            case "want":
                session.wanted = up.want.slots
            case "outcomes":
                if up.outcomes.HasField("want_slots"):
                    session.wanted = up.outcomes.want_slots
                verdicts = [
                    pb.OutcomeVerdict(task_id=one.task_id, lease_token=one.lease_token, verdict=verdict)
                    for one in up.outcomes.outcomes
                    if (verdict := master.verdict(one)) is not None
                ]
                await session.send(pb.SessionDown(outcome_verdicts=pb.OutcomeVerdicts(verdicts=verdicts)))
            case "checkpoint":
                verdict = master.checkpoint_verdict(up.checkpoint)
                if verdict is not None:
                    urls, master.delete_urls = master.delete_urls, []
                    answer = pb.CheckpointVerdict(
                        task_id=up.checkpoint.task_id,
                        lease_token=up.checkpoint.lease_token,
                        url=up.checkpoint.checkpoint.url,
                        verdict=verdict,
                        delete_urls=urls,
                    )
                    await session.send(pb.SessionDown(checkpoint_verdict=answer))
            case "heartbeat" | "renewals":
                await session.send(pb.SessionDown(renewals_done=pb.RenewalsDone()))


async def _serve_alone() -> None:
    master = await ScriptedMaster(ttl_ms=3_000, heartbeat_ms=300).start()
    sys.stdout.write(f"{master.port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    # In a process of its own, for tests that stop or kill it.
    asyncio.run(_serve_alone())
