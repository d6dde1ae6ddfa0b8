#!/usr/bin/env python3
"""What checkpoints cost a training: how long a save holds it up, and what all of them together take.

    stall      one save of a checkpoint beside a plain torch.save of the same state to the same disk, in turns; states
               of 1, 50 and 500 MB. A checkpoint is checked, hashed and fsynced; torch.save does none of that.
    overhead   the built-in evaluator with checkpoints and without, in turns: at the default policy, and as it is on a
               worker that loses its runs so often that only the allowance (1 %) holds checkpoints back

A training that meets no loss for a day writes few checkpoints, so the second kind of run is the one that could show
more than the allowance. What differs between runs without any checkpoint is the noise.

Examples:
    bench/checkpoint.py                            # some ten minutes
    bench/checkpoint.py stall --rounds 20          # these alone, for figures
    bench/checkpoint.py overhead --pairs 8 --epochs 40
    bench/checkpoint.py --directory /mnt/nfs/tmp   # another disk than that of the temporary files
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from parts import checkpoint_overhead, checkpoint_stalls
from parts.figures import progress

from tenure.worker.checkpoint.interval import CheckpointPolicy

SIZES_MEGABYTES = (1, 50, 500)
PERILOUS_SECONDS = 60.0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="What checkpoints cost a training.",
        epilog="\n".join((__doc__ or "").split("\n\n")[-1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="stall|overhead", help="default: both")
    parser.add_argument("--rounds", type=int, default=10, help="of each size of state (default: 10)")
    parser.add_argument("--pairs", type=int, default=5, help="of runs with and without checkpoints (default: 5)")
    parser.add_argument("--epochs", type=int, default=16, help="of each run (default: 16)")
    parser.add_argument(
        "--units", type=int, default=256, help="of the dense layer: the size of the state (default: 256)"
    )
    parser.add_argument("--directory", type=Path, default=None, help="where checkpoints are written")
    options = parser.parse_args(arguments)
    options.parts = options.parts or ["stall", "overhead"]
    for part in options.parts:
        if part not in ("stall", "overhead"):
            parser.error(f"{part!r} is no part: give stall, overhead, or none for both")
    if min(options.rounds, options.pairs, options.epochs, options.units) < 1:
        parser.error("--rounds, --pairs, --epochs and --units are at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="tenure-bench-", dir=options.directory) as place:
        if "stall" in options.parts:
            stalls(Path(place), options.rounds)
        if "overhead" in options.parts:
            overhead(Path(place), options)


def stalls(directory: Path, rounds: int) -> None:
    """Print one line for each size."""
    print(checkpoint_stalls.HEADER)
    for megabytes in SIZES_MEGABYTES:
        progress(f"saving {megabytes} MB …")
        print(checkpoint_stalls.measure(directory, megabytes, rounds).line(), flush=True)


def overhead(directory: Path, options: argparse.Namespace) -> None:
    """Print what both policies cost."""
    for title, policy in (
        ("the default policy, one loss in 24 hours", CheckpointPolicy()),
        (
            f"one loss in {PERILOUS_SECONDS:g} s, held back by the allowance of 1 %",
            CheckpointPolicy(mean_seconds_between_losses=PERILOUS_SECONDS),
        ),
    ):
        progress(f"training: {title} …")
        turns = checkpoint_overhead.measure(
            directory, policy, epochs=options.epochs, units=options.units, pairs=options.pairs
        )
        print(f"\n{title}")
        for line in turns.lines():
            print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
