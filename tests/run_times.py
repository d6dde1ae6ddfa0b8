"""Runs that took as long as a test says, and what a search's compute time has come to.

The tests set back when a lease was granted, and say what the worker says that its run took; nothing is compared to a
clock of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from store_scene import Scene

from tenure.master.store.records import Evidence, Grant

HOUR_MS = 3_600_000
# How much longer than the test says a run can have taken by the store's clock: the test itself.
SLACK_MS = 60_000


def ran(ms: int, **fields: Any) -> Evidence:
    """What a worker says of a run that took so long."""
    return Evidence(duration_seconds=ms / 1000, **fields)


async def lease_ago(scene: Scene, worker: str = "w1", ago_ms: int = HOUR_MS, **fields: Any) -> Grant:
    """A task, leased so long ago."""
    grant = await scene.lease(worker, **fields)
    set_back(scene, grant, ago_ms)
    return grant


def set_back(scene: Scene, grant: Grant, ago_ms: int) -> None:
    """It was granted earlier; and submitted before."""
    for field in ("leased", "submitted"):
        scene.client.hincrby(scene.key(f"task:{grant.task_id}"), field, -ago_ms)


def set_kept(scene: Scene, grant: Grant, ms: int) -> None:
    """Its last checkpoint was registered so long after its lease's grant."""
    scene.client.hset(scene.key(f"task:{grant.task_id}"), "kept", f"{grant.epoch} {ms}")


async def spent(scene: Scene) -> dict[str, int]:
    """The search's times, without what is 0."""
    compute = (await scene.store.searches.get(scene.search)).compute
    found = {"useful": compute.useful_ms}
    found |= {f"saved {cause}": ms for cause, ms in compute.saved_ms.items()}
    found |= {f"wasted {cause}": ms for cause, ms in compute.wasted_ms.items()}
    return {name: ms for name, ms in found.items() if ms}


async def resend(scene: Scene, send: Callable[[], Awaitable[Any]]) -> None:
    """The same again changes none of the times."""
    before = await spent(scene)
    await send()
    assert await spent(scene) == before


async def expired(scene: Scene, kept_ms: int = 0) -> Grant:
    """Leased an hour ago to w1, which was heard once, at once, and is taken back."""
    grant = await lease_ago(scene)
    if kept_ms:
        set_kept(scene, grant, kept_ms)
    await scene.expire_all()
    return grant


def lost(scene: Scene, grant: Grant) -> list[int]:
    """Of the task's lease that was lost last: ms run, wasted, kept."""
    _, *times, _ = read(scene, grant, "lost").split(" ", 4)
    return [int(each) for each in times]


def read(scene: Scene, grant: Grant, field: str) -> str:
    """A field of the task's hash."""
    value: bytes = scene.client.hget(scene.key(f"task:{grant.task_id}"), field)  # type: ignore[assignment]
    return value.decode()
