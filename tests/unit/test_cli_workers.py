"""``tenure workers list`` and ``show`` of workers that are heard and that are not."""

from __future__ import annotations

import pytest

from tenure.client.broker_records import WorkerRecord
from tenure.client.cli.worker_page import print_worker
from tenure.client.cli.workers import _row
from tenure.proto import tenure_pb2


def worker(status: str, leases: int) -> WorkerRecord:
    """One that said last that both its slots were busy, with all of its CPU."""
    slots = [tenure_pb2.SlotStatus(slot=number, state="running", task_id=f"task-{number}") for number in range(2)]
    message = tenure_pb2.Worker(worker_id="w1", status=status, mode="active", slots=2, slots_busy=2, leases=leases)
    message.cpu_percent, message.memory_percent, message.last_seen_ms_ago = 100, 40, 480_000
    message.slot_list.extend(slots)
    return WorkerRecord.from_message(message)


@pytest.mark.parametrize("status", ["silent", "gone"])
def test_one_that_is_not_heard_is_busy_by_its_leases_and_its_figures_are_old(
    status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = worker(status, leases=0)
    row = _row(lost)
    assert "0/2" in row
    assert not [text for text in row if "%" in text]
    assert "8 m 0 s ago" in row
    print_worker(lost)
    page = capsys.readouterr().out
    assert f"{status}, last heard 8 m 0 s ago" in page
    assert "0 of 2 busy" in page
    assert "CPU 100 %, memory 40 %, as it said 8 m 0 s ago" in page
    assert page.index("As it said 8 m 0 s ago") < page.index("task-0")


def test_one_that_is_heard_has_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    live = worker("live", leases=1)
    assert {"1/2", "100 %", "40 %"} <= set(_row(live))
    print_worker(live)
    page = capsys.readouterr().out
    assert "1 of 2 busy" in page
    assert "as it said" not in page.lower()
