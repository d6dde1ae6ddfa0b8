"""One seed from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import redis
from processes import eventually

from chaos_suite import client_faults, network_faults, process_faults, store_faults, zombie_faults
from chaos_suite.checker import Violation, check
from chaos_suite.disks import can_mount
from chaos_suite.evidence import LeaseObserver, all_keys, collect, transitions
from chaos_suite.fleet import START_SECONDS, Fleet
from chaos_suite.history import Event, History, read_lines
from chaos_suite.plan import STRIKES_DEFAULT, Plan, make_plan
from chaos_suite.recovery import Recovery, recoveries
from chaos_suite.scene import KINDS, Scene
from chaos_suite.workload import SEARCH
from tenure.common.errors import TenureError

# From the last fault until every task has ended (I8); of an idle machine it takes 3 to 10.
DRAIN_SECONDS_MAX = 90.0
WATCH_SECONDS_MAX = 15.0
# How many of those pairs of faults that can overlap do.
OVERLAPPING = 0.5
_GAP_SECONDS = (0.3, 1.2)
# Everything that waiting, asking and starting may fail with. Anything else is a fault of the suite itself.
TROUBLE = (
    AssertionError,
    RuntimeError,
    OSError,
    TenureError,
    grpc.RpcError,
    redis.RedisError,
    subprocess.SubprocessError,
)
# Imported for what they register.
FAULT_MODULES = (client_faults, network_faults, process_faults, store_faults, zombie_faults)


@dataclass
class SeedReport:
    """How a seed ended.

    Attributes:
        folder: Its history and logs; deleted if it went well.
        drain_seconds: From the last fault until every task had ended.
    """

    plan: Plan
    folder: Path
    seconds: float = 0.0
    tasks: int = 0
    drain_seconds: float = 0.0
    events: list[Event] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)


def kinds_here() -> list[str]:
    """The kinds of faults that can strike on this machine."""
    mounts = can_mount()
    return sorted(name for name, kind in KINDS.items() if mounts or not kind.mounts)


def plan_of(seed: int, kinds: list[str], strikes: int = STRIKES_DEFAULT) -> Plan:
    """The plan of a seed with these kinds."""
    return make_plan(seed, kinds, only_external=[name for name in kinds if KINDS[name].external], strikes=strikes)


async def run_seed(plan: Plan, folder: Path, *, keep: bool = False) -> SeedReport:
    """Run a seed and judge it.

    Args:
        plan: Its plan.
        folder: A new one, with a short path; kept if an invariant broke.
        keep: Keep it in any case.
    """
    started = time.monotonic()
    folder.mkdir(parents=True)
    history = History(folder / "history.jsonl")
    history.note("plan", **{**vars(plan), "slots": list(plan.slots), "kinds": list(plan.kinds)})
    fleet = Fleet(folder, plan, history)
    try:
        await _live(fleet, plan, history, folder)
    except TROUBLE as error:
        history.note("unexpected", text=f"{type(error).__name__}: {error}", trace=traceback.format_exc())
    finally:
        await fleet.destroy()
        history.close()
    for line in read_lines(folder / "journal.jsonl"):
        history.add([{**line, "what": f"run_{line['event']}"}])
    history.add(read_lines(folder / "program.jsonl"))
    report = SeedReport(plan, folder, events=history.written_whole(), seconds=time.monotonic() - started)
    report.tasks = sum(event["what"] == "record" for event in report.events)
    report.drain_seconds = max((event["seconds"] for event in report.events if event["what"] == "drained"), default=0.0)
    report.violations = check(report.events)
    report.recoveries = recoveries(report.events, {name: kind.measure for name, kind in KINDS.items()})
    if not report.violations and not keep:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return report


async def _live(fleet: Fleet, plan: Plan, history: History, folder: Path) -> None:
    await fleet.start()
    baseline = await asyncio.to_thread(all_keys, fleet)
    for slots in plan.slots:
        await fleet.add_worker(slots)
    await fleet.all_ready()
    await asyncio.to_thread(fleet.client.search, SEARCH, max_leased=plan.max_leased)
    scene = Scene(fleet, plan, history, folder)
    observer = asyncio.create_task(LeaseObserver(fleet, history).run())
    watching = threading.Event()
    threading.Thread(target=_watch, args=(scene, history, watching), daemon=True).start()
    try:
        await eventually(watching.is_set, what="the watch's first answer")
        scene.start_program()
        await _strike(scene)
        await _drain(scene)
        await _watched_all(scene)
    finally:
        observer.cancel()
        await asyncio.gather(observer, return_exceptions=True)
        scene.end_program()
        await asyncio.to_thread(scene.client.close)
    _note_deaths(scene)
    await collect(fleet, history, baseline)


async def _strike(scene: Scene) -> None:
    await eventually(lambda: (scene.fleet.root / "journal.jsonl").exists(), START_SECONDS, "the first evaluation")
    kinds = [KINDS[name] for name in scene.plan.kinds]
    while kinds:
        await asyncio.sleep(scene.chance.uniform(*_GAP_SECONDS))
        if scene.program.poll() is not None:
            scene.unexpected(f"the search program ended with {scene.program.returncode}")
            scene.start_program()
        together = [kinds.pop(0)]
        overlaps = scene.chance.random() < OVERLAPPING
        if kinds and overlaps and {together[0].side, kinds[0].side} == {"work", "state"}:
            together.append(kinds.pop(0))
        await asyncio.gather(*(kind.strike(scene) for kind in together))
    scene.history.note("healed")


async def _drain(scene: Scene) -> None:
    """All faults are over: what is left must end in bounded time, and the search program with it (I8)."""
    healed = time.monotonic()
    scene.stop_file.touch()
    status = await asyncio.to_thread(scene.program.wait, DRAIN_SECONDS_MAX)
    if status != 0:
        scene.unexpected(f"the search program ended with {status}")
    # Requeued tasks are no longer the program's.
    await asyncio.to_thread(scene.fleet.client.search(SEARCH).wait, DRAIN_SECONDS_MAX)
    scene.history.note("drained", seconds=round(time.monotonic() - healed, 3))


def _watch(scene: Scene, history: History, watching: threading.Event) -> None:
    """In a thread of its own: note every change that a watching client is told, until the client is closed."""
    with contextlib.suppress(TenureError):
        for batch in scene.client.watch(SEARCH):
            watching.set()
            for event in batch.events:
                if event.task_id:
                    history.note(
                        "watched",
                        task_id=event.task_id,
                        transition=event.transition,
                        worker=event.worker_id,
                        epoch=event.epoch,
                    )


async def _watched_all(scene: Scene) -> None:
    """Give the watch time to hear the last events; if it never does, the checker finds that out."""

    async def heard_all() -> bool:
        told = sum(event["what"] == "watched" for event in list(scene.history.events))
        return told >= len(await asyncio.to_thread(transitions, scene.fleet))

    with contextlib.suppress(AssertionError):
        await eventually(heard_all, WATCH_SECONDS_MAX)


def _note_deaths(scene: Scene) -> None:
    """Processes that ended though nobody ended them."""
    for name, worker in scene.fleet.workers.items():
        if name not in scene.fleet.gone and worker.returncode is not None:
            scene.unexpected(f"worker {name} ended with {worker.returncode}")
    for name, master in scene.fleet.masters.items():
        if master.returncode is not None:
            scene.unexpected(f"master {name} ended with {master.returncode}")
