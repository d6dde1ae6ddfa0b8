#!/usr/bin/env python3
"""What workers that all come back at once after a restart of the master cost everybody else.

One real master with its embedded store; one process with many sessions, each the worker's own code (link, stream,
holdings) over slots that only wait and a spool in memory; and one client that submits and asks at a steady pace. Then
the master is killed (SIGKILL) and started again on the same port and data directory, round after round.

Each session holds one long lease all the time, and the load keeps others busy for a second or two each. The client's
calls keep to their timetable whatever happens: what is due while the master is away is asked then, and waits.

    get               from when a GetTasks of one task was due until its answer
    submit -> result  from when a Submit of one task, evaluated in no time, was due until a watching client hears that
                      it succeeded: submit, claim, complete and watch

The last columns take the p99 of each second of each round by itself, and their median over the rounds: what a return
of the workers does to everybody shows in every round, a stall of the machine in one.

Exit status 1 if any lease was lost: expired, revoked, or an outcome refused.

Everything runs on this machine at once, the workers in one Python process: with few cores part of what is measured is
their own work. Only the comparison of the seconds after a restart with the steady state before it means something.

Examples:
    bench/herd.py                                  # 3 rounds, 200 workers
    bench/herd.py --rounds 20                      # for figures
    bench/herd.py --workers 50 --tasks-per-second 20 --outage-seconds 10
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import grpc
import grpc.aio
from parts.figures import LISTEN, percentile, progress
from parts.herd_client import CHANNEL_OPTIONS, Client

from tenure.proto import tenure_pb2, tenure_pb2_grpc

# The tests know how to start, kill and restart a master.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from processes import MasterProcess, eventually, start_master

WORKERS = Path(__file__).resolve().parent / "parts" / "herd_workers.py"
# Calls that are due just before the kill may not be answered before it: they belong to the outage.
MARGIN_SECONDS = 0.5
# A p99 counts as back at the steady one when it is this close to it.
TOLERANCE = 1.25
DEADLINE_SECONDS = 120.0


class Herd:
    """The process with the workers.

    Attributes:
        ups: When each welcome was heard.
        lost: What was lost, and how often.
    """

    def __init__(self, master: str, workers: int, slots: int) -> None:
        self.ups: list[float] = []
        self.lost: Counter[str] = Counter()
        self._words = [str(WORKERS), master, "--workers", str(workers), "--slots", str(slots)]

    async def run(self) -> None:
        """Read what it tells until cancelled; it is gone on return."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *self._words, stdout=asyncio.subprocess.PIPE, env=environment
        )
        try:
            while line := await process.stdout.readline():
                message = json.loads(line)
                if message["event"] == "up":
                    self.ups.append(message["time"])
                else:
                    self.lost[message["how"]] += 1
            raise SystemExit("the process with the workers has ended")
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


class Account:
    """Samples of all rounds, by when they were due.

    Attributes:
        back_seconds: Of each round: from when the master served again until all workers were back.
    """

    def __init__(self, seconds_after: int) -> None:
        self.back_seconds: list[float] = []
        self._seconds_after = seconds_after
        self._rounds: list[tuple[float, float, float]] = []

    def note_round(self, steady_from: float, killed: float, served: float) -> None:
        """When what was."""
        self._rounds.append((steady_from, killed, served))

    def print(self, name: str, samples: Iterable[tuple[float, float]]) -> None:
        """The table of one kind of call."""
        # By (round, second): a stall of the machine in one round is in all rounds' p99, but not in their median.
        steady: dict[tuple[int, int], list[float]] = defaultdict(list)
        after: list[dict[tuple[int, int], list[float]]] = [defaultdict(list) for _ in range(self._seconds_after)]
        down: dict[tuple[int, int], list[float]] = defaultdict(list)
        for due, seconds in samples:
            for number, (steady_from, killed, served) in enumerate(self._rounds):
                if steady_from <= due < killed - MARGIN_SECONDS:
                    steady[number, int(due - steady_from)].append(seconds)
                elif killed - MARGIN_SECONDS <= due < served:
                    down[number, 0].append(due + seconds - served)
                elif 0 <= due - served < len(after):
                    after[int(due - served)][number, 0].append(seconds)
        usual = usual_p99(steady)
        print(
            f"\n{name:<28} {'calls':>6} {'p50 ms':>8} {'p99 ms':>8} {'worst ms':>9} "
            f"{'p99 of median round':>19} {'/ steady':>8}"
        )
        rows = [("steady, before the kill", steady), ("due while down, since back", down)]
        rows += [(f"second {number + 1} after the restart", bucket) for number, bucket in enumerate(after)]
        for label, bucket in rows:
            everything = [seconds for window in bucket.values() for seconds in window]
            p50, p99, worst = (percentile(everything, percent) * 1000 for percent in (50, 99, 100))
            ratio = "" if bucket is down else f"{usual_p99(bucket) / usual:.2f}"
            print(
                f"{label:<28} {len(everything):>6} {p50:>8.1f} {p99:>8.1f} {worst:>9.1f} "
                f"{usual_p99(bucket) * 1000:>19.1f} {ratio:>8}"
            )
        above = [number + 1 for number, bucket in enumerate(after) if usual_p99(bucket) > TOLERANCE * usual]
        print(f"above {TOLERANCE:g} times the steady p99 in seconds: {', '.join(map(str, above)) or 'none'}")


