"""Faults at their full length and at default settings, and what each of them costs: ``make acceptance``.

Each test prints one line with what it measured. The environment shortens them: TENURE_TEST_OUTAGE_SECONDS (default
600), TENURE_TEST_FREEZE_SECONDS (60), TENURE_TEST_GIL_SECONDS (90), TENURE_TEST_SILENCE_SECONDS (60), and
TENURE_TEST_LEASE_SECONDS (the default lease, 30), which should stay below all of these.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cluster import ARCHITECTURE, Cluster
from command_line import CommandLine
from processes import eventually

LEASE_SECONDS = float(os.environ.get("TENURE_TEST_LEASE_SECONDS", "30"))
OUTAGE_SECONDS = float(os.environ.get("TENURE_TEST_OUTAGE_SECONDS", "600"))
FREEZE_SECONDS = float(os.environ.get("TENURE_TEST_FREEZE_SECONDS", "60"))
GIL_SECONDS = float(os.environ.get("TENURE_TEST_GIL_SECONDS", "90"))
SILENCE_SECONDS = float(os.environ.get("TENURE_TEST_SILENCE_SECONDS", "60"))

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A master at default settings but for the lease's length; workers are added by the test."""
    made = Cluster(tmp_path, lease_ttl_seconds=LEASE_SECONDS, heartbeat_seconds=LEASE_SECONDS / 3)
    try:
        yield made
    finally:
        await made.destroy()


