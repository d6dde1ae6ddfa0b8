"""The store's server dies, stops, forgets its scripts, drops its clients, or has no disk left; so do workers' disks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import redis

from chaos_suite.evidence import SHARD
from chaos_suite.scene import Scene, fault


@fault("progress", "state")
async def store_kill(scene: Scene) -> None:
    """SIGKILL to the store's server; it is started again."""
    async with scene.striking("store_kill"):
        await _end_store(scene, signal.SIGKILL)


@fault("progress", "state")
async def store_stop(scene: Scene) -> None:
    """SIGTERM to the store's server; it is started again."""
    async with scene.striking("store_stop"):
        await _end_store(scene, signal.SIGTERM)


@fault("restart", "all")
async def store_and_worker_kill(scene: Scene) -> None:
    """SIGKILL to the store's server and to a worker at one time."""
    name = await scene.pick_worker()
    async with scene.striking("store_and_worker_kill", [name]):
        pid = _signal_store(scene, signal.SIGKILL)
        await scene.fleet.kill_worker(name)
        await scene.fleet.store_is_back(pid)
    await scene.fleet.replace_worker(name)


async def _end_store(scene: Scene, number: signal.Signals) -> None:
    pid = _signal_store(scene, number)
    await asyncio.sleep(scene.chance.choice((0.0, 0.0, 2.0)))
    await scene.fleet.store_is_back(pid)


def _signal_store(scene: Scene, number: signal.Signals) -> int:
    """Which process got it. It may have just died by itself, of a disk that was full a moment ago: then it is dead."""
    pid = scene.fleet.store_pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return pid


@fault("progress", "state")
async def store_pause(scene: Scene) -> None:
    """SIGSTOP to the store's server, and SIGCONT."""
    seconds = scene.chance.choice((0.5, 3.0))
    async with scene.striking("store_pause", seconds=seconds):
        pid = _signal_store(scene, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@fault("progress", "state")
async def script_flush(scene: Scene) -> None:
    """SCRIPT FLUSH: every script that masters call by its hash is unknown."""
    async with scene.striking("script_flush"):
        await _command(scene, "SCRIPT", "FLUSH")


@fault("progress", "state")
async def client_kill(scene: Scene) -> None:
    """CLIENT KILL: every connection to the store is dropped."""
    async with scene.striking("client_kill"):
        await _command(scene, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@fault("progress", "state")
async def client_pause(scene: Scene) -> None:
    """CLIENT PAUSE: the store accepts requests and carries none out for a while."""
    ms = scene.chance.choice((300, 1500, 3000))
    async with scene.striking("client_pause", ms=ms):
        await _command(scene, "CLIENT", "PAUSE", str(ms), "ALL")
        await asyncio.sleep(ms / 1000)


async def _command(scene: Scene, *words: str) -> None:
    def send() -> None:
        with scene.fleet.redis() as client:
            client.execute_command(*words)

    await asyncio.to_thread(send)


@fault("progress", "state")
async def clock_step(scene: Scene) -> None:
    """The store's clock jumps by an hour or a day, as the lease clock sees it: its last tick lies that far away."""
    hours = scene.chance.choice((-24, -1, 1, 24))
    async with scene.striking("clock_step", hours=hours):
        await _command(scene, "HINCRBY", f"{SHARD}:clock", "wall", str(-hours * 3_600_000))


@fault("progress", "all", mounts=True)
async def store_disk_full(scene: Scene) -> None:
    """No byte is left for the store's append-only file. A server that ends over that is started once there is room."""
    pid = scene.fleet.store_pid
    async with scene.striking("store_disk_full"):
        await asyncio.to_thread(scene.fleet.disks.fill, "store")
        await asyncio.sleep(2.0)
        await asyncio.to_thread(scene.fleet.disks.free, "store")
        if not await asyncio.to_thread(_answers, scene):
            await scene.fleet.store_is_back(pid)


def _answers(scene: Scene) -> bool:
    with contextlib.suppress(redis.RedisError), scene.fleet.redis() as client:
        return bool(client.ping())
    return False


@fault("progress", "work", mounts=True)
async def checkpoint_disk_full(scene: Scene) -> None:
    """No byte is left for checkpoints: evaluations go on without, and nothing is burned for it."""
    async with scene.striking("checkpoint_disk_full"):
        await asyncio.to_thread(scene.fleet.disks.fill, "checkpoints")
        await asyncio.sleep(2.0)
        await asyncio.to_thread(scene.fleet.disks.free, "checkpoints")


@fault("progress", "work", mounts=True)
async def worker_disk_full(scene: Scene) -> None:
    """No byte is left in a worker's directory: its results have their room all the same."""
    name = await scene.pick_worker()
    async with scene.striking("worker_disk_full", worker=name):
        await asyncio.to_thread(scene.fleet.disks.fill, name)
        await asyncio.sleep(2.5)
        await asyncio.to_thread(scene.fleet.disks.free, name)
