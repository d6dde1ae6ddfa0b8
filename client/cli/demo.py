"""``tenure demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    trials: Annotated[int, typer.Option("--trials", metavar="N", min=1, max=1000, help="Architectures to try.")] = 18,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, max=64, help="Worker processes.")] = 2,
    chaos: Annotated[bool, typer.Option("--chaos/--no-chaos", help="Kill a worker and the master on the way.")] = True,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Where the store and logs go. Default: a temporary directory."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the search.")] = 0,
) -> None:
    """Watch a real architecture search go through Tenure, with a worker and the master killed on the way.

    Starts a master with its embedded store and workers as processes of this machine, lets Optuna search a space of
    convolutional networks on scikit-learn's digits, sends SIGKILL to a worker in the middle of a training and to the
    master, and ends with the best architectures and an account of every task, read from the broker. Needs the demo
    extra: pip install 'tenure[demo]'.

    Exit code 0 if nothing was lost, nothing was evaluated twice, the killed worker's task went on from its
    checkpoint, and the best accuracy on held-out data is at least 0.97; 1 otherwise, saying which promise broke.

    \b
    Examples:
      tenure demo
      tenure demo --trials 40 --workers 4
      tenure demo --no-chaos
    """
    from tenure.client.demo import DemoOptions, run_demo

    raise typer.Exit(run_demo(DemoOptions(trials=trials, workers=workers, chaos=chaos, data_dir=data_dir, seed=seed)))