def usual_p99(windows: Mapping[tuple[int, int], Sequence[float]]) -> float:
    """The median of the windows' 99th percentiles."""
    return percentile([percentile(window, 99) for window in windows.values()], 50)


async def strike(options: argparse.Namespace, master: MasterProcess, herd: Herd, account: Account) -> None:
    """One round: a steady time, the kill, the outage, the time after."""
    steady_from = time.monotonic()
    await asyncio.sleep(options.steady_seconds)
    killed = time.monotonic()
    await asyncio.to_thread(master.kill)
    seen = len(herd.ups)
    await asyncio.sleep(max(0.0, killed + options.outage_seconds - time.monotonic()))
    await asyncio.to_thread(master.restart)
    served = time.monotonic()
    await eventually(lambda: len(herd.ups) >= seen + options.workers, DEADLINE_SECONDS, "all workers are back")
    back = max(herd.ups) - served
    account.back_seconds.append(back)
    account.note_round(steady_from, killed, served)
    progress(f"round {len(account.back_seconds)}: away for {served - killed:.1f} s, all back {back:.1f} s later")
    await asyncio.sleep(max(0.0, served + options.after_seconds - time.monotonic()))


async def measure(options: argparse.Namespace, master: MasterProcess) -> bool:
    """Everything; whether no lease was lost."""
    herd, account = Herd(master.address, options.workers, options.slots), Account(options.after_seconds)
    async with (
        grpc.aio.insecure_channel(master.address, options=CHANNEL_OPTIONS) as channel,
        asyncio.TaskGroup() as group,
    ):
        stub = tenure_pb2_grpc.TenureServiceStub(channel)
        client = Client(stub, options.gets_per_second, options.tasks_per_second)
        background = [group.create_task(herd.run())]

        async def holding_all() -> bool:
            stats = await client.ask("GetStats", tenure_pb2.StatsRequest())
            return bool(stats.leases_live == options.workers)

        for start in range(0, options.workers, 100):
            await client.submit("held", [86400.0] * min(100, options.workers - start))
        await eventually(lambda: len(herd.ups) >= options.workers, DEADLINE_SECONDS, "all workers are connected")
        await eventually(holding_all, DEADLINE_SECONDS, "each worker holds a lease")
        progress(f"{options.workers} workers hold a lease each")
        background.append(group.create_task(client.run()))
        await asyncio.sleep(options.after_seconds)
        for _ in range(options.rounds):
            await strike(options, master, herd, account)
        stats = await client.ask("GetStats", tenure_pb2.StatsRequest())
        for task in background:
            task.cancel()
    return report(options, herd, account, client, stats)


def report(
    options: argparse.Namespace, herd: Herd, account: Account, client: Client, stats: tenure_pb2.StatsResponse
) -> bool:
    """Print; whether no lease was lost."""
    print(
        f"{options.workers} workers, {options.tasks_per_second} tasks a second, {options.rounds} restarts after "
        f"{options.outage_seconds:g} s each"
    )
    account.print("get", client.gets)
    account.print("submit -> result", client.results)
    back = account.back_seconds
    print(
        f"\nall {options.workers} workers back, since the master served: median {percentile(back, 50):.1f} s, "
        f"worst {max(back):.1f} s"
    )
    lost = Counter(herd.lost)
    if expired := stats.counters["leases_expired"]:
        lost["expired"] = expired
    print(f"leases lost: {lost.total()} {dict(lost) or ''}")
    return not lost


def main() -> None:
    """Parse, run, clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="restarts (3)")
    parser.add_argument("--workers", type=int, default=200, help="sessions (200)")
    parser.add_argument("--slots", type=int, default=4, help="slots of each worker (4)")
    parser.add_argument("--tasks-per-second", type=int, default=80, help="load: tasks of one to two seconds (80)")
    parser.add_argument("--gets-per-second", type=int, default=150, help="measured unary calls (150)")
    parser.add_argument("--steady-seconds", type=float, default=10.0, help="measured before each kill (10)")
    parser.add_argument("--outage-seconds", type=float, default=3.0, help="from the kill to the start (3)")
    parser.add_argument("--after-seconds", type=int, default=10, help="measured after each restart (10)")
    options = parser.parse_args()
    for name, value in vars(options).items():
        if value <= 0:
            parser.error(f"--{name.replace('_', '-')} {value}: must be above 0")
    with tempfile.TemporaryDirectory(prefix="tenure-herd-") as scratch:
        master = start_master(Path(scratch), listen=LISTEN, log_level="warning")
        try:
            # The client's own pauses are not the master's.
            gc.collect()
            gc.freeze()
            kept = asyncio.run(measure(options, master))
        finally:
            master.remove()
    raise SystemExit(0 if kept else 1)


if __name__ == "__main__":
    main()
