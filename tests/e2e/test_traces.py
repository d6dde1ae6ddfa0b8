"""A task is one connected trace over real processes, whatever is killed on the way (docs/traces.md)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from otlp_receiver import KeptSpan, OtlpReceiver
from processes import MasterProcess, eventually, start_master
from worker_process import TESTS, WorkerProcess

SEARCH = str(TESTS / "traced_search.py")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "traces.md"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    """Every process that is started now sends its spans there."""
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield receiver


class Processes:
    """A master, workers, and search programs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.master: MasterProcess = start_master(root / "master", lease_ttl_seconds=4, heartbeat_seconds=0.5)
        self.workers: list[WorkerProcess] = []
        self.searches: list[asyncio.subprocess.Process] = []

    async def work(self, name: str, **settings: Any) -> WorkerProcess:
        """Start a worker."""
        worker = WorkerProcess(self.root, name)
        self.workers.append(worker)
        return await worker.start(self.master.address, evaluator="traced_evaluators:evaluate", **settings)

    async def search(self, tasks: dict[str, dict[str, str]]) -> tuple[asyncio.subprocess.Process, dict[str, str]]:
        """A search program, once it has submitted; ids by key."""
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, SEARCH, self.master.address, json.dumps(tasks)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "OTEL_SERVICE_NAME": "my-search"},
        )
        self.searches.append(program)
        assert program.stdout is not None
        ids: dict[str, str] = json.loads(await asyncio.wait_for(program.stdout.readline(), 60))
        return program, ids

    async def destroy(self) -> None:
        """End everything."""
        for search in self.searches:
            if search.returncode is None:
                search.kill()
                await search.wait()
        for worker in self.workers:
            await worker.destroy()
        self.master.remove()


@pytest_asyncio.fixture
async def processes(tmp_path: Path, receiver: OtlpReceiver) -> AsyncIterator[Processes]:
    """A master that traces; workers and searches are added by the test."""
    made = Processes(tmp_path)
    try:
        yield made
    finally:
        await made.destroy()


def unconnected(spans: list[KeptSpan]) -> list[str]:
    """Names of spans whose parent is not in their trace, but for one root."""
    ids = {span.span_id for span in spans}
    roots = [span for span in spans if not span.parent_id]
    assert len(roots) == 1, [span.name for span in roots]
    return [span.name for span in spans if span.parent_id and span.parent_id not in ids]


def children(spans: list[KeptSpan], parent: KeptSpan) -> set[str]:
    return {span.name for span in spans if span.parent_id == parent.span_id}


async def whole_trace(receiver: OtlpReceiver, task_id: str, ends: int) -> list[KeptSpan]:
    """All spans of a task that had so many leases: each process sends its own when it likes."""

    def is_whole() -> bool:
        spans = receiver.of_task(task_id)
        count = Counter(span.name for span in spans)
        of_each = all(count[name] >= ends for name in ("queued", "lease", "run", "evaluate", "deliver"))
        return of_each and {"submit", "complete", "client.result"} <= count.keys() and not unconnected(spans)

    await eventually(is_whole, what=f"all of the trace: {[span.name for span in receiver.of_task(task_id)]}")
    return receiver.of_task(task_id)


def named(spans: list[KeptSpan], name: str) -> list[KeptSpan]:
    return [span for span in spans if span.name == name]


