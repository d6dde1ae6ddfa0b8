"""Writes under a lease that another worker has since been given: what a zombie sends when it wakes up."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import redis
from processes import eventually
from raw_peers import Broker, RawSession

from chaos_suite.evidence import announce_checkpoint, live_leases, send_outcome
from chaos_suite.scene import Scene, fault

# Of a killed worker's tasks, until one runs again; if none does, they have all ended.
_SECONDS_MAX = 8.0
STALE_WRITES = ("failure", "release", "loss", "out_of_memory")


@fault("restart", "all")
async def zombie_writes(scene: Scene) -> None:
    """A worker is killed; once another has its task, every kind of write is sent under the old lease."""
    name = await scene.pick_worker()
    old = [lease for lease in await asyncio.to_thread(_leases, scene) if lease["worker"] == name]
    async with scene.striking("zombie_writes", [name]):
        await scene.fleet.kill_worker(name)
        await scene.fleet.replace_worker(name)
        given: list[dict[str, Any]] = []

        async def given_to_another() -> bool:
            now = {lease["task_id"]: lease["token"] for lease in await asyncio.to_thread(_leases, scene)}
            given[:] = [lease for lease in old if now.get(lease["task_id"], lease["token"]) != lease["token"]]
            return bool(given) or not old

        with contextlib.suppress(AssertionError):
            await eventually(given_to_another, _SECONDS_MAX)
        for lease in given:
            await _write(scene, lease)


async def _write(scene: Scene, lease: dict[str, Any]) -> None:
    address = scene.fleet.masters[scene.pick_master()].address
    broker = Broker(address)
    try:
        answers = {kind: await send_outcome(broker, lease, kind) for kind in STALE_WRITES}
    finally:
        await broker.close()
    session = await RawSession.open(address, "zombie")
    answers["checkpoint"] = await announce_checkpoint(session, lease)
    await session.goodbye()
    for request, answer in answers.items():
        scene.history.note("zombie", request=request, task_id=lease["task_id"], epoch=lease["epoch"], answer=answer)


def _leases(scene: Scene) -> list[dict[str, Any]]:
    try:
        return live_leases(scene.fleet)
    except redis.RedisError:
        return []
