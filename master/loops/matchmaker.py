"""The matchmaker: brings ready tasks and free slots together, without polling the store.

Consumers (sessions, long polls, pushes) wait here with their free slots. Whatever makes a task ready, on any master,
is an event in the store's stream; it raises a hint of how many tasks may be ready, and the matchmaker claims for as
many slots as the hint says, in batches, until a claim comes back with less than was asked for (chained wake-ups: a
single new task doesn't make ten thousand waiting workers ask).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from tenure.common.errors import TenureError
from tenure.common.ids import new_lease_token
from tenure.common.limits import BATCH_TASKS_MAX
from tenure.common.spec import Requirements
from tenure.master.core.matching import Capabilities, servable_classes
from tenure.master.metrics import MasterMetrics
from tenure.master.rpc.outcomes import end_damaged
from tenure.master.store import Store
from tenure.master.store.records import DEFAULT_CLASS, ClaimRequest, Grant, Grants, Lease, TaskEvent
from tenure.master.task_spans import tell_queued

log = structlog.get_logger()

UNKNOWN_HINT = 1_000_000
# Should an event be lost on the way, waiting slots ask by themselves after this long.
SAFETY_SECONDS = 5.0
# A claim for everything a worker could take at once would leave nothing for the next one.
TOKENS_PER_CONSUMER_MAX = 32

Deliver = Callable[[list[Grant]], None]


@dataclass(eq=False)
class Consumer:
    """Somebody with free slots.

    Attributes:
        worker_id: Whom the leases are for.
        capabilities: What its slots have.
        deliver: Takes grants; must not block. A consumer that is closed by then gives them back itself.
        legacy: Whether it can't name lease tokens.
        instance_id: Which start of the worker this is; empty for a legacy one.
        slots: Free slots now; 0 = doesn't wait.
    """

    worker_id: str
    capabilities: Capabilities
    deliver: Deliver
    legacy: bool = False
    instance_id: str = ""
    slots: int = 0
    waiting: bool = False


@dataclass
class _Group:
    """Consumers that can serve the same classes, in the order they came."""

    classes: tuple[str, ...]
    consumers: deque[Consumer] = field(default_factory=deque)
    hint: int = UNKNOWN_HINT
    # Consumers are out of the queue while a claim for them is under way; what happens meanwhile is for them, too.
    claiming: bool = False


class Matchmaker:
    """See the module. ``run`` until cancelled."""

    def __init__(self, store: Store, metrics: MasterMetrics) -> None:
        self._store = store
        self._metrics = metrics
        self._classes: dict[str, Requirements] = _with_default({})
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._wake = asyncio.Event()
        self._waiting_slots = 0
        # Tokens of claims whose answer was lost: whatever they were granted goes back before anything else.
        self._unanswered: list[str] = []
        self._held_until = 0.0

    def want(self, consumer: Consumer, slots: int) -> None:
        """The consumer has this many free slots now; replaces what was said before."""
        self._set_slots(consumer, slots)
        if slots > 0 and not consumer.waiting:
            consumer.waiting = True
            self._group_of(consumer).consumers.append(consumer)
        if slots > 0:
            group = self._group_of(consumer)
            group.hint = max(group.hint, slots)
            self._wake.set()

    def leave(self, consumer: Consumer) -> None:
        """The consumer is gone; it is skipped from now on."""
        self._set_slots(consumer, 0)

    def note_event(self, event: TaskEvent) -> None:
        """Something happened in the store that may have made a task ready, or a capped search servable."""
        if event.state == "QUEUED" or event.transition in ("complete", "fail", "release", "expire"):
            self._raise_hints(1)
        elif event.transition == "search":
            self._raise_hints(UNKNOWN_HINT)

    def wake_all(self) -> None:
        """Events may have been missed: everybody asks once."""
        self._raise_hints(UNKNOWN_HINT)

    def hold(self, seconds: float) -> None:
        """Claim nothing for so long from now. Only the rollback alarm decides on that."""
        self._held_until = time.monotonic() + seconds
        # Whatever is served right now goes on behind the hold.
        self._wake.set()

    def note_classes(self, classes: dict[str, Requirements]) -> None:
        """The requirement classes in use. New ones regroup the consumers."""
        classes = _with_default(classes)
        if classes == self._classes:
            return
        self._classes = classes
        consumers = [consumer for group in self._groups.values() for consumer in group.consumers]
        self._groups.clear()
        for consumer in consumers:
            self._group_of(consumer).consumers.append(consumer)
        self._raise_hints(UNKNOWN_HINT)

    async def run(self) -> None:
        """Claim whenever there may be something for somebody."""
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), SAFETY_SECONDS)
            except TimeoutError:
                self._raise_hints(1)
            if self._held_seconds > 0:
                await asyncio.sleep(self._held_seconds)
                self._wake.set()
                continue
            self._wake.clear()
            # One more turn of the loop: what arrives together is claimed together.
            await asyncio.sleep(0)
            try:
                await self._give_back_unanswered()
                groups = list(self._groups.values())
                # In turns: a busy group keeps no other waiting.
                while groups and self._held_seconds <= 0:
                    groups = [group for group in groups if await self._serve(group)]
            except TenureError as error:
                log.debug("matchmaker.interrupted", error=str(error))
                await asyncio.sleep(0.1)
                self.wake_all()

    @property
    def _held_seconds(self) -> float:
        return self._held_until - time.monotonic()

    async def _give_back_unanswered(self) -> None:
        while self._unanswered:
            tokens = self._unanswered[:BATCH_TASKS_MAX]
            released = await self._store.tasks.give_back(tokens)
            del self._unanswered[: len(tokens)]
            if released:
                log.info("matchmaker.gave_back", tasks=released, why="the answer to their claim was lost")

    def _group_of(self, consumer: Consumer) -> _Group:
        classes = servable_classes(self._classes, consumer.capabilities)
        group = self._groups.get(classes)
        if group is None:
            group = self._groups[classes] = _Group(classes)
        return group

    def _queue(self, consumer: Consumer, served: _Group) -> None:
        """Let it wait again after a claim for it."""
        group = self._group_of(consumer)
        group.consumers.append(consumer)
        if group is not served:
            # Regrouped meanwhile, and nobody has asked for it in its new group.
            group.hint = max(group.hint, consumer.slots)
            self._wake.set()

    def _set_slots(self, consumer: Consumer, slots: int) -> None:
        self._waiting_slots += slots - consumer.slots
        consumer.slots = slots
        self._metrics.waiting.set(self._waiting_slots)

    def _raise_hints(self, by: int) -> None:
        for group in self._groups.values():
            if group.consumers or group.claiming:
                group.hint = min(group.hint + by, UNKNOWN_HINT)
                self._wake.set()

    async def _serve(self, group: _Group) -> bool:
        """One claim for a group, if there may be something for it; returns whether there may be more."""
        batch = self._next_batch(group) if group.hint > 0 else []
        if not batch:
            return False
        # What is announced while the claim is under way counts from nothing, and stays.
        hint, group.hint = group.hint, 0
        group.claiming = True
        try:
            granted = await self._claim(group, batch)
        finally:
            group.claiming = False
        if granted == sum(count for _, count in batch):
            group.hint = min(group.hint + max(hint - granted, 1), UNKNOWN_HINT)
        return group.hint > 0

    def _waiting(self, group: _Group, batch: Sequence[tuple[Consumer, int]]) -> dict[str, set[str]]:
        """For each class of the group two workers that wait for it here at this moment, or fewer.

        What a worker lost lately is left to another one that waits. One that lives but is busy, or only seems to live,
        would let the task wait for nobody. Workers of other masters hear of the task by themselves; this one may be
        faster.
        """
        waiting: dict[str, set[str]] = {name: set() for name in group.classes}
        for each in self._groups.values():
            queued = (consumer for consumer in each.consumers if consumer.slots > 0)
            claiming = (consumer for consumer, _ in batch) if each is group else ()
            two: set[str] = set()
            for consumer in itertools.chain(claiming, queued):
                two.add(consumer.worker_id)
                if len(two) == 2:
                    break
            for name in each.classes:
                if name in waiting:
                    waiting[name] |= two
        return waiting

    def _next_batch(self, group: _Group) -> list[tuple[Consumer, int]]:
        """Consumers from the front, with how much each asks for, up to the hint and one script's batch."""
        room = min(group.hint, BATCH_TASKS_MAX)
        batch: list[tuple[Consumer, int]] = []
        while room > 0 and group.consumers:
            consumer = group.consumers.popleft()
            if consumer.slots <= 0:
                consumer.waiting = False
                continue
            count = min(consumer.slots, room, TOKENS_PER_CONSUMER_MAX)
            batch.append((consumer, count))
            room -= count
        return batch

    async def _claim(self, group: _Group, batch: Sequence[tuple[Consumer, int]]) -> int:
        """How many tasks were taken from the queue."""
        started = time.perf_counter()
        waiting = self._waiting(group, batch)
        requests = [
            ClaimRequest(
                consumer.worker_id,
                [new_lease_token() for _ in range(count)],
                list(group.classes),
                consumer.legacy,
                consumer.instance_id,
                [name for name, workers in waiting.items() if workers - {consumer.worker_id}],
            )
            for consumer, count in batch
        ]
        replies = await asyncio.gather(
            *(self._store.tasks.claim(request) for request in requests), return_exceptions=True
        )
        self._metrics.claim_seconds.observe(time.perf_counter() - started)
        granted = 0
        passed_over: set[str] = set()
        damaged: list[Lease] = []
        failure: BaseException | None = None
        for (consumer, _), request, reply in zip(batch, requests, replies, strict=True):
            if isinstance(reply, BaseException):
                failure = reply
                self._unanswered += request.tokens
            elif reply:
                granted += len(reply)
                for grant in reply:
                    self._metrics.observe_start(grant.search, grant.waited_ms / 1000)
                    tell_queued(grant, consumer.worker_id)
                # What `want` said meanwhile counts the tasks that are on their way now, so never below zero.
                self._set_slots(consumer, max(0, consumer.slots - len(reply)))
                consumer.deliver(reply)
            if isinstance(reply, Grants):
                damaged += reply.damaged
                if reply.passed_over:
                    passed_over.add(consumer.worker_id)
            if consumer.slots > 0:
                self._queue(consumer, group)
            else:
                consumer.waiting = False
        if failure is not None:
            raise failure
        await end_damaged(self._store, self._metrics, damaged)
        if passed_over:
            self._ask_others(group, passed_over)
        return granted + len(damaged)

    def _ask_others(self, group: _Group, passed_over: set[str]) -> None:
        """Tasks wait that these workers lost lately: the first in line of the others is asked next."""
        for position, consumer in enumerate(group.consumers):
            if consumer.slots > 0 and consumer.worker_id not in passed_over:
                group.consumers.rotate(-position)
                group.hint = max(group.hint, 1)
                return


def _with_default(classes: dict[str, Requirements]) -> dict[str, Requirements]:
    # Known before the first task of a new store asks for it.
    return {DEFAULT_CLASS: Requirements(), **classes}