async def test_a_task_is_one_trace_from_its_submit_to_its_result(processes: Processes, receiver: OtlpReceiver) -> None:
    worker = await processes.work("w1")
    good = {"steps": "3", "checkpoint": "1"}
    program, ids = await processes.search({"good": good, "bad": {"fate": "error", "fate_epochs": "1"}})
    assert await asyncio.wait_for(program.wait(), 60) == 0
    for task_id in ids.values():
        await eventually(lambda task_id=task_id: named(receiver.of_task(task_id), "client.result"), what="its result")
        await eventually(lambda task_id=task_id: named(receiver.of_task(task_id), "deliver"), what="its delivery")

    spans = await whole_trace(receiver, ids["good"], ends=1)
    (root,) = named(spans, "client.submit")
    (lease,) = named(spans, "lease")
    (run,) = named(spans, "run")
    (evaluation,) = named(spans, "evaluate")
    assert children(spans, root) == {"submit", "queued", "lease", "client.result"}
    assert children(spans, lease) == {"run", "checkpoint.load", "checkpoint.save", "deliver", "complete"}
    assert children(spans, run) == {"evaluate"}
    assert children(spans, evaluation) == {"my.part"}
    assert {(span.name, span.service) for span in spans} >= {
        ("client.submit", "my-search"),
        ("lease", "tenure-master"),
        ("run", "tenure-worker"),
        ("evaluate", "tenure-executor"),
        ("my.part", "tenure-executor"),
    }
    told = {name: lease.attributes[name] for name in ("search", "task", "epoch", "attempt", "worker", "outcome")}
    assert told == {
        "search": "traced",
        "task": ids["good"],
        "epoch": 1,
        "attempt": 1,
        "worker": "w1",
        "outcome": "success",
    }
    assert len(named(spans, "checkpoint.save")) == 3
    (said,) = [line for line in worker.log_lines("my.word") if line["task"] == ids["good"]]
    (mine,) = named(spans, "my.part")
    assert (said["trace_id"], said["span_id"]) == (mine.trace_id, mine.span_id)

    first_cells = re.findall(r"^\| (`.*?`) \|", PAGE.read_text(), re.MULTILINE)
    documented = {name for cell in first_cells for name in re.findall(r"`([\w.]+)`", cell)}
    assert {span.name for span in spans} <= documented | {"my.part"}
    assert all(span.attributes["task"] == ids["good"] for span in spans if span.name != "my.part")

    shown = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tenure.client.cli", "tasks", "show", ids["good"]),
        *("--master", processes.master.address),
        stdout=asyncio.subprocess.PIPE,
    )
    text, _ = await shown.communicate()
    assert root.trace_id in text.decode()

    spans = await whole_trace(receiver, ids["bad"], ends=2)
    failed, succeeded = named(spans, "lease")
    assert (failed.attributes["epoch"], failed.attributes["outcome"]) == (1, "failure")
    assert failed.error.startswith("RuntimeError: ")
    assert (succeeded.attributes["epoch"], succeeded.attributes["attempt"], succeeded.error) == (2, 2, "")
    assert [span.error != "" for span in named(spans, "evaluate")] == [True, False]
    assert len(named(spans, "queued")) == 2


async def test_a_killed_worker_and_a_new_master_leave_no_gap(processes: Processes, receiver: OtlpReceiver) -> None:
    lost = await processes.work("w1")
    gate = processes.root / "gate"
    held = {"steps": "2", "checkpoint": "1", "gate": str(gate), "gate_step": "1"}
    program, ids = await processes.search({"held": held})
    task_id = ids["held"]
    await lost.journaled("gate", task_id)
    await eventually(lambda: named(receiver.of_task(task_id), "checkpoint.save"), what="a span of the worker")
    lost.executors()
    lost.signal(signal.SIGKILL)
    await lost.wait()
    await asyncio.to_thread(processes.master.terminate)
    gate.touch()
    await asyncio.to_thread(processes.master.restart)
    await processes.work("w2")
    assert await asyncio.wait_for(program.wait(), 90) == 0
    await eventually(lambda: named(receiver.of_task(task_id), "deliver"), what="the second run's delivery")
    await eventually(lambda: not unconnected(receiver.of_task(task_id)), what="all of the trace")
    first, second = named(receiver.of_task(task_id), "lease")
    assert (first.attributes["worker"], first.attributes["outcome"]) == ("w1", "expired")
    assert first.error
    assert (second.attributes["worker"], second.attributes["epoch"], second.error) == ("w2", 2, "")
    (expiry,) = named(receiver.of_task(task_id), "expire")
    assert expiry.parent_id == first.span_id
    # The worker is back, and tells of the run that its last process died under.
    await processes.work("w1")
    await eventually(lambda: len(named(receiver.of_task(task_id), "run")) == 2, what="the lost run")
    (of_lost,) = [span for span in named(receiver.of_task(task_id), "run") if span.parent_id == first.span_id]
    assert of_lost.error.startswith("the worker's process")
    assert named(receiver.of_task(task_id), "client.result")


async def test_an_executor_that_dies_leaves_its_span(processes: Processes, receiver: OtlpReceiver) -> None:
    await processes.work("w1")
    program, ids = await processes.search({"killed": {"fate": "kill", "fate_epochs": "1"}})
    assert await asyncio.wait_for(program.wait(), 60) == 0
    await eventually(lambda: named(receiver.of_task(ids["killed"]), "client.result"), what="its result")
    spans = await whole_trace(receiver, ids["killed"], ends=2)
    assert "SIGKILL" in named(spans, "evaluate")[0].error
    assert [span.attributes["outcome"] for span in named(spans, "lease")] == ["loss", "success"]
    assert named(spans, "lease")[0].attributes["exit_signal"] == 9


async def test_a_collector_that_never_answers_costs_nothing_but_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        processes = Processes(tmp_path)
        try:
            worker = await processes.work("w1")
            program, _ = await processes.search({f"k{number}": {"steps": "2"} for number in range(5)})
            assert await asyncio.wait_for(program.wait(), 60) == 0
            worker.signal(signal.SIGTERM)
            assert await worker.wait() == 0
            assert await asyncio.to_thread(processes.master.terminate) == 0
            lines = [json.loads(line) for line in worker.log_text().splitlines()]
            assert all("event" in line for line in lines)
        finally:
            await processes.destroy()
