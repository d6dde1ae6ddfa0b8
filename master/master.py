"""A master process's parts, put together, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2

from tenure import __version__
from tenure.common.addresses import Address
from tenure.common.cancelling import cancel_all
from tenure.common.errors import TenureError, Unavailable
from tenure.master.loops.follower import Follower
from tenure.master.loops.matchmaker import Matchmaker
from tenure.master.loops.pusher import Pusher
from tenure.master.loops.rollback import RollbackAlarm
from tenure.master.loops.sweeper import Sweeper
from tenure.master.loops.ticker import Ticker
from tenure.master.metrics import MasterMetrics
from tenure.master.rpc.census import LeaseCensus
from tenure.master.rpc.client_service import ClientService
from tenure.master.rpc.interceptor import CallInterceptor
from tenure.master.rpc.polls import LongPolls
from tenure.master.rpc.session import Session
from tenure.master.rpc.sessions import SessionTable
from tenure.master.rpc.tails import Tails
from tenure.master.rpc.uncordons import Uncordons
from tenure.master.rpc.worker_service import WorkerService
from tenure.master.rpc.workers import Registration
from tenure.master.settings import MasterSettings
from tenure.master.store import Store
from tenure.master.store.records import RetryPolicy, TaskEvent
from tenure.proto import tenure_pb2_grpc, worker_pb2, worker_pb2_grpc
from tenure.proto.serving import SERVER_OPTIONS, add_health_and_reflection, bind

log = structlog.get_logger()

SERVICES = ("morphml.distributed.MasterService", "tenure.v1.TenureService")
# The whole registry is read: not for every event.
CLASSES_SECONDS_MIN, CLASSES_SECONDS_MAX = 0.05, 1.0
DISCARD_SECONDS = 5.0
DISCARD_COUNT = 100
# The store counts as away when no tick has succeeded for this many ticks.
MISSED_TICKS_MAX = 4
STOP_GRACE_SECONDS = 2.0
# Far above what any one call to a store takes, answered or given up.
TICKER_SILENT_SECONDS_MAX = 120.0
# That the store was rolled back is believed on a worker's word once in so many leases' time.
SUSPICION_TTLS = 3


class Master:
    """One master. :meth:`start`, then :meth:`stop`; in between everything runs by itself.

    Args:
        settings: Checked settings.
        store: An open store; closed by :meth:`stop`.
        metrics: What is exported.

    Attributes:
        master_id: Host and a random part; new for each start.
        stopping: Whether this master is going away on purpose: its streams' leases are not cut then.
        died: Set when a part ended that must not end: the process should end too.
    """

    def __init__(self, settings: MasterSettings, store: Store, metrics: MasterMetrics) -> None:
        self.settings = settings
        self.store = store
        self.metrics = metrics
        self.master_id = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self.stopping = False
        self.died = asyncio.Event()
        self._submitted = asyncio.Event()
        self.retry = RetryPolicy(round(settings.retry_base_seconds * 1000), round(settings.retry_max_seconds * 1000))
        self.sessions = SessionTable(metrics)
        self.tails = Tails(self.master_id, self.sessions, store.relay)
        self.census = LeaseCensus(store)
        self.matchmaker = Matchmaker(store, metrics)
        self.polls = LongPolls(store, self.matchmaker, self.spawn)
        self.uncordons = Uncordons()
        self.pusher = Pusher(self)
        self.rollback = RollbackAlarm(
            metrics,
            settings.heartbeat_seconds,
            SUSPICION_TTLS * settings.lease_ttl_seconds,
            self.matchmaker.hold,
            self._ask_what_was_lost,
        )
        self.ticker = Ticker(store, settings, metrics, self.rollback.noticed)
        self.sweeper = Sweeper(store, settings, metrics)
        self.follower = Follower(store, self._note_event, self.matchmaker.wake_all, self.rollback.noticed)
        self.clients = ClientService(self)
        self._tasks: set[asyncio.Task[Any]] = set()
        compression = grpc.Compression.Gzip if settings.compression == "gzip" else None
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(metrics)], options=SERVER_OPTIONS, compression=compression
        )
        self._health = add_health_and_reflection(self._server, SERVICES)
        worker_pb2_grpc.add_MasterServiceServicer_to_server(WorkerService(self), self._server)
        tenure_pb2_grpc.add_TenureServiceServicer_to_server(self.clients, self._server)

    async def start(self) -> Address:
        """Serve; returns the address with the port that was chosen for port 0.

        Raises:
            AddressInUse: Somebody listens there.
        """
        address = bind(self._server, self.settings.listen_address)
        # Before the first claim the classes must be known, and the clock must have ticked.
        self.matchmaker.note_classes(await self.store.searches.requirement_classes())
        for loop in (
            self.ticker.run(),
            self.follower.run(),
            self.matchmaker.run(),
            self.sweeper.run(),
            self._refresh_classes(),
            self._discard_checkpoints(),
            self._report_health(),
            self.store.events.follow_workers(self._note_worker_event),
            self.tails.run(),
        ):
            self._run_loop(loop)
        await self._server.start()
        return address

    async def stop(self) -> None:
        """Close the streams (their workers go to another master, or wait), then everything else. Cuts no lease."""
        self.stopping = True
        await self._health.enter_graceful_shutdown()
        for session in self.sessions.all():
            session.end(Unavailable("this master is stopping", expected="connect to another, or again"))
        self.polls.end_all()
        self.follower.end_all()
        self.tails.stopping.set()
        await self._server.stop(STOP_GRACE_SECONDS)
        await self.pusher.close()
        await cancel_all(self._tasks)
        await self.store.close()

    def new_session(self, registration: Registration, mode: str, held: Sequence[worker_pb2.Renewal]) -> Session:
        """A session for a worker that said hello; it is in the table already."""
        session = Session(
            registration,
            mode,
            self.store,
            self.settings,
            self.metrics,
            self.matchmaker,
            self.retry,
            self.sessions.holders,
            self.census,
            self.rollback,
            self.tails,
        )
        self.sessions.add(session, held)
        return session

    def welcome(self) -> worker_pb2.Welcome:
        """What every session starts with."""
        return worker_pb2.Welcome(
            master_id=self.master_id,
            lease_ttl_ms=self.settings.lease_ttl_ms,
            heartbeat_interval_ms=self.settings.heartbeat_ms,
            grace_ms=self.settings.grace_ms,
            version=__version__,
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the call that caused it; its error is logged."""

        async def guarded() -> None:
            try:
                await work
            except TenureError as error:
                log.warning("master.background_failed", error=str(error))

        task = asyncio.create_task(guarded())
        self._keep(task)
        return task

    @property
    def store_answers(self) -> bool:
        """Whether the last ticks succeeded."""
        limit = max(2.0, MISSED_TICKS_MAX * self.settings.tick_seconds)
        return self.ticker.last_tick > 0 and time.monotonic() - self.ticker.last_tick < limit

    def stuck(self) -> str:
        """What does not go on although the event loop turns; empty: nothing.

        A store that is away is not it: calls to it fail within their time, and a restart would not bring it back.
        """
        silent = time.monotonic() - self.ticker.last_turn
        return f"the ticker has done nothing for {silent:.0f} s" if silent > TICKER_SILENT_SECONDS_MAX else ""

    def standing(self) -> str:
        """How it stands, in a line for people."""
        serves = f"{len(self.sessions.all())} sessions with {len(self.sessions.holders)} leased tasks"
        if self.stopping:
            return f"stopping, {serves} left"
        if self.ticker.last_tick == 0:
            return "starting: the store has not answered yet"
        if not self.store_answers:
            return f"the store does not answer, no lease expires meanwhile: {serves}, {self.store.description}"
        return f"serving: {serves}"

    def _note_event(self, event: TaskEvent) -> None:
        self.metrics.transitions.labels(event.transition, event.state).inc()
        self.matchmaker.note_event(event)
        self.sessions.note_event(event)
        self.tails.note_event(event)
        self.pusher.note_event(event)
        if event.transition == "submit":
            self._submitted.set()
        elif event.transition == "search":
            self.clients.note_search_changed(event.search)

    def _note_worker_event(self, event: Mapping[str, str]) -> None:
        """A registration or a change of mode, perhaps at another master."""
        session = self.sessions.get(event["worker"])
        if event["event"] == "mode":
            self.pusher.note_mode(event["worker"])
            self.polls.note_mode(event["worker"], event["mode"])
            if session is not None:
                session.set_mode(event["mode"], asked=True)
            elif event["mode"] == "active":
                self.uncordons.note(event["worker"])
        elif event["event"] == "register" and session is not None:
            # The event may be older than the session: the registry decides.
            self.spawn(session.check_registration())

    def _ask_what_was_lost(self) -> None:
        """The store came back older than it was: workers and watchers are to say anew what they have."""
        self.follower.start_over()
        for session in self.sessions.all():
            session.ask_again(Unavailable("the store came back older than it was", expected="say hello again"))

    async def _refresh_classes(self) -> None:
        """A submit, here or at another master, may have brought requirements that nobody had before."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._submitted.wait(), CLASSES_SECONDS_MAX)
            self._submitted.clear()
            try:
                self.matchmaker.note_classes(await self.store.searches.requirement_classes())
            except TenureError as error:
                log.debug("master.classes_interrupted", error=str(error))
            await asyncio.sleep(CLASSES_SECONDS_MIN)

    async def _discard_checkpoints(self) -> None:
        """Have some connected worker delete the checkpoints of tasks that were cancelled or forgotten."""
        while True:
            await asyncio.sleep(DISCARD_SECONDS)
            sessions = self.sessions.all()
            if not sessions:
                continue
            try:
                for shard in range(self.store.keys.shards):
                    urls = await self.store.tasks.take_discarded(shard, DISCARD_COUNT)
                    if urls:
                        sessions[shard % len(sessions)].discard(urls)
            except TenureError as error:
                log.debug("master.discard_interrupted", error=str(error))

    async def _report_health(self) -> None:
        serving = None
        while True:
            now = self.store_answers
            if now != serving:
                serving = now
                status = health_pb2.HealthCheckResponse.SERVING if now else health_pb2.HealthCheckResponse.NOT_SERVING
                for service in ("", *SERVICES):
                    await self._health.set(service, status)
                self.metrics.store_up.set(now)
                log.info("master.health", serving=now, store=self.store.description)
            await asyncio.sleep(0.2)

    def _run_loop(self, loop: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(loop)
        task.add_done_callback(self._loop_ended)
        self._keep(task)

    def _loop_ended(self, task: asyncio.Task[Any]) -> None:
        if self.stopping or task.cancelled():
            return
        # A loop that ends is a bug; a master without it would look alive and do harm by doing nothing.
        error = task.exception()
        log.critical("master.loop_died", loop=str(task.get_coro()), error=repr(error), exc_info=error)
        self.died.set()

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
