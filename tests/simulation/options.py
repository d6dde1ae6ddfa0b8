"""What a simulation can be told."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields

FAULTS = ("crashes", "waves", "partitions", "pauses", "drains", "master", "masters", "store", "clock")
EXAMPLES = """examples:
  make simulate                                              # 10,000 workers, 1,000,000 tasks, 30 days: an hour or two
  make simulate ARGS="--days 6"                              # 6 days, as in docs/simulation.md: half an hour
  make simulate ARGS="--workers 500 --tasks 20000 --days 3"  # a minute
  make simulate ARGS="--faults waves,masters --seed 7"       # only these faults
  make simulate ARGS="--routine all --workers 50 --tasks 2000 --days 0.1"  # every heartbeat and checkpoint really sent
"""


@dataclass(frozen=True)
class Options:
    """One simulation.

    Attributes:
        workers, tasks: How many.
        seed: Of everything that is drawn; the same seed gives the same world and the same faults.
        days: The time in which faults strike; what there is to compute fills it to ``load``.
        load: The part of all slots' time that the tasks need, were there no faults.
        masters: How many share the store.
        routine: ``elided``: a healthy worker's heartbeats and checkpoints are written only where they come to matter;
            ``all``: each of them is sent.
        faults: Which kinds strike.
    """

    workers: int = 10_000
    tasks: int = 1_000_000
    seed: int = 1
    days: float = 30.0
    load: float = 0.75
    masters: int = 3
    routine: str = "elided"
    faults: tuple[str, ...] = FAULTS


def parse(arguments: list[str] | None = None) -> Options:
    """From a command line; a value that can't be right ends the program with what would be."""
    parser = argparse.ArgumentParser(
        prog="make simulate",
        description="Simulate Tenure over virtual time with the real Lua scripts; print what it cost and prove that "
        "nothing was lost.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = Options()
    parser.add_argument("--workers", type=int, default=defaults.workers, help="how many (default %(default)s)")
    parser.add_argument("--tasks", type=int, default=defaults.tasks, help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of all that is drawn (default %(default)s)")
    parser.add_argument(
        "--days", type=float, default=defaults.days, help="in which faults strike (default %(default)s)"
    )
    parser.add_argument(
        "--load", type=float, default=defaults.load, help="part of the slots' time needed (%(default)s)"
    )
    parser.add_argument("--masters", type=int, default=defaults.masters, help="1 to 3 (default %(default)s)")
    parser.add_argument(
        "--routine", choices=("elided", "all"), default=defaults.routine, help="heartbeats, checkpoints"
    )
    parser.add_argument("--faults", default=",".join(FAULTS), help="kinds, or none (default %(default)s)")
    given = vars(parser.parse_args(arguments))
    given["faults"] = () if given["faults"] == "none" else tuple(given["faults"].split(","))
    unknown = set(given["faults"]) - set(FAULTS)
    if unknown:
        parser.error(f"argument --faults: {', '.join(sorted(unknown))}: give some of {', '.join(FAULTS)}, or none")
    for name, least, most in (
        ("workers", 10, 100_000),
        ("tasks", 100, 10_000_000),
        ("days", 0.01, 366),
        ("load", 0.01, 1.0),
        ("masters", 1, 3),
    ):
        if not least <= given[name] <= most:
            parser.error(f"argument --{name}: {given[name]}: give {least} to {most:,}")
    return Options(**{each.name: given[each.name] for each in fields(Options)})
