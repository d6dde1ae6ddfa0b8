"""What a master and its store spend of a processor: on workers that only renew, and on tasks that only come and go."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import psutil
from parts.figures import progress
from processes import MasterProcess, eventually, start_master
from throughput import NoOpWorker, submit

from tenure.client import Client
from tenure.proto import tenure_pb2_grpc
from tenure.proto.serving import CHANNEL_OPTIONS

WORKERS = Path(__file__).resolve().parent / "herd_workers.py"
HEARTBEAT_SECONDS = 1.0
ARCHITECTURE = {"nodes": [{"id": "out", "operation": "flatten"}], "edges": []}
DEADLINE_SECONDS = 120.0
_RENEWED = 'tenure_store_script_items_total{script="renew"}'


@dataclass(frozen=True)
class Spent:
    """Processor seconds for 1,000 of something."""

    what: str
    master: float
    store: float


@dataclass(frozen=True)
class Footprint:
    """Of a master and of what Prometheus scrapes there."""

    master_bytes: int
    master_series: int
    worker_series: int


class Meter:
    """Processor seconds of a master and its store since it was made."""

    def __init__(self, master: MasterProcess) -> None:
        self._processes = [psutil.Process(master.pid), psutil.Process(master.store_pid)]
        self._began = self._now()

    def _now(self) -> list[float]:
        return [sum(process.cpu_times()[:2]) for process in self._processes]

    def spent(self) -> tuple[float, float]:
        """(master, store)."""
        master, store = (now - began for now, began in zip(self._now(), self._began, strict=True))
        return master, store


async def idle(master: MasterProcess, seconds: float) -> tuple[float, float]:
    """Processor seconds a second with nothing to do."""
    progress(f"a master without workers: {seconds:g} s")
    meter = Meter(master)
    await asyncio.sleep(seconds)
    spent = meter.spent()
    return spent[0] / seconds, spent[1] / seconds


@asynccontextmanager
async def herd(master: MasterProcess, workers: int) -> AsyncIterator[None]:
    """So many workers with one long lease each, in a process of their own."""
    with Client(master.address) as client:
        extra = {"extra": {"seconds": "100000"}}
        specs = [{"architecture": ARCHITECTURE, "config": extra, "key": str(number)} for number in range(workers)]
        await asyncio.to_thread(client.search("herd").submit_many, specs)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(WORKERS), master.address, "--workers", str(workers), "--slots", "1"),
            stdout=asyncio.subprocess.DEVNULL,
            env=environment,
        )
        try:
            await eventually(
                lambda: asyncio.to_thread(lambda: client.stats().leases_live == workers), DEADLINE_SECONDS, "all leases"
            )
            yield
        finally:
            process.kill()
            await process.wait()
            await asyncio.to_thread(client.search("herd").cancel_search)


async def heartbeats(master: MasterProcess, workers: int, seconds: float, resting: tuple[float, float]) -> Spent:
    """What 1,000 heartbeats cost, each with the renewal of one lease."""
    async with herd(master, workers):
        await eventually(lambda: asyncio.to_thread(lambda: renewals(master) > workers), DEADLINE_SECONDS, "heartbeats")
        progress(f"{workers} workers, a heartbeat each {HEARTBEAT_SECONDS:g} s: {seconds:g} s")
        meter, before = Meter(master), await asyncio.to_thread(renewals, master)
        await asyncio.sleep(seconds)
        on_master, on_store = meter.spent()
        thousands = (await asyncio.to_thread(renewals, master) - before) / 1000
    return Spent(
        "1,000 heartbeats with a renewal",
        (on_master - resting[0] * seconds) / thousands,
        (on_store - resting[1] * seconds) / thousands,
    )


async def submits_and_ends(master: MasterProcess, tasks: int, batch: int) -> list[Spent]:
    """What 1,000 submits in hundreds cost, and 1,000 tasks claimed and ended in messages of ``batch``."""
    progress(f"{tasks} tasks, {batch} a message")
    async with grpc.aio.insecure_channel(master.address, options=CHANNEL_OPTIONS) as channel:
        meter = Meter(master)
        await submit(tenure_pb2_grpc.TenureServiceStub(channel), f"ends-{batch}", tasks)
        submitted = meter.spent()
        crowd = [NoOpWorker(master.address, f"w{number}-{batch}", 32, batch) for number in range(4)]
        meter = Meter(master)
        running = [asyncio.create_task(worker.run()) for worker in crowd]
        await eventually(lambda: sum(worker.done for worker in crowd) >= tasks, DEADLINE_SECONDS, "all tasks")
        ended = meter.spent()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    thousands = tasks / 1000
    return [
        Spent("1,000 submits, 100 a call", submitted[0] / thousands, submitted[1] / thousands),
        Spent(f"1,000 tasks claimed and ended, {batch} a message", ended[0] / thousands, ended[1] / thousands),
    ]


def samples(address: str) -> list[str]:
    """The lines of a scrape that are samples."""
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def series(address: str) -> int:
    """How many samples a scrape has."""
    return len(samples(address))


def renewals(master: MasterProcess) -> float:
    """How many leases the master has renewed."""
    return sum(float(each.split()[-1]) for each in samples(master.facts["http"]) if each.startswith(_RENEWED))


async def worker_series(master: MasterProcess, folder: Path) -> int:
    """How many samples a scrape of a real worker with two slots has, after a task."""
    ready = folder / "worker.ready"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    environment |= {
        "TENURE_MASTER": master.address,
        "TENURE_WORKER_SLOTS": "2",
        "TENURE_WORKER_LISTEN": "127.0.0.1:0",
        "TENURE_WORKER_HTTP": "127.0.0.1:0",
        "TENURE_WORKER_WORK_DIR": str(folder / "worker"),
        "TENURE_WORKER_CHECKPOINTS": str(folder / "checkpoints"),
        "TENURE_WORKER_READY_FILE": str(ready),
        "TENURE_WORKER_EVALUATOR": "parts.gap_evaluator:light",
        "TENURE_WORKER_PYTHON_PATH": str(WORKERS.parent.parent),
    }
    with (folder / "worker.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tenure.worker"), stdout=log, stderr=log, env=environment
        )
    try:
        await eventually(ready.exists, DEADLINE_SECONDS, "the worker")
        return await asyncio.to_thread(series, json.loads(ready.read_text())["http"])
    finally:
        process.terminate()
        await process.wait()


async def measure_master(
    tasks: int, workers: int, seconds: float
) -> tuple[list[Spent], tuple[float, float], Footprint]:
    """(what things cost, processor seconds a second at rest, footprint)."""
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder:
        root = Path(folder)
        master = await asyncio.to_thread(
            lambda: start_master(root / "master", heartbeat_seconds=HEARTBEAT_SECONDS, log_level="warning")
        )
        try:
            resting = await idle(master, seconds)
            spent = [await heartbeats(master, workers, seconds, resting)]
            spent += await submits_and_ends(master, tasks, 1)
            spent += (await submits_and_ends(master, tasks, 16))[1:]
            of_worker = await worker_series(master, root)
            footprint = Footprint(psutil.Process(master.pid).memory_info().rss, series(master.facts["http"]), of_worker)
        finally:
            master.remove()
    return spent, resting, footprint
