"""Two real workers: what the executor of one died of is tried by the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.client import Client
from tenure.client.demo.processes import Fleet

TESTS = Path(__file__).resolve().parents[1]
GRAPH = {"nodes": [{"id": "a", "operation": "dense", "params": {"units": 10}}]}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        fleet.start_master().wait_ready()
        workers = [
            fleet.start_worker("--evaluator", "evaluators:evaluate", "--python-path", str(TESTS)) for _ in range(2)
        ]
        for worker in workers:
            worker.wait_ready()
        yield fleet


@pytest.mark.long
def test_a_lost_task_goes_to_the_other_worker(fleet: Fleet) -> None:
    with Client(fleet.master.facts["grpc"]) as client:
        search = client.search("avoid")
        # Long enough for the master to know of both workers; then each of the first two holders' executors dies.
        extra = {"seconds": "3", "steps": "3", "fate": "exit", "fate_epochs": "1,2"}
        handle = search.submit(GRAPH, {"extra": extra})
        assert handle.result(timeout=90).metrics
        first, second, third = handle.record(full=True).attempt_records
    assert [each.outcome for each in (first, second, third)] == ["loss", "loss", "success"]
    assert first.worker_id != second.worker_id != third.worker_id
