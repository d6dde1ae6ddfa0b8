"""No wake-up is lost: what happens while a claim is under way is for those it is made for, too.

On a real store; only the moment at which a claim's answer arrives is the test's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from raw_peers import GRAPH
from store_scene import failure

from tenure.common.spec import Requirements, TaskSpec
from tenure.master.core.matching import Capabilities
from tenure.master.loops import matchmaker as subject
from tenure.master.loops.matchmaker import Consumer, Matchmaker
from tenure.master.metrics import MasterMetrics
from tenure.master.store import Store
from tenure.master.store.records import FailureKind, Grant, TaskEvent


class Scene:
    """A running matchmaker whose claims are answered when the test says so."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.matchmaker = Matchmaker(store, MasterMetrics())
        self.granted: asyncio.Queue[Grant] = asyncio.Queue()
        self.claims: asyncio.Queue[asyncio.Event] = asyncio.Queue()
        self._claim = store.tasks.claim
        self.held = False

    async def claim(self, request: Any) -> list[Grant]:
        """The store's, but the answer waits while claims are held."""
        grants = await self._claim(request)
        if self.held:
            gate = asyncio.Event()
            self.claims.put_nowait(gate)
            await gate.wait()
        return grants

    def consumer(self, name: str, gpus: int = 0) -> Consumer:
        """Of one slot at a time."""
        return Consumer(
            name, Capabilities(gpus), lambda grants: [self.granted.put_nowait(grant) for grant in grants], False, "i"
        )

    async def submit(self, **spec: Any) -> str:
        """One task; nobody hears of it but by :meth:`announce`."""
        (submitted,) = await self.store.tasks.submit("s", [TaskSpec(architecture=GRAPH, **spec)])
        return submitted.task_id

    def announce(self, task_id: str) -> None:
        """The event of a submit."""
        self.matchmaker.note_event(TaskEvent("1-0", 0, task_id, "s", "submit", "QUEUED", "", 0))

    async def next_grant(self) -> Grant:
        """Without the help of the matchmaker's safety net, which is hours away here."""
        async with asyncio.timeout(60):
            return await self.granted.get()


