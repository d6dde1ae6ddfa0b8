"""The masters: their real matchmaker, ticker with reaper and brake, census and lease book-keeping, without gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenure.common.spec import Requirements
from tenure.master.core.matching import Capabilities
from tenure.master.loops.matchmaker import Consumer, Matchmaker
from tenure.master.loops.ticker import Ticker
from tenure.master.metrics import MasterMetrics
from tenure.master.rpc.census import LeaseCensus
from tenure.master.rpc.leases import Holders, StreamLeases
from tenure.master.settings import MasterSettings
from tenure.master.store import Store
from tenure.master.store.records import Grant, RetryPolicy, TaskEvent
from tenure.proto import worker_pb2

Tell = Callable[[str, Any], None]


class SimulatedMaster:
    """One master process.

    Attributes:
        up: Whether it runs.
        sessions: Its open streams, by worker id.
    """

    def __init__(self, store: Store, settings: MasterSettings, classes: dict[str, Requirements]) -> None:
        self.store = store
        self.settings = settings
        self.metrics = MasterMetrics()
        self.retry = RetryPolicy(round(settings.retry_base_seconds * 1000), round(settings.retry_max_seconds * 1000))
        self._classes = classes
        self.start()

    def start(self) -> None:
        """A new process knows nothing."""
        self.up = True
        self.sessions: dict[str, Session] = {}
        self.holders: Holders = {}
        self.census = LeaseCensus(self.store)
        self.matchmaker = Matchmaker(self.store, self.metrics)
        self.matchmaker.note_classes(self._classes)
        self.ticker = Ticker(self.store, self.settings, self.metrics)

    def kill(self) -> None:
        """kill -9: the streams break, and nobody cuts anything."""
        self.up = False
        self.sessions = {}

    async def tick(self) -> None:
        """One turn of the ticker: tick, reap, promote."""
        await self.ticker._tick(0)

    @property
    def braked(self) -> bool:
        """Whether reaping is paused."""
        return any(brake.on for brake in self.ticker._brakes)

    def note_event(self, event: TaskEvent) -> None:
        """What the follower does with each event."""
        self.matchmaker.note_event(event)
        leases = self.holders.get(event.task_id)
        if leases is not None:
            leases.note_event(event)

    async def match(self) -> None:
        """Claim for whoever waits, until there is nothing more for anybody."""
        groups = list(self.matchmaker._groups.values())
        while groups:
            groups = [group for group in groups if await self.matchmaker._serve(group)]


class Session:
    """One worker's stream, the master's side of it.

    Args:
        tell: Takes what goes down to the worker: the message's name and its content.
        take: Takes tasks that were claimed for the worker.
    """

    def __init__(
        self,
        master: SimulatedMaster,
        worker_id: str,
        instance: str,
        capabilities: Capabilities,
        tell: Tell,
        take: Callable[[list[Grant]], None],
    ) -> None:
        self.master = master
        self._worker_id = worker_id
        self._tell = tell
        self._take = take
        self.leases = StreamLeases(
            worker_id,
            instance,
            master.store,
            master.settings,
            master.metrics,
            master.retry,
            master.holders,
            master.census,
            self._send,
        )
        self._consumer = Consumer(worker_id, capabilities, self._deliver, instance_id=instance)
        master.sessions[worker_id] = self

    async def greet(self, held: list[worker_pb2.Renewal]) -> None:
        """What a hello sets off: what the store thinks the worker has is settled, what it has is renewed."""
        await self.leases.settle(held)
        await self.leases.renew(held)

    def want(self, slots: int) -> None:
        """The worker has this many free slots."""
        self.master.matchmaker.want(self._consumer, slots)

    def close(self) -> None:
        """The stream is gone, and nothing more is claimed for it."""
        self.master.matchmaker.leave(self._consumer)
        self.leases.close()
        if self.master.sessions.get(self._worker_id) is self:
            del self.master.sessions[self._worker_id]

    def _deliver(self, grants: list[Grant]) -> None:
        self.leases.note_grants(grants)
        self._take(grants)

    def _send(self, **message: Any) -> None:
        for name, content in message.items():
            self._tell(name, content)
