#!/usr/bin/env python3
"""How long a slot's device stands idle between two tasks while there is a backlog.

One real master with its embedded store (strict durability), one real worker, tasks enough to keep it busy. The gap is
from the moment an evaluator returns to the moment the next task's evaluator is called, in the same executor: the result
is on the worker's disk and at the master, the next task has come down, and what the first left has been cleared away.

    light    evaluations that only wait, so that the gap is Tenure's own
    torch    trainings of a small network by the built-in evaluator, with what torch leaves to clear away

Exit status 1 if the median is above --median-ms-max.

Examples:
    bench/idle_gap.py
    bench/idle_gap.py --tasks 2000 --slots 2
    bench/idle_gap.py --evaluator torch --tasks 50
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import sys
import tempfile
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import grpc.aio
from parts.figures import LISTEN, percentile, progress
from parts.gap_evaluator import NOTES

from tenure.proto import tenure_pb2, tenure_pb2_grpc

# The tests know how to start masters and workers.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from processes import MasterProcess, eventually, start_master
from worker_process import TESTS, WorkerProcess

PARTS = Path(__file__).resolve().parent / "parts"
DEADLINE_SECONDS = 1800.0
NETWORK = {
    "nodes": [{"id": "f", "operation": "flatten"}, {"id": "d", "operation": "dense", "parameters": {"units": 32}}],
    "edges": [{"id": "e", "source_id": "f", "target_id": "d"}],
}


async def submit(stub: Any, options: argparse.Namespace) -> None:
    """The backlog."""
    config = tenure_pb2.Config(extra={"seconds": str(options.seconds)})
    if options.evaluator == "torch":
        config = tenure_pb2.Config(num_epochs=1, batch_size=256, learning_rate=0.01, dataset="digits")
    for start in range(0, options.tasks, 100):
        tasks = [
            tenure_pb2.TaskSpec(key=f"t{number}", architecture=json.dumps(NETWORK), config=config)
            for number in range(start, min(start + 100, options.tasks))
        ]
        await stub.Submit(tenure_pb2.SubmitRequest(search="bench", tasks=tasks))


async def measure(options: argparse.Namespace, master: MasterProcess, scratch: Path) -> bool:
    """Everything; whether the median is good enough."""
    notes = scratch / "notes.jsonl"
    os.environ[NOTES] = str(notes)
    worker = WorkerProcess(scratch)
    async with grpc.aio.insecure_channel(master.address) as channel:
        stub = tenure_pb2_grpc.TenureServiceStub(channel)
        await submit(stub, options)
        progress(f"{options.tasks} tasks wait")
        try:
            await worker.start(
                master.address,
                evaluator=f"gap_evaluator:{options.evaluator}",
                python_path=f"{PARTS}:{TESTS}",
                slots=options.slots,
                log_level="warning",
            )

            async def done() -> bool:
                search = await stub.GetSearch(tenure_pb2.SearchName(name="bench"))
                ended = sum(search.tasks.get(state, 0) for state in ("SUCCEEDED", "FAILED"))
                return bool(ended == options.tasks)

            await eventually(done, DEADLINE_SECONDS, "all tasks have ended")
            buckets = await asyncio.to_thread(scraped, worker.ready["http"])
        finally:
            await worker.destroy()
    return report(options, gaps_in(notes), buckets)


def gaps_in(notes: Path) -> list[float]:
    """Seconds between the runs of each executor, without the first few, which fill caches."""
    runs = defaultdict(list)
    for line in notes.read_text().splitlines():
        note = json.loads(line)
        runs[note["pid"]].append((note["began"], note["ended"]))
    gaps = []
    for of_executor in runs.values():
        ordered = sorted(of_executor)
        gaps += [after[0] - before[1] for before, after in itertools.pairwise(ordered[3:])]
    return gaps


def scraped(http: str) -> dict[str, float]:
    """The worker's own histogram of its gaps: count by upper bound."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    prefix = 'tenure_worker_idle_gap_seconds_bucket{le="'
    return {
        line.removeprefix(prefix).partition('"')[0]: float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(prefix)
    }


def report(options: argparse.Namespace, gaps: list[float], buckets: dict[str, float]) -> bool:
    """Print; whether the median is good enough."""
    figures = [percentile(gaps, percent) * 1000 for percent in (50, 90, 99, 100)]
    print(f"{options.tasks} tasks ({options.evaluator}), {options.slots} slots: {len(gaps)} gaps between evaluations")
    print("{:>10} {:>10} {:>10} {:>10}".format("median ms", "p90 ms", "p99 ms", "worst ms"))
    print("{:>10.2f} {:>10.2f} {:>10.2f} {:>10.2f}".format(*figures))
    total = buckets.get("+Inf", 0)
    if total:
        shares = ", ".join(
            f"{100 * buckets[bound] / total:.0f} % within {bound} s" for bound in ("0.01", "0.02", "0.05")
        )
        print(f"tenure_worker_idle_gap_seconds of the same runs: {shares}")
    return figures[0] <= options.median_ms_max


def main() -> None:
    """Parse, run, clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=500, help="the backlog (500)")
    parser.add_argument("--slots", type=int, default=1, help="of the worker (1)")
    parser.add_argument("--seconds", type=float, default=0.01, help="each light evaluation takes (0.01)")
    parser.add_argument("--evaluator", choices=("light", "torch"), default="light", help="what evaluates (light)")
    parser.add_argument("--median-ms-max", type=float, default=20.0, help="above it: exit status 1 (20)")
    options = parser.parse_args()
    for name in ("tasks", "slots", "median_ms_max"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)}: must be above 0")
    with tempfile.TemporaryDirectory(prefix="tenure-gap-") as scratch:
        master = start_master(Path(scratch), listen=LISTEN, log_level="warning")
        try:
            good = asyncio.run(measure(options, master, Path(scratch)))
        finally:
            master.remove()
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
