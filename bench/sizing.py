#!/usr/bin/env python3
"""The constants that docs/operations.md reckons sizes with: bytes and processor seconds of everything that grows.

A real store, a real master, the scripts of ops/ as an operator runs them. Bytes are the same on any machine; seconds
are this machine's, which is described in the first line: repeat them on yours.

Examples:
    bench/sizing.py                                    # all parts: ten minutes
    bench/sizing.py --parts store --tasks 5000         # bytes of tasks in the store: half a minute
    bench/sizing.py --parts master --workers 100
    bench/sizing.py --parts backup --backup-tasks 1000000
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import subprocess
import sys
from pathlib import Path

import psutil

# The tests know how to start a server and a master, and how to lead a task through its life.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from parts.sizing_backup import measure_backup
from parts.sizing_master import measure_master
from parts.sizing_store import CHECKPOINTS_EACH, measure_store

from tenure.master.store.embedded import find_server

PARTS = ("store", "master", "backup")


def machine() -> str:
    """This one, in words."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    version = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=True).stdout
    server = version.split(" sha=")[0].strip()
    memory = psutil.virtual_memory().total / 1e9
    load = psutil.getloadavg()[0]
    return (
        f"{psutil.cpu_count()} cores of {model}, {memory:.0f} GB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {server}; load {load:.1f} before"
    )


async def print_store(tasks: int) -> None:
    """What tasks cost the store."""
    costs, (before, after) = await measure_store(tasks)
    print(f"\nstore: {tasks:,} tasks through their life, and as many that wait")
    print(f"{'each':<50} {'memory B':>10} {'file B':>10}")
    for cost in costs:
        print(f"{cost.what:<50} {cost.memory:>10,.0f} {cost.log:>10,.0f}")
    print(
        f"append-only file: {before / 1e6:,.1f} MB, rewritten {after / 1e6:,.1f} MB: {before / after:.1f} times smaller"
    )
    print(f"(each task had {CHECKPOINTS_EACH} checkpoints, of which the store keeps two and the best)")


async def print_master(tasks: int, workers: int, seconds: float) -> None:
    """What calls cost a master."""
    spent, resting, footprint = await measure_master(tasks, workers, seconds)
    print(f"\nmaster: processor seconds ({workers} workers, {tasks:,} tasks)")
    print(f"{'for':<50} {'master':>10} {'store':>10}")
    print(f"{'1,000 s of nothing to do':<50} {resting[0] * 1000:>10.1f} {resting[1] * 1000:>10.1f}")
    for each in spent:
        print(f"{each.what:<50} {each.master:>10.2f} {each.store:>10.2f}")
    print(f"resident memory of the master at the end: {footprint.master_bytes / 1e6:,.0f} MB")
    print(f"samples a scrape: master {footprint.master_series:,}, worker with two slots {footprint.worker_series:,}")


async def print_backup(tasks: int) -> None:
    """How long the scripts take."""
    took = await measure_backup(tasks)
    print(f"\nbackup: a store with {tasks:,} tasks")
    print(f"{'what':<50} {'MB':>8} {'wall s':>8} {'wall s/GB':>10} {'CPU s/GB':>10}")
    for each in took:
        gb = each.size_bytes / 1e9
        cpu = f"{each.cpu_seconds / gb:,.0f}" if each.cpu_seconds else ""
        print(f"{each.what:<50} {gb * 1000:>8,.0f} {each.seconds:>8.2f} {each.seconds / gb:>10,.0f} {cpu:>10}")


async def measure(options: argparse.Namespace) -> None:
    """Print the tables."""
    print(machine())
    if "store" in options.parts:
        await print_store(options.tasks)
    if "master" in options.parts:
        await print_master(options.tasks, options.workers, options.seconds)
    if "backup" in options.parts:
        await print_backup(options.backup_tasks)


def main() -> None:
    """Parse, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=200, help="that renew one lease each second")
    parser.add_argument("--seconds", type=float, default=30.0, help="for which they do")
    parser.add_argument("--backup-tasks", type=int, default=100_000)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
