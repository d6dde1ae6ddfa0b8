"""The examples, as a reader would run them: against a real master and a real worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.client import Client
from tenure.client.demo.processes import Fleet
from tenure.common.states import TaskState

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        fleet.start_master().wait_ready()
        yield fleet


def run(example: str, fleet: Fleet, *arguments: str) -> str:
    environment = {**os.environ, "TENURE_MASTER": fleet.master.facts["grpc"]}
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.torch
@pytest.mark.slow
def test_first_search(fleet: Fleet) -> None:
    pytest.importorskip("torch")
    fleet.start_worker().wait_ready()
    lines = run("first_search.py", fleet).splitlines()
    assert len(lines) == 3
    for line in lines:
        assert "parameters: accuracy 0." in line


def test_custom_evaluator(fleet: Fleet) -> None:
    fleet.start_worker("--evaluator", "custom_evaluator:evaluate", "--python-path", str(EXAMPLES)).wait_ready()
    output = run("custom_evaluator.py", fleet)
    assert output.startswith("best of 6: 0.0")
    # A second run of the program finds the results that are there.
    assert run("custom_evaluator.py", fleet) == output


def test_shipped_code(fleet: Fleet) -> None:
    fleet.start_worker("--accept-code", "--evaluator", "evaluators:noop", "--python-path", str(TESTS)).wait_ready()
    output = run("shipped_code/search.py", fleet)
    assert output.startswith("best of 6: degree 12, error 0.0")
    assert run("shipped_code/search.py", fleet) == output


def test_replay_search(fleet: Fleet) -> None:
    """Hundreds of tasks take seconds, and the search finds one of the best of the table's 15,625 cells."""
    replay = pytest.importorskip("tenure.worker.replay")
    pytest.importorskip("optuna")
    fleet.start_worker("--evaluator", "tenure.worker.replay:nasbench201", "--slots", "2").wait_ready()
    line = run("replay_search.py", fleet, "--tasks", "200")
    percent = float(line.removeprefix("best: ").partition(" ")[0])
    best = replay.best_fitness("cifar10")
    # 69 of all cells are within half a point of the best.
    assert best - 0.5 <= percent <= best + 0.005
    with Client(fleet.master.facts["grpc"]) as client:
        tasks = list(client.search("replay-cifar10-0").tasks())
    assert {task.state for task in tasks} == {TaskState.SUCCEEDED}
    # The rest were cells that the sampler had asked for before.
    assert 100 < len(tasks) <= 200
