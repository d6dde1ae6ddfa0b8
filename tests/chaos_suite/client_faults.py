"""What people and programs do in the middle of trouble: cancel, requeue, and be killed themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from chaos_suite.scene import Scene, fault
from chaos_suite.workload import SEARCH
from tenure.common.states import OPEN, TaskState

CANCELLED_AT_ONCE = 2


@fault("progress", "work")
async def cancel(scene: Scene) -> None:
    """Somebody cancels tasks, held or not."""
    async with scene.striking("cancel"):
        await _ask(scene, "cancel", sorted(OPEN))


@fault("progress", "work")
async def requeue(scene: Scene) -> None:
    """Somebody puts dead and cancelled tasks back."""
    async with scene.striking("requeue"):
        await _ask(scene, "requeue", [TaskState.CANCELLED, TaskState.FAILED])


async def _ask(scene: Scene, what: str, states: Iterable[TaskState]) -> None:
    def ask() -> None:
        found = [record.task_id for record in scene.client.tasks(SEARCH, states)]
        chosen = scene.chance.sample(found, min(len(found), CANCELLED_AT_ONCE))
        scene.history.note(f"{what}ing", task_ids=chosen)
        send = scene.client.cancel_tasks if what == "cancel" else scene.client.requeue_tasks
        for verdict in send(chosen):
            scene.history.note(what, task_id=verdict.task_id, verdict=verdict.verdict)

    await asyncio.to_thread(ask)


@fault("progress", "work")
async def program_kill(scene: Scene) -> None:
    """SIGKILL to the search program; started again, it submits everything again by key."""
    async with scene.striking("program_kill"):
        scene.end_program()
        await asyncio.sleep(scene.chance.choice((0.0, 1.0)))
        scene.start_program()
