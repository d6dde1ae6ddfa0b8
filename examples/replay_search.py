"""An architecture search in seconds: Optuna's TPE over NAS-Bench-201, whose 15,625 cells others have trained already.

    tenure master
    tenure worker --slots 2 --evaluator tenure.worker.replay:nasbench201     (pip install 'tenure[replay]')
    python examples/replay_search.py --tasks 300                             (pip install 'tenure[search]')

Good for trying out a search strategy, or Tenure itself: kill what you like while it runs, and start the program again.
Give it `--seconds-per-epoch 0.05` for evaluations that take as long as real ones in a small way.
"""

from __future__ import annotations

import argparse
import sys
import time

import optuna
from optuna.trial import Trial

from tenure.client import Client
from tenure.client.optuna_search import OptunaSearch

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ("0→1", "0→2", "1→2", "0→3", "1→3", "2→3")


def cell(trial: Trial) -> dict[str, list[str]]:
    """One operation for each of the cell's six edges."""
    return {"operations": [trial.suggest_categorical(edge, OPERATIONS) for edge in EDGES]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=300, help="cells to look at (default: 300)")
    parser.add_argument("--dataset", default="cifar10", help="cifar10, cifar100 or imagenet16-120 (default: cifar10)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampler (default: 0)")
    parser.add_argument("--seconds-per-epoch", default="0", help="of 200 epochs (default: 0)")
    parser.add_argument("--parallelism", type=int, default=8, help="tasks in flight (default: 8)")
    arguments = parser.parse_args()

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=arguments.seed, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    config = {"dataset": arguments.dataset, "extra": {"seconds_per_epoch": arguments.seconds_per_epoch}}
    started = time.monotonic()
    with Client() as client:  # $TENURE_MASTER, else 127.0.0.1:50051
        # Format json: a cell is no graph, and nobody but the evaluator reads it.
        search = client.search(f"replay-{arguments.dataset}-{arguments.seed}", architecture_format="json")
        driver = OptunaSearch(search, cell, study, config=config, parallelism=arguments.parallelism)
        driver.run(trials=arguments.tasks)
    print(f"{len(study.trials)} cells in {time.monotonic() - started:.1f} s", file=sys.stderr)
    print(f"best: {study.best_value:.2f} % by {[study.best_params[edge] for edge in EDGES]}")


if __name__ == "__main__":
    main()
