"""Processes are killed, stopped and told to go: workers, executors, masters, and all at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import psutil

from chaos_suite.fleet import HARMLESS_SECONDS, LEASE_SECONDS
from chaos_suite.scene import Scene, fault

DRAIN_SECONDS_MAX = 60.0


@fault("restart", "work")
async def worker_kill(scene: Scene) -> None:
    """SIGKILL to a supervisor; it never comes back, another worker joins."""
    name = await scene.pick_worker()
    async with scene.striking("worker_kill", [name]):
        await scene.fleet.kill_worker(name)
    await scene.fleet.replace_worker(name)


@fault("restart", "work")
async def worker_reboot(scene: Scene) -> None:
    """A worker's machine goes down hard and comes up again: same name, same directory, with what was spooled there."""
    name = await scene.pick_worker()
    async with scene.striking("worker_reboot", [name]):
        scene.fleet.signal_worker(name, signal.SIGKILL, executors=True)
        await scene.fleet.workers[name].wait()
        await asyncio.sleep(scene.chance.choice((0.0, 1.5)))
        await scene.fleet.start_worker(name)


@fault("progress", "work")
async def worker_pause(scene: Scene) -> None:
    """SIGSTOP to a supervisor and perhaps its executors, for less or more than a lease; then SIGCONT: a zombie."""
    name = await scene.pick_worker()
    seconds = scene.chance.choice((0.5, HARMLESS_SECONDS, LEASE_SECONDS + 3))
    whole = scene.chance.random() < 0.5
    harms = [name] if seconds > LEASE_SECONDS else []
    async with scene.striking("worker_pause", harms, worker=name, seconds=seconds, executors=whole):
        scene.fleet.signal_worker(name, signal.SIGSTOP, executors=whole)
        await asyncio.sleep(seconds)
        scene.fleet.signal_worker(name, signal.SIGCONT, executors=True)


@fault("restart", "work")
async def worker_stop(scene: Scene) -> None:
    """SIGTERM: the worker drains in the middle of its evaluations and leaves; another joins."""
    name = await scene.pick_worker()
    scene.fleet.gone.add(name)
    async with scene.striking("worker_stop", ends=[name], worker=name):
        scene.fleet.workers[name].signal(signal.SIGTERM)
        await scene.fleet.add_worker(scene.fleet.slots_of(name))
        code = await scene.fleet.workers[name].wait(DRAIN_SECONDS_MAX)
    if code != 0:
        scene.unexpected(f"the drained worker {name} ended with {code}")


@fault("restart", "work")
async def worker_drain(scene: Scene) -> None:
    """An operator drains a worker through a master, and gives it tasks again."""
    name = await scene.pick_worker()
    async with scene.striking("worker_drain", ends=[name], worker=name):
        await asyncio.to_thread(scene.client.drain_worker, name)
        await asyncio.sleep(scene.chance.uniform(0.3, 1.5))
        await asyncio.to_thread(scene.client.uncordon_worker, name)


@fault("restart", "work")
async def executor_kill(scene: Scene) -> None:
    """SIGKILL or SIGTERM to the process that an evaluation runs in."""
    await _signal_executor(scene, "executor_kill", scene.chance.choice((signal.SIGKILL, signal.SIGTERM)))


@fault("progress", "work")
async def executor_pause(scene: Scene) -> None:
    """SIGSTOP to the process that an evaluation runs in, and SIGCONT."""
    await _signal_executor(scene, "executor_pause", signal.SIGSTOP)


async def _signal_executor(scene: Scene, kind: str, number: signal.Signals) -> None:
    name = await scene.pick_worker()
    executors = scene.fleet.workers[name].executors()
    if not executors:
        return
    executor = scene.chance.choice(executors)
    harms = [] if number == signal.SIGSTOP else [name]
    async with scene.striking(kind, harms, worker=name, executor=executor.pid, signal=number.name):
        with contextlib.suppress(psutil.NoSuchProcess):
            executor.send_signal(number)
            if number == signal.SIGSTOP:
                await asyncio.sleep(scene.chance.choice((0.5, 2.0)))
                executor.send_signal(signal.SIGCONT)


@fault("progress", "state")
async def master_kill(scene: Scene) -> None:
    """SIGKILL to a master; it is started again at once or after a while."""
    master = scene.fleet.masters[scene.pick_master()]
    seconds = scene.chance.choice((0.0, 0.5, 2.0))
    async with scene.striking("master_kill", seconds=seconds):
        await asyncio.to_thread(master.kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(master.restart)


@fault("progress", "state")
async def master_pause(scene: Scene) -> None:
    """SIGSTOP to a master, and SIGCONT."""
    master = scene.fleet.masters[scene.pick_master()]
    seconds = scene.chance.choice((0.5, HARMLESS_SECONDS, LEASE_SECONDS + 2))
    async with scene.striking(
        "master_pause", scene.harm_by_silence if seconds > LEASE_SECONDS else (), seconds=seconds
    ):
        master.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        master.signal(signal.SIGCONT)


@fault("progress", "state")
async def master_stop(scene: Scene) -> None:
    """SIGTERM to a master; it is started again."""
    master = scene.fleet.masters[scene.pick_master()]
    async with scene.striking("master_stop"):
        code = await asyncio.to_thread(master.terminate)
        await asyncio.to_thread(master.restart)
    if code != 0:
        scene.unexpected(f"a master that was told to stop ended with {code}")


@fault("progress", "all")
async def masters_outage(scene: Scene) -> None:
    """SIGKILL to every master for longer than a lease, while the workers go on (I9)."""
    async with scene.striking("masters_outage"):
        await asyncio.gather(*(asyncio.to_thread(each.kill) for each in scene.fleet.masters.values()))
        await asyncio.sleep(LEASE_SECONDS + 1.5)
        await asyncio.gather(*(asyncio.to_thread(each.restart) for each in scene.fleet.masters.values()))


@fault("restart", "all")
async def blackout(scene: Scene) -> None:
    """SIGKILL to everything there is but the search program; then everything is started again where it was."""
    fleet = scene.fleet
    names = fleet.living()
    async with scene.striking("blackout", names):
        for name in names:
            fleet.signal_worker(name, signal.SIGKILL, executors=True)
        if fleet.store is not None:
            await asyncio.to_thread(fleet.store.kill)
        for each in fleet.masters.values():
            await asyncio.to_thread(each.kill)
        for name in names:
            await fleet.workers[name].wait()
        if fleet.store is not None:
            await asyncio.to_thread(fleet.store.start)
        await asyncio.gather(*(asyncio.to_thread(each.restart) for each in fleet.masters.values()))
        for name in names:
            await fleet.start_worker(name)