@pytest.fixture
async def scene(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """Running."""
    scene = Scene(store)
    monkeypatch.setattr(store.tasks, "claim", scene.claim)
    monkeypatch.setattr(subject, "SAFETY_SECONDS", 3600.0)
    running = asyncio.create_task(scene.matchmaker.run())
    yield scene
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_task_that_comes_after_a_claim_was_made_and_before_it_is_answered(scene: Scene) -> None:
    for _ in range(3):  # the first claim of a group is made on no hint at all, the later ones on counted hints
        scene.held = True
        scene.matchmaker.want(scene.consumer("w"), 1)
        gate = await scene.claims.get()
        task_id = await scene.submit(key=f"k{id(gate)}")
        scene.announce(task_id)
        scene.held = False
        gate.set()
        assert (await scene.next_grant()).task_id == task_id


async def test_a_want_while_a_claim_is_under_way(scene: Scene) -> None:
    scene.held = True
    consumer = scene.consumer("w")
    scene.matchmaker.want(consumer, 1)
    gate = await scene.claims.get()
    task_ids = {await scene.submit(key=key) for key in ("a", "b")}
    scene.matchmaker.want(consumer, 2)
    scene.held = False
    gate.set()
    assert {(await scene.next_grant()).task_id, (await scene.next_grant()).task_id} == task_ids


async def test_a_new_requirement_while_a_claim_is_under_way(scene: Scene) -> None:
    """The consumer is out of its group then, and belongs to another when the answer comes."""
    scene.held = True
    scene.matchmaker.want(scene.consumer("w", gpus=1), 1)
    gate = await scene.claims.get()
    task_id = await scene.submit(requirements=Requirements(gpus=1))
    scene.announce(task_id)
    scene.matchmaker.note_classes(await scene.store.searches.requirement_classes())
    scene.held = False
    gate.set()
    assert (await scene.next_grant()).task_id == task_id


async def test_a_hold_that_begins_while_a_claim_is_under_way(scene: Scene) -> None:
    """What is claimed stays claimed; the rest of the worker's slots wait."""
    most = subject.TOKENS_PER_CONSUMER_MAX
    for number in range(most + 1):
        await scene.submit(key=f"k{number}")
    scene.held = True
    scene.matchmaker.want(scene.consumer("w"), most + 1)
    gate = await scene.claims.get()
    scene.matchmaker.hold(3600)
    gate.set()
    for _ in range(most):
        await scene.next_grant()
    assert len(await scene.store.tasks.leases()) == most
    assert scene.claims.empty()


async def test_groups_are_served_in_turns(scene: Scene) -> None:
    """One whose slots are filled again and again keeps no other waiting."""
    await scene.submit(key="gpu", requirements=Requirements(gpus=1))
    scene.matchmaker.note_classes(await scene.store.searches.requirement_classes())
    for number in range(20):
        await scene.submit(key=f"k{number}")
    order: list[str] = []

    def again(grants: list[Grant]) -> None:
        order.extend("plain" for _ in grants)
        scene.matchmaker.want(greedy, 1)

    greedy = Consumer("greedy", Capabilities(), again, False, "i")
    scene.matchmaker.want(greedy, 1)
    picky = scene.consumer("picky", gpus=1)
    scene.matchmaker.want(picky, 1)
    await scene.next_grant()
    assert len(order) < 20


async def test_waiting_slots_are_counted(scene: Scene) -> None:
    consumers = [scene.consumer(f"w{number}") for number in range(3)]
    gauge = scene.matchmaker._metrics.waiting

    def waiting() -> float:
        return float(gauge.collect()[0].samples[0].value)

    for consumer in consumers:
        scene.matchmaker.want(consumer, 2)
    assert waiting() == 6
    scene.matchmaker.leave(consumers[0])
    scene.matchmaker.want(consumers[1], 1)
    assert waiting() == 3
    scene.announce(await scene.submit())
    await scene.next_grant()
    assert waiting() == 2


class TestLostTask:
    """It is left to another worker only where one waits for it."""

    @staticmethod
    async def lost_by(scene: Scene, loser: Consumer) -> str:
        """A task that this worker was given and lost; it is queued, and nobody has heard so."""
        task_id = await scene.submit()
        scene.announce(task_id)
        scene.matchmaker.want(loser, 1)
        grant = await scene.next_grant()
        await scene.store.tasks.fail(failure(grant, loser.worker_id, kind=FailureKind.LOSS))
        return task_id

    async def test_alone_its_worker_is_given_it_again_at_once(self, scene: Scene) -> None:
        loser = scene.consumer("loser")
        task_id = await self.lost_by(scene, loser)
        scene.matchmaker.want(loser, 1)
        assert (await scene.next_grant()).task_id == task_id

    async def test_one_that_left_or_can_not_run_it_is_not_waited_for(self, scene: Scene) -> None:
        loser, gone = scene.consumer("loser"), scene.consumer("gone")
        task_id = await self.lost_by(scene, loser)
        scene.matchmaker.want(gone, 1)
        scene.matchmaker.leave(gone)
        scene.matchmaker.want(loser, 1)
        assert (await scene.next_grant()).task_id == task_id

    @pytest.mark.parametrize("first", ["loser", "other"])
    @pytest.mark.parametrize("hint", [1, 100], ids=["apart", "in one claim"])
    async def test_another_that_waits_gets_it(self, scene: Scene, first: str, hint: int) -> None:
        loser = scene.consumer("loser")
        task_id = await self.lost_by(scene, loser)
        # Both wait before anything is claimed for them.
        scene.matchmaker.hold(0.2)
        other = scene.consumer("other")
        for consumer in (loser, other) if first == "loser" else (other, loser):
            scene.matchmaker.want(consumer, 1)
        if hint > 1:
            scene.matchmaker.wake_all()
        grant = await scene.next_grant()
        assert grant.task_id == task_id
        (lease,) = await scene.store.tasks.leases()
        assert lease.worker_id == "other"
