"""The session, from the link's side: which master, when again, and what its end means.

The stream itself is in ``session_stream.py``; docs/protocol-session.md says what is said on it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import grpc
import grpc.aio
import structlog

from tenure.common.addresses import Address, expand
from tenure.proto import worker_pb2
from tenure.worker.channels import MasterHealth, ask_health, describe, open_channel
from tenure.worker.holdings import Holdings
from tenure.worker.link import Contact, Refused, Superseded, Unreachable, connect_for_ever
from tenure.worker.session_stream import DEFAULT_TTL_SECONDS, SessionStream
from tenure.worker.settings import WorkerSettings

log = structlog.get_logger()

# Before any welcome these say that this worker is set up wrongly; later they may be a master's passing trouble.
_REFUSALS = (
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)


# Before dialling one of several masters: how long each may take to say that it serves.
_HEALTH_SECONDS = 1.0


class SessionLink:
    """The pulling worker's link. See :class:`tenure.worker.link.Link`.

    Args:
        settings: The worker's.
        holdings: What is told, and told about.
        registration: Makes the hello's registration.
        metrics: Looks the machine's figures up; blocks a little.
        on_drain: Called with each Drain.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        holdings: Holdings,
        registration: worker_pb2.RegisterRequest,
        metrics: Callable[[], worker_pb2.WorkerMetrics],
        on_drain: Callable[[worker_pb2.Drain], None],
    ) -> None:
        self.contact = Contact()
        self._settings = settings
        self._holdings = holdings
        self._registration = registration
        self._metrics = metrics
        self._on_drain = on_drain
        self._ttl_seconds = DEFAULT_TTL_SECONDS
        self._welcomed = False
        self._leaving = False
        self._session: SessionStream | None = None
        # Looked up anew for each round over all of them.
        self._addresses: list[Address] = []
        self._tries_left = 0

    def wake(self) -> None:
        """See Link."""
        if self._session is not None:
            self._session.wake()

    async def run(self) -> None:
        """See Link."""
        await connect_for_ever(self._run_session, lambda: self._ttl_seconds * 0.3, self._settings.master)

    async def leave(self, reason: str) -> None:
        """See Link."""
        self._leaving = True
        if self._session is not None:
            await self._session.leave(reason)

    async def _run_session(self) -> None:
        """One session from dial to end; returns if it was a good one."""
        if self._leaving:
            await asyncio.Event().wait()
        address = await self._next_address()
        session = SessionStream(self._holdings, self._metrics, self._on_drain, self.contact, self._find_better_master)
        try:
            async with self._dial(address, keepalive=True) as channel:
                self._session = session
                patience = min(self._settings.rpc_timeout_seconds, self._ttl_seconds / 3)
                await self._greet(session, channel, patience)
                self._welcomed = True
                self._ttl_seconds = session.ttl_seconds
                self.contact.connected()
                log.info("session.up", master=str(address), master_id=session.master_id)
                await session.serve()
        except grpc.aio.AioRpcError as error:
            self._rotate()
            if error.code() is grpc.StatusCode.ABORTED:
                raise Superseded(describe(error)) from error
            if error.code() in _REFUSALS and not self._welcomed:
                raise Refused(f"the master at {address} refuses this worker: {describe(error)}") from error
            self._lost(address, describe(error))
        except Unreachable as error:
            self._rotate()
            self._lost(address, str(error))
        finally:
            session.close()
            self._session = None
            self.contact.lost()

    def _dial(self, address: Address, *, keepalive: bool) -> grpc.aio.Channel:
        observe = self._holdings.call_ended
        return open_channel(address, self._settings.compression, keepalive=keepalive, observe=observe)

    async def _greet(self, session: SessionStream, channel: grpc.aio.Channel, patience: float) -> None:
        started = time.perf_counter()
        code = grpc.StatusCode.CANCELLED
        try:
            await session.open(channel, self._registration, patience)
            code = grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            code = error.code()
            raise
        except Unreachable:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise
        finally:
            self._holdings.call_ended("Session", code.name, time.perf_counter() - started)

    def _lost(self, address: Address, error: str) -> None:
        """Raises Unreachable, for a pause before the next attempt, unless this session was a good one."""
        if self.contact.up:
            log.warning("session.lost", master=str(address), error=error, runs=len(self._holdings.runs))
        if not self.contact.was_good():
            raise Unreachable(error)

    async def _find_better_master(self, timeout_seconds: float) -> bool:
        """Whether another master says that it serves; it is then the next one to be tried."""
        for address in self._addresses[1:]:
            async with self._dial(address, keepalive=False) as channel:
                if await ask_health(channel, timeout_seconds) is MasterHealth.SERVING:
                    others = [other for other in self._addresses[1:] if other != address]
                    self._addresses = [self._addresses[0], address, *others]
                    return True
        return False

    async def _next_address(self) -> Address:
        """Where to dial now. Workers spread over the masters, and each keeps to the one that works."""
        if self._tries_left == 0:
            last = self._addresses[-1:]
            addresses = await asyncio.to_thread(expand, self._settings.masters)
            random.shuffle(addresses)
            # The one that was just left comes last.
            self._addresses = sorted(addresses, key=last.__contains__)
            self._tries_left = len(addresses)
            await self._prefer_a_serving_one()
        self._tries_left -= 1
        return self._addresses[0]

    async def _prefer_a_serving_one(self) -> None:
        """Masters that are stopped, or have no store, are known by their health sooner than by a hello. If none serves
        the order stays: a hello may wait for the store."""
        for address in self._addresses if len(self._addresses) > 1 else ():
            async with self._dial(address, keepalive=False) as channel:
                if await ask_health(channel, _HEALTH_SECONDS) is MasterHealth.SERVING:
                    self._addresses = [address, *(other for other in self._addresses if other != address)]
                    return

    def _rotate(self) -> None:
        self._addresses = [*self._addresses[1:], self._addresses[0]]
