#!/usr/bin/env python3
"""Tasks a second and latency through one real master: strict durability, real gRPC, no-op evaluations.

Everything runs on this machine at once, so figures mean something only side by side: each is printed as a ratio to
the round trips that the same store makes alone (one script a call, nothing batched), measured in the same run.

Examples:
    bench/throughput.py                      # 20,000 tasks, batches of 1, 16 and 100 tasks a message
    bench/throughput.py --tasks 5000 --workers 4 --slots 16
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio

from tenure.master.store import StoreOptions, open_store
from tenure.proto import tenure_pb2, tenure_pb2_grpc, worker_pb2, worker_pb2_grpc
from tenure.proto.serving import CHANNEL_OPTIONS

ARCHITECTURE = json.dumps(
    {
        "nodes": [{"id": f"n{i}", "operation": "dense", "params": {"units": 10 + i}} for i in range(20)],
        "edges": [{"id": f"e{i}", "source_id": f"n{i}", "target_id": f"n{i + 1}"} for i in range(19)],
    }
)


class NoOpWorker:
    """A session whose every task succeeds at once, ``batch`` outcomes a message."""

    def __init__(self, address: str, name: str, slots: int, batch: int) -> None:
        self._address, self._name, self._slots, self._batch = address, name, slots, batch
        self._up: asyncio.Queue[worker_pb2.SessionUp] = asyncio.Queue()
        self.done = 0
        self.acknowledged = asyncio.Event()
        self.expected = -1

    async def run(self) -> None:
        """Until cancelled."""
        async with grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS) as channel:
            stub = worker_pb2_grpc.MasterServiceStub(channel)
            registration = worker_pb2.RegisterRequest(
                worker_id=self._name, instance_id=self._name, slots=self._slots, dispatch=worker_pb2.DISPATCH_PULL
            )
            self._up.put_nowait(worker_pb2.SessionUp(hello=worker_pb2.Hello(worker=registration)))
            self._up.put_nowait(worker_pb2.SessionUp(want=worker_pb2.Want(slots=self._slots)))
            waiting: list[worker_pb2.Outcome] = []
            async for message in stub.Session(self._messages()):
                if message.HasField("tasks"):
                    waiting += [
                        worker_pb2.Outcome(
                            task_id=task.task_id,
                            lease_token=task.lease_token,
                            epoch=task.epoch,
                            kind=worker_pb2.OUTCOME_SUCCESS,
                            metrics={"fitness": 0.5},
                        )
                        for task in message.tasks.tasks
                    ]
                    while waiting:
                        part, waiting = waiting[: self._batch], waiting[self._batch :]
                        outcomes = worker_pb2.Outcomes(outcomes=part, want_slots=self._slots - len(waiting))
                        self._up.put_nowait(worker_pb2.SessionUp(outcomes=outcomes))
                elif message.HasField("outcome_verdicts"):
                    self.done += len(message.outcome_verdicts.verdicts)
                    self.acknowledged.set()

    async def _messages(self) -> AsyncIterator[worker_pb2.SessionUp]:
        while True:
            yield await self._up.get()


def start_master(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A master on free ports; returns the process and its address."""
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "tenure.client.cli", "master", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    command += ["--data-dir", str(folder / "data"), "--ready-file", str(ready), "--log-level", "warning"]
    process = subprocess.Popen(command)
    while not ready.exists():
        if process.poll() is not None:
            raise SystemExit("the master did not start")
        time.sleep(0.05)
    return process, json.loads(ready.read_text())["grpc"]


async def submit(stub: tenure_pb2_grpc.TenureServiceStub, search: str, count: int) -> float:
    """Submit no-op tasks in chunks of 100, eight at a time; returns tasks a second."""
    gate = asyncio.Semaphore(8)

    async def chunk(start: int) -> None:
        async with gate:
            tasks = [
                tenure_pb2.TaskSpec(key=f"{n}", architecture=ARCHITECTURE)
                for n in range(start, min(start + 100, count))
            ]
            await stub.Submit(tenure_pb2.SubmitRequest(search=search, tasks=tasks))

    started = time.perf_counter()
    await asyncio.gather(*(chunk(start) for start in range(0, count, 100)))
    return count / (time.perf_counter() - started)


async def drain(address: str, tasks: int, workers: int, slots: int, batch: int) -> tuple[float, float]:
    """(tasks submitted a second, tasks claimed and completed a second)."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub = tenure_pb2_grpc.TenureServiceStub(channel)
        search = f"drain-{batch}-{time.time_ns()}"
        submitted = await submit(stub, search, tasks)
        crowd = [NoOpWorker(address, f"w{n}-{batch}", slots, batch) for n in range(workers)]
        started = time.perf_counter()
        running = [asyncio.create_task(worker.run()) for worker in crowd]
        while sum(worker.done for worker in crowd) < tasks:  # noqa: ASYNC110 - the count is spread over the crowd
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - started
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return submitted, tasks / seconds


async def latency(address: str, rounds: int) -> tuple[float, float]:
    """(median, 99th percentile) of milliseconds from submit to acknowledged result, one task at a time."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub = tenure_pb2_grpc.TenureServiceStub(channel)
        worker = NoOpWorker(address, "latency", 1, 1)
        running = asyncio.create_task(worker.run())
        search = f"latency-{time.time_ns()}"
        samples = []
        for n in range(rounds):
            worker.acknowledged.clear()
            started = time.perf_counter()
            await stub.Submit(
                tenure_pb2.SubmitRequest(
                    search=search, tasks=[tenure_pb2.TaskSpec(key=f"{n}", architecture=ARCHITECTURE)]
                )
            )
            await worker.acknowledged.wait()
            samples.append((time.perf_counter() - started) * 1000)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        samples = sorted(samples[rounds // 10 :])
        return statistics.median(samples), samples[int(len(samples) * 0.99)]


async def bare_store(folder: Path, rounds: int) -> float:
    """Round trips a second of one small writing script, one at a time: the yardstick."""
    store = await open_store(StoreOptions(data_dir=folder / "yardstick"))
    try:
        await store.tasks.tick(0, 1000)
        started = time.perf_counter()
        for _ in range(rounds):
            await store.tasks.tick(0, 1000)
        return rounds / (time.perf_counter() - started)
    finally:
        await store.close()


async def measure(options: argparse.Namespace, folder: Path, address: str) -> None:
    """Print the table."""
    yardstick = await bare_store(folder, 2000)
    print(f"yardstick: {yardstick:,.0f} fsynced script round trips/s, one at a time")
    print(f"{'tasks a message':>16} {'submit/s':>10} {'ratio':>6} {'done/s':>10} {'ratio':>6}")
    for batch in options.batches:
        submitted, done = await drain(address, options.tasks, options.workers, options.slots, batch)
        print(f"{batch:>16} {submitted:>10,.0f} {submitted / yardstick:>6.2f} {done:>10,.0f} {done / yardstick:>6.2f}")
    median, high = await latency(address, 500)
    print(f"submit -> acknowledged result, idle: median {median:.2f} ms, 99th percentile {high:.2f} ms")


def main() -> None:
    """Parse, run, clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 100])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as scratch:
        process, address = start_master(Path(scratch))
        try:
            asyncio.run(measure(options, Path(scratch), address))
        finally:
            process.terminate()
            process.wait(timeout=30)


if __name__ == "__main__":
    main()
