"""Every line that a master or a worker writes is JSON, and every one about a task says which, and which lease of it."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from cluster import Cluster
from processes import eventually
from worker_process import WorkerProcess

FIELDS = {"search", "task", "worker", "epoch", "attempt"}
# About many tasks at once: they name the search and the ids.
ABOUT_MANY = {"task.submit", "task.cancel", "task.requeue"}


def lines(path: Path) -> list[dict[str, Any]]:
    """All of a log; a line that is no JSON object fails."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = []
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        line = json.loads(text, parse_constant=refuse)
        assert isinstance(line, dict), f"{path.name}:{number}"
        assert line.keys() >= {"event", "level", "timestamp", "component"}, f"{path.name}:{number}: {text}"
        found.append(line)
    return found


def incomplete(found: list[dict[str, Any]], ids: set[str]) -> list[dict[str, Any]]:
    """Lines about a task that don't say all of it."""
    about = [line for line in found if "task" in line or line["event"].startswith(("task.", "checkpoint.", "outcome."))]
    assert {line.get("task") for line in about} & ids
    return [
        line
        for line in about
        if line["event"] not in ABOUT_MANY and not all(line.get(name) not in (None, "", 0) for name in FIELDS)
    ]


async def add_worker(cluster: Cluster, name: str) -> WorkerProcess:
    return await cluster.add_worker(name, evaluator="evaluators:evaluate", log_level="debug")


async def test_every_line_is_json_and_names_the_lease_it_is_about(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, lease_ttl_seconds=4, heartbeat_seconds=0.5, log_level="debug", log_format="json")
    try:
        first = await add_worker(cluster, "w1")
        gate = str(tmp_path / "gate")
        (lost,) = await cluster.submit(
            "logs", ["lost"], {"gate": gate, "steps": "2", "checkpoint": "1", "gate_step": "1"}
        )
        await first.journaled("gate", lost)
        first.executors()
        first.signal(signal.SIGKILL)
        await first.wait()
        Path(gate).touch()
        await add_worker(cluster, "w2")
        (failing,) = await cluster.submit("logs", ["failing"], {"fate": "error", "fate_epochs": "1"})
        (dying,) = await cluster.submit("logs", ["dying"], {"fate": "kill", "fate_epochs": "1"})
        (fatal,) = await cluster.submit("logs", ["fatal"], {"fate": "fatal"})
        (cancelled,) = await cluster.submit("logs", ["cancelled"], {"gate": str(tmp_path / "never"), "steps": "2"})
        ids = {lost, failing, dying, fatal, cancelled}
        await cluster.workers["w2"].journaled("gate", cancelled)
        await asyncio.to_thread(cluster.client.search("logs").cancel, cancelled)
        await cluster.all_ended("logs")
        # It tells what its last process left, and drains.
        await first.start(cluster.master.address, log_level="debug")
        for worker in cluster.workers.values():
            worker.signal(signal.SIGTERM)
            assert await worker.wait() == 0
        assert await asyncio.to_thread(cluster.master.terminate) == 0

        of_master = lines(cluster.master.folder / "master.log")
        of_workers = [line for worker in cluster.workers.values() for line in lines(worker.log_path)]
        assert incomplete(of_master, ids) == []
        assert incomplete(of_workers, ids) == []
        events = {line["event"] for line in (*of_master, *of_workers) if line.get("task") in ids}
        assert events >= {"task.claim", "task.expire", "task.fail", "task.outcome", "task.started", "task.ended"}
        assert events >= {"checkpoint.registered", "task.resumed", "task.left_over", "task.stopping", "lease.revoked"}
        tries = [
            (line["epoch"], line["attempt"])
            for line in of_workers
            if line["event"] == "task.started" and line["task"] in (failing, dying)
        ]
        # A failure burns an attempt, a loss doesn't.
        assert sorted(tries) == [(1, 1), (1, 1), (2, 1), (2, 2)]
        submitted = [line["ids"] for line in of_master if line["event"] == "task.submit"]
        assert {task_id for named in submitted for task_id in named} == ids
    finally:
        await cluster.destroy()


async def test_lines_carry_the_trace_where_the_task_has_one(cluster: Cluster) -> None:
    worker = await add_worker(cluster, "w1")
    trace = "0af7651916cd43dd8448eb211c80319c"

    def submit() -> str:
        from cluster import ARCHITECTURE

        from tenure.proto import tenure_pb2

        task = tenure_pb2.TaskSpec(architecture=json.dumps(ARCHITECTURE), trace=f"00-{trace}-b7ad6b7169203331-01")
        request = tenure_pb2.SubmitRequest(search="traced", tasks=[task])
        return str(cluster.client._connection.call("Submit", request).tasks[0].task_id)

    task_id = await asyncio.to_thread(submit)
    await cluster.all_ended("traced")
    await eventually(lambda: worker.log_lines("task.ended"), what="the run's end")
    about = [line for line in worker.log_lines() if line.get("task") == task_id]
    assert {line["trace_id"] for line in about} == {trace}
    assert len({line["span_id"] for line in about}) == 1