@pytest.fixture
def tenure(cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line on this cluster's master."""
    return CommandLine(cluster.master.address, capsys, monkeypatch)


@pytest.fixture
def account(capsys: pytest.CaptureFixture[str]) -> Any:
    """Prints what a test measured, past pytest's capture: that is what these runs are for."""

    def say(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")
            sys.stdout.flush()

    return say


async def submit_one(cluster: Cluster, search: str, extra: dict[str, str], **fields: Any) -> str:
    """A task of its own search, with budgets; its id."""
    spec = {"architecture": ARCHITECTURE, "config": {"extra": extra}, "key": "only", **fields}
    handles = await asyncio.to_thread(cluster.client.search(search).submit_many, [spec])
    return str(handles[0].task_id)


async def record_of(cluster: Cluster, task_id: str) -> Any:
    return (await cluster.records([task_id]))[task_id]


async def shown(tenure: CommandLine, task_id: str) -> tuple[str, dict[str, Any]]:
    """What ``tenure tasks show`` prints, for people and as JSON."""
    page = await asyncio.to_thread(tenure, "tasks", "show", task_id)
    record = await asyncio.to_thread(tenure, "tasks", "show", task_id, "--output", "json")
    assert (page.code, record.code) == (0, 0)
    return page.out, record.json


async def test_masters_dead_for_ten_minutes_cost_nothing(cluster: Cluster, account: Any) -> None:
    """Four workers train on; evaluations that end in the outage are spooled, longer ones keep their leases."""
    for number in range(4):
        await cluster.add_worker(f"worker-{number}")
    seconds = {"short": OUTAGE_SECONDS / 3, "longer": OUTAGE_SECONDS * 2 / 3, "across": OUTAGE_SECONDS + 10}
    lengths = [seconds["short"], seconds["longer"], seconds["across"], seconds["across"]]
    task_ids = []
    for number, length in enumerate(lengths):
        extra = {"steps": "100", "seconds": str(length), "checkpoint": "20"}
        task_ids += await cluster.submit("search", [str(number)], extra)
    await eventually(lambda: len(cluster.journal("start")) == 4, what="all four train")
    steps_before = len(cluster.journal("step"))

    cluster.master.kill()
    began = time.monotonic()
    await asyncio.sleep(OUTAGE_SECONDS)
    steps_in_outage = len(cluster.journal("step")) - steps_before
    ended_in_outage = len(cluster.journal("end"))
    cluster.master.restart()
    outage = time.monotonic() - began
    back = time.monotonic()
    await eventually(
        lambda: len(cluster.master.logged("session.up")) >= 8, LEASE_SECONDS + 30, "all four workers are back"
    )
    reconnected = time.monotonic() - back
    await cluster.all_ended("search", 120)

    records = await cluster.records(task_ids)
    counters = await cluster.counters()
    burned = sum(record.attempts + record.losses for record in records.values())
    starts = cluster.starts()
    account(
        f"masters dead for {outage:.0f} s under 4 workers: {steps_in_outage} steps trained and {ended_in_outage} "
        f"evaluations ended meanwhile; all back {reconnected:.1f} s after the master served again; reassignments "
        f"{sum(starts.values()) - 4}, attempts and losses burned {burned}, leases expired "
        f"{counters.get('leases_expired', 0)}, results in {sum(r.state == 'SUCCEEDED' for r in records.values())} of 4"
    )
    assert {record.state for record in records.values()} == {"SUCCEEDED"}, cluster.explain()
    assert starts == dict.fromkeys(task_ids, 1)
    assert {record.epoch for record in records.values()} == {1}
    assert burned == 0
    assert counters.get("leases_expired", 0) == 0
    assert steps_in_outage > 0
    assert ended_in_outage == 2
    assert await cluster.fsck() == []


async def freeze_until_handed_on(cluster: Cluster, extra: dict[str, str], *, executor: bool) -> Freeze:
    """Stop a worker in the middle of its task, with or without its executor, until the task is another's."""
    zombie = await cluster.add_worker("zombie")
    (task_id,) = await cluster.submit("search", ["frozen"], extra)
    await eventually(lambda: len(cluster.journal("step")) > 2)
    pids = [zombie.pid, *([cluster.journal("start")[0]["pid"]] if executor else [])]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    await cluster.add_worker("heir")
    await eventually(lambda: len(cluster.journal("start")) == 2, 3 * LEASE_SECONDS + 20, "the task is given to another")
    return Freeze(cluster, task_id, pids, stopped, time.monotonic() - stopped)


@dataclass
class Freeze:
    """A worker that is stopped, and whose task another one has."""

    cluster: Cluster
    task_id: str
    pids: list[int]
    stopped: float
    handed_on_after: float

    async def wake(self) -> float:
        """SIGCONT once the time is over; returns when that was."""
        await asyncio.sleep(max(0.0, FREEZE_SECONDS - (time.monotonic() - self.stopped)))
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)
        return time.monotonic()

    async def halted(self, epoch: int) -> float:
        """When the run of that epoch was told to stop, by its own journal."""
        lines = await eventually(
            lambda: [line for line in self.cluster.journal("stopped") if line["epoch"] == epoch],
            what=f"the run of epoch {epoch} stops",
        )
        return float(lines[0]["time"])


async def test_a_worker_stopped_while_its_task_ends_elsewhere_ends_its_run(
    cluster: Cluster, account: Any, tmp_path: Path
) -> None:
    """Supervisor and executor sleep, as when a machine is suspended."""
    gate = tmp_path / "gate"
    extra = {"steps": "20", "seconds": "1", "checkpoint": "1", "gate": str(gate), "gate_step": "10"}
    freeze = await freeze_until_handed_on(cluster, extra, executor=True)
    gate.touch()
    await cluster.all_ended("search", 60)
    gate.unlink()
    woke = await freeze.wake()
    lag = await freeze.halted(epoch=1) - woke

    record = await record_of(cluster, freeze.task_id)
    account(
        f"worker stopped for {FREEZE_SECONDS:.0f} s, lease of {LEASE_SECONDS:.0f} s: the task was running elsewhere "
        f"after {freeze.handed_on_after:.1f} s and ended there; the woken worker ended its run after {lag:.2f} s"
    )
    assert (record.state, record.worker_id, record.epoch, record.losses) == ("SUCCEEDED", "heir", 2, 1)
    assert [each.outcome for each in record.attempt_records] == ["expired", "success"]
    assert len(cluster.journal("end")) == 1
    assert lag < 1
    assert await cluster.fsck() == []


async def test_checkpoints_that_a_stopped_workers_executor_went_on_saving_are_not_registered(
    cluster: Cluster, account: Any
) -> None:
    """Only the supervisor sleeps; its executor trains and saves on, past the lease's end: the worst of zombies."""
    extra = {"steps": "400", "seconds": str(FREEZE_SECONDS * 1.5), "checkpoint": "1"}
    freeze = await freeze_until_handed_on(cluster, extra, executor=False)
    woke = await freeze.wake()
    lag = await freeze.halted(epoch=1) - woke
    ahead = max(line["step"] for line in cluster.journal("step") if line["epoch"] == 1)
    registered = (await record_of(cluster, freeze.task_id)).checkpoint
    counters = await cluster.counters()
    await cluster.all_ended("search", FREEZE_SECONDS * 3 + 60)

    record = await record_of(cluster, freeze.task_id)
    account(
        f"supervisor stopped for {FREEZE_SECONDS:.0f} s over an executor that saved on: woken, it ended the run after "
        f"{lag:.2f} s; it had got to step {ahead}, registered was step {registered.step} of epoch {registered.epoch}; "
        f"stale writes refused {counters.get('stale_refused', 0)}, result by {record.worker_id}"
    )
    assert registered.epoch == 2
    assert (record.state, record.worker_id, record.losses) == ("SUCCEEDED", "heir", 1)
    assert len([line for line in cluster.journal("end") if line["epoch"] == 1]) == 0
    assert lag < 1
    assert await cluster.fsck() == []


async def test_a_success_from_a_stopped_worker_is_taken_late_and_its_successor_stops(
    cluster: Cluster, account: Any
) -> None:
    """The executor ends its evaluation while the supervisor sleeps. The work is done: the successor need not do it."""
    extra = {"steps": "100", "seconds": str(FREEZE_SECONDS * 0.8), "fitness": "0.75"}
    freeze = await freeze_until_handed_on(cluster, extra, executor=False)
    woke = await freeze.wake()
    lag = await freeze.halted(epoch=2) - woke
    await cluster.all_ended("search", 60)

    record = await record_of(cluster, freeze.task_id)
    counters = await cluster.counters()
    account(
        f"success of a worker stopped for {FREEZE_SECONDS:.0f} s: taken late, and the successor stopped {lag:.2f} s "
        f"after the worker woke; late successes {counters.get('late_accepted', 0)}"
    )
    assert (record.state, record.worker_id, record.metrics["fitness"]) == ("SUCCEEDED", "zombie", 0.75)
    assert counters.get("late_accepted", 0) == 1
    assert len(cluster.journal("end")) == 1
    assert lag < 2
    assert await cluster.fsck() == []


async def test_every_way_of_an_evaluator_to_die_is_seen_in_tasks_show(
    cluster: Cluster, tenure: CommandLine, account: Any
) -> None:
    await cluster.add_worker("worker")
    expected = {
        # fate: (budget shown, on the page)
        "exit": ("losses        2 of 2", "ended with exit code 7", "| about to leave by os._exit"),
        "segfault": ("losses        2 of 2", "SIGSEGV (11)", "| Fatal Python error: Segmentation fault"),
        "kill": ("losses        2 of 2", "SIGKILL (9)", "ExecutorDied"),
        "exhaust": ("out of memory 2 of 2", "MemoryError", "epoch 2: out_of_memory on worker"),
    }
    began = time.monotonic()
    for fate, parts in expected.items():
        budgets = {"max_losses": 2, "max_attempts": 2, "max_out_of_memory": 2}
        task_id = await submit_one(cluster, fate, {"fate": fate, "steps": "2"}, **budgets)
        await cluster.all_ended(fate, 60)
        page, record = await shown(tenure, task_id)
        missing = [part for part in ("FAILED", *parts) if " ".join(part.split()) not in " ".join(page.split())]
        assert missing == [], page
        assert record["state"] == "FAILED"
        assert len(record["attempt_records"]) == 2
        assert record["failure"]["error_class"]
        assert [each["worker_id"] for each in record["attempt_records"]] == ["worker", "worker"]
    account(f"os._exit, SIGSEGV, SIGKILL and exhausted memory, twice each: parked in {time.monotonic() - began:.1f} s")


async def test_an_evaluator_that_holds_the_gil_costs_nothing(
    cluster: Cluster, tenure: CommandLine, account: Any
) -> None:
    await cluster.add_worker("worker")
    task_id = await submit_one(cluster, "search", {"fate": "gil", "seconds": str(GIL_SECONDS)})
    await cluster.all_ended("search", GIL_SECONDS + 60)
    page, record = await shown(tenure, task_id)
    counters = await cluster.counters()
    account(
        f"GIL held for {GIL_SECONDS:.0f} s, lease of {LEASE_SECONDS:.0f} s: {record['state']} in epoch "
        f"{record['epoch']}, losses {record['losses']}, leases expired {counters.get('leases_expired', 0)}"
    )
    assert "SUCCEEDED" in page
    assert (record["state"], record["epoch"], record["attempts"], record["losses"]) == ("SUCCEEDED", 1, 0, 0)
    assert counters.get("leases_expired", 0) == 0


async def test_an_evaluator_without_progress_is_stopped_at_its_deadline(
    cluster: Cluster, tenure: CommandLine, account: Any
) -> None:
    """Stopped, killed as it is deaf, and counted as an attempt."""
    await cluster.add_worker("worker")
    budgets = {"max_attempts": 1, "progress_deadline_seconds": SILENCE_SECONDS}
    task_id = await submit_one(cluster, "search", {"fate": "hang", "steps": "3", "fate_step": "1"}, **budgets)
    began = time.monotonic()
    await cluster.all_ended("search", SILENCE_SECONDS + 60)
    took = time.monotonic() - began
    page, record = await shown(tenure, task_id)
    account(f"no progress, deadline of {SILENCE_SECONDS:.0f} s: ended as a failed attempt after {took:.1f} s")
    for part in ("FAILED", "ProgressDeadlineExceeded", "1 of 1"):
        assert part in page
    assert (record["attempts"], record["losses"]) == (1, 0)
    assert record["attempt_records"][0]["error_class"] == "ProgressDeadlineExceeded"
