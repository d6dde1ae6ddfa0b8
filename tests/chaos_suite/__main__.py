"""``make chaos SEEDS=N``: runs seeded schedules of faults, one after the other, and judges each.

Exit status: 0 all invariants held, 1 one broke, 2 bad arguments, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from chaos_suite.checker import COUNTS, check
from chaos_suite.history import read_lines, tell
from chaos_suite.plan import STRIKES_DEFAULT
from chaos_suite.run import SeedReport, kinds_here, plan_of, run_seed
from chaos_suite.scene import KINDS
from chaos_suite.table import fault_table

EXAMPLES = """examples:
  make chaos SEEDS=50                              seeds 1 to 50
  make chaos SEEDS=17-17                           seed 17 alone: the same faults in the same order
  make chaos SEEDS=1-1000 MINUTES=30               as many as 30 minutes have room for
  make chaos SEEDS=5 FAULTS=store_kill,cancel      only these kinds
  make chaos SEEDS=1 ARGS=--list                   every kind of fault and what it does
"""


def seeds_of(text: str) -> range:
    """``50`` is 1 to 50, ``7-9`` is 7, 8 and 9."""
    first, dash, last = text.partition("-")
    try:
        seeds = range(int(first), int(last) + 1) if dash else range(1, int(first) + 1)
    except ValueError:
        seeds = range(0)
    if not seeds or seeds[0] < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of seeds: give 50 (1 to 50), or 7-9")
    return seeds


def kinds_of(text: str) -> list[str]:
    """Names of kinds, separated by commas."""
    names = sorted({name.strip() for name in text.split(",") if name.strip()})
    unknown = [name for name in names if name not in KINDS]
    if unknown or not names:
        what = ", ".join(unknown) or repr(text)
        raise argparse.ArgumentTypeError(f"no kind of fault is called {what}; --list tells all")
    return names


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos_suite",
        description="Strike real clusters by seeded schedules, and prove that nothing is lost or taken twice.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("10"), metavar="N|A-B", help="default: 10 (1 to 10)")
    parser.add_argument("--minutes", type=float, metavar="M", help="begin no seed after so many minutes")
    parser.add_argument("--faults", type=kinds_of, metavar="KIND[,KIND…]", help="default: all that can strike here")
    parser.add_argument(
        "--strikes", type=int, default=STRIKES_DEFAULT, metavar="N", help="a seed (default: %(default)s)"
    )
    parser.add_argument("--logs", type=Path, metavar="DIR", help="where seeds that fail leave their logs")
    parser.add_argument("--keep", action="store_true", help="keep the logs of seeds that went well, too")
    parser.add_argument("--judge", type=Path, metavar="FILE", help="judge a kept history.jsonl again, and end")
    parser.add_argument("--list", action="store_true", help="list the kinds of faults and end")
    given = parser.parse_args(arguments)
    if given.strikes < 1:
        parser.error(f"--strikes {given.strikes}: give at least 1")
    if given.minutes is not None and not given.minutes > 0:
        parser.error(f"--minutes {given.minutes:g}: give more than 0")
    if given.logs and given.logs.exists() and any(given.logs.iterdir()):
        parser.error(f"argument --logs: {given.logs} is not empty: name a new directory")
    return given


def main() -> int:
    """The program."""
    given = parse()
    if given.list:
        for name, kind in sorted(KINDS.items()):
            _say(f"{name:<24} {(kind.strike.__doc__ or '').strip().splitlines()[0]}")
        return 0
    if given.judge:
        events = read_lines(given.judge)
        for line in (*tell(events), *check(events)):
            _say(str(line))
        return 1 if check(events) else 0
    # What the clients in here have to wait for is part of the story, not of the screen.
    logging.getLogger("tenure.client").setLevel(logging.ERROR)
    # Sockets below it need a short path.
    logs = given.logs or Path(tempfile.mkdtemp(prefix="tenure-chaos-"))
    kinds = kinds_here()
    absent = sorted(set(given.faults or KINDS) - set(kinds))
    if absent:
        _say(f"cannot strike here (a tmpfs can't be mounted): {', '.join(absent)}")
    if given.faults:
        kinds = [kind for kind in given.faults if kind in kinds]
        if not kinds:
            return 2
    reports: list[SeedReport] = []
    started = time.monotonic()
    # The seed that runs is taken down first, with its processes and mounts. A background process of a shell begins
    # with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for seed in given.seeds:
            if given.minutes and time.monotonic() - started > 60 * given.minutes:
                break
            report = asyncio.run(run_seed(plan_of(seed, kinds, given.strikes), logs / str(seed), keep=given.keep))
            reports.append(report)
            _print_seed(report, given)
            # Of a thousand seeds only the figures stay in memory.
            report.events.clear()
    except KeyboardInterrupt:
        _say("interrupted")
        _print_end(reports, time.monotonic() - started)
        return 130
    _print_end(reports, time.monotonic() - started)
    return 1 if any(report.violations for report in reports) else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _print_seed(report: SeedReport, given: argparse.Namespace) -> None:
    plan = report.plan
    struck = Counter(recovery.kind for recovery in report.recoveries if not recovery.kind.startswith("fate_"))
    shape = f"{plan.store} store, {plan.masters} master{'s' if plan.masters > 1 else ''}, {len(plan.slots)} workers"
    verdict = "FAILED" if report.violations else "ok"
    took = f"seed {plan.seed:<5} {report.seconds:6.1f} s  {struck.total():2} strikes  {report.tasks:4} tasks"
    _say(f"{took}  {shape:<36} {verdict}")
    if not report.violations:
        return
    for violation in report.violations[:20]:
        _say(f"    {violation}")
    if len(report.violations) > 20:
        _say(f"    … and {len(report.violations) - 20} more")
    for line in tell(report.events):
        _say(f"    {line[:200]}")
    _say(f"    logs and history: {report.folder}")
    narrowed = f" FAULTS={','.join(given.faults)}" if given.faults else ""
    narrowed += f" ARGS='--strikes {given.strikes}'" if given.strikes != STRIKES_DEFAULT else ""
    _say(f"    replay: make chaos SEEDS={plan.seed}-{plan.seed}{narrowed}")


def _print_end(reports: list[SeedReport], seconds: float) -> None:
    _say("")
    for line in fault_table([recovery for report in reports for recovery in report.recoveries]):
        _say(line)
    tasks = sum(report.tasks for report in reports)
    slowest = max((report.drain_seconds for report in reports), default=0.0)
    totals = Counter(violation.count for report in reports for violation in report.violations)
    failed = [str(report.plan.seed) for report in reports if report.violations]
    _say("")
    drained = f"queues drained within {slowest:.1f} s"
    _say(f"{len(reports)} seeds in {seconds / 60:.1f} min, {tasks} tasks, {drained}")
    _say(", ".join(f"{totals[name]} {name}" for name in COUNTS))
    if failed:
        _say(f"failed seeds: {', '.join(failed)}")


if __name__ == "__main__":
    sys.exit(main())
