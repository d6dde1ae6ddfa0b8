"""restart-master and restart-workers on real processes under a running search."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from cluster import Cluster
from ops_scripts import BROKEN, FAILED, KEPT, USAGE, Scripts, pid_of
from processes import eventually, is_alive


@dataclass(frozen=True)
class Scene:
    """Two workers that hold tasks, and tasks that wait.

    Attributes:
        task_ids: Of tasks that wait at a gate, in the middle of their steps.
        done: Of a task that has succeeded.
    """

    cluster: Cluster
    task_ids: list[str]
    done: str
    gate: Path

    @property
    def master_ready(self) -> Path:
        return self.cluster.root / "master" / "ready.json"

    @property
    def workers_ready(self) -> list[Path]:
        return [self.cluster.root / f"{name}.ready" for name in self.cluster.workers]

    async def finish(self) -> dict[str, Any]:
        """Open the gate; every task's record once all have ended."""
        self.gate.touch()
        try:
            await self.cluster.all_ended("first", 60)
        except TimeoutError as error:
            raise AssertionError(f"{error}; {self.cluster.explain()}") from error
        return await self.cluster.records([*self.task_ids, self.done])


async def make_scene(cluster: Cluster) -> Scene:
    gate = cluster.root / "gate"
    await asyncio.gather(*(cluster.add_worker(name) for name in ("w1", "w2")))
    (done,) = await cluster.submit("first", ["done"], {})
    await cluster.all_ended("first")
    extra = {"steps": "4", "checkpoint": "1", "gate": str(gate), "gate_step": "2"}
    task_ids = await cluster.submit("first", ["a", "b", "c", "d"], extra)
    await eventually(lambda: len(cluster.journal("gate")) == 2, what="two evaluations at the gate")
    return Scene(cluster, task_ids, done, gate)


async def test_a_master_is_restarted_and_killed_and_nothing_is_lost(cluster: Cluster, scripts: Scripts) -> None:
    scene = await make_scene(cluster)
    first = pid_of(scene.master_ready)

    said = await scripts("restart-master", "--ready-file", scene.master_ready, "--dry-run")
    assert said.code == KEPT, said
    assert "SIGTERM" in said.out
    assert "5 tasks, 2 of them under a lease, 2 live workers" in said.out
    assert pid_of(scene.master_ready) == first
    assert is_alive(first)

    said = await scripts("restart-master", "--ready-file", scene.master_ready)
    assert said.code == KEPT, said
    assert "2 of 2 workers were heard and 2 of 2 leases renewed or ended" in said.out
    assert said.out.rstrip().endswith("kept: nothing was lost")
    second = pid_of(scene.master_ready)
    assert second != first
    # The port had been chosen by the system: workers and clients only know that one.
    assert json.loads(scene.master_ready.read_text())["grpc"] == cluster.master.address
    # Its output goes where it went before.
    assert len(cluster.master.logged("master.ready")) == 2

    said = await scripts("restart-master", "--ready-file", scene.master_ready, "--kill", "--output", "json")
    report = said.report
    assert said.code == KEPT, report
    assert pid_of(scene.master_ready) not in (first, second)
    assert report["kept"]
    assert report["proved"]
    assert report["states"]["LEASED"] == {"before": 2, "after": 2}
    assert report["states"]["SUCCEEDED"] == {"before": 1, "after": 1}
    assert report["figures"]["tasks known before"] == report["figures"]["still there"] == 5
    for name in ("leases expired", "attempts burned", "losses burned", "handed back", "deleted by retention"):
        assert report["figures"][name] == 0, name
    assert report["figures"]["tasks checked by fsck"] == 5

    records = await scene.finish()
    assert {record.state for record in records.values()} == {"SUCCEEDED"}
    assert set(cluster.starts().values()) == {1}, "an evaluation was started twice"


async def test_workers_are_drained_one_after_the_other_and_nothing_is_burned(
    cluster: Cluster, scripts: Scripts
) -> None:
    scene = await make_scene(cluster)
    before = [pid_of(path) for path in scene.workers_ready]

    said = await scripts("restart-workers", *scene.workers_ready, "--dry-run")
    assert said.code == KEPT, said
    assert "2 on these 2 workers" in said.out
    assert [pid_of(path) for path in scene.workers_ready] == before
    assert all(map(is_alive, before))

    said = await scripts("restart-workers", *scene.workers_ready, "--output", "json")
    report = said.report
    assert said.code == KEPT, report
    assert not set(before) & {pid_of(path) for path in scene.workers_ready}
    assert report["workers"] == ["w1", "w2"]
    assert report["figures"]["workers restarted"] == 2
    assert report["figures"]["handed back"] == 2
    for name in ("leases expired", "attempts burned", "losses burned"):
        assert report["figures"][name] == 0, name
    # One at a time: the second is told to drain only when the first is live again.
    steps = [line.split(":")[1].split()[0] for line in said.err.splitlines() if line.startswith(("w1:", "w2:"))]
    assert steps == ["drained", "live", "drained", "live"]

    records = await scene.finish()
    assert {record.state for record in records.values()} == {"SUCCEEDED"}
    assert {(record.attempts, record.losses) for record in records.values()} == {(0, 0)}
    went_on = [line for line in cluster.journal("start") if line["resumed_from"] == 2]
    assert len(went_on) == 2, "what was handed back goes on from its checkpoint"


async def test_an_empty_data_directory_is_a_broken_promise(cluster: Cluster, scripts: Scripts) -> None:
    """An operator's mistake: the new command line names another directory."""
    scene = await make_scene(cluster)
    command = [sys.executable, "-m", "tenure.client.cli", "master", "--data-dir", cluster.root / "elsewhere"]
    said = await scripts("restart-master", "--ready-file", scene.master_ready, "--", *command)
    assert said.code == BROKEN, said
    assert said.out.count(" vanished; it was QUEUED") == 2
    assert f"BROKEN: task {scene.done} of search first vanished; it was SUCCEEDED" in said.out
    assert said.out.rstrip().endswith("a promise broke; see above")


async def test_a_start_that_fails_is_told_with_what_to_do_and_can_be_made_good(
    cluster: Cluster, scripts: Scripts
) -> None:
    scene = await make_scene(cluster)
    ready = scene.master_ready
    settings = psutil.Process(pid_of(ready)).environ()
    said = await scripts("restart-master", "--ready-file", ready, "--", sys.executable, "-c", "exit(7)")
    assert said.code == FAILED, said
    assert "the new master ended with status 7" in said.err
    assert "start it by hand" in said.err
    assert "is not back; to go on, run the same command again: it starts first what is down" in said.out

    (cluster.root / "home" / "ops" / "stopped.json").unlink()
    said = await scripts("restart-master", "--ready-file", ready)
    assert said.code == USAGE, said
    assert "give its command line after --" in said.err

    environment = {name: value for name, value in settings.items() if name.startswith("TENURE_")}
    environment["TENURE_MASTER_LISTEN"] = cluster.master.address
    command = [sys.executable, "-m", "tenure.client.cli", "master"]
    said = await scripts(
        "restart-master",
        *("--ready-file", ready, "--master", cluster.master.address, "--log", cluster.root / "new.log"),
        *("--", *command),
        **environment,
    )
    assert said.code == KEPT, said
    assert "nothing is proved" in said.out
    assert "master.ready" in (cluster.root / "new.log").read_text()
    records = await scene.finish()
    assert {record.state for record in records.values()} == {"SUCCEEDED"}
    assert set(cluster.starts().values()) == {1}


async def test_a_worker_that_does_not_end_its_drain_in_time_is_left_alone(cluster: Cluster, scripts: Scripts) -> None:
    await cluster.add_worker("w1")
    await cluster.submit("first", ["deaf"], {"ignore_stop": "1", "gate": str(cluster.root / "gate")})
    await eventually(lambda: cluster.journal("gate"), what="the evaluation at the gate")
    ready = cluster.root / "w1.ready"
    said = await scripts("restart-master", "--unproved", "--ready-file", ready)
    assert said.code == USAGE
    assert "is a worker's ready file; restart-workers restarts those" in said.err
    said = await scripts("restart-workers", "--dry-run", ready, ready)
    assert said.code == KEPT, said
    assert "on these 1 workers" in said.out

    said = await scripts("restart-workers", ready, "--drain-timeout", "0.3")
    assert said.code == FAILED, said
    assert "still drains after 0.3 s and was left alone" in said.err
    assert "start it by hand" in said.err
    assert pid_of(ready) == cluster.workers["w1"].pid


async def test_what_is_not_tenures_or_not_there_is_not_touched(
    cluster: Cluster, scripts: Scripts, tmp_path: Path
) -> None:
    said = await scripts("restart-master", "--ready-file", tmp_path / "none.json")
    assert said.code == USAGE
    assert "is not there" in said.err

    stale = tmp_path / "stale.json"
    stale.write_text(json.dumps({"pid": os.getpid(), "grpc": "127.0.0.1:1", "http": "127.0.0.1:2"}))
    os.utime(stale, (1, 1))
    said = await scripts("restart-master", "--ready-file", stale)
    assert said.code == USAGE
    assert "is left over" in said.err

    (tmp_path / "text.json").write_text("hello")
    said = await scripts("restart-workers", tmp_path / "text.json")
    assert said.code == USAGE
    assert "is no ready file" in said.err

    said = await scripts("restart-workers", cluster.root / "master" / "ready.json")
    assert said.code == USAGE
    assert "is not a worker's ready file" in said.err

    said = await scripts("restart-workers", "--via", "true", "--worker", "nobody", "--master", cluster.master.address)
    assert said.code == USAGE
    assert "no worker nobody is registered" in said.err
    assert is_alive(pid_of(cluster.root / "master" / "ready.json"))
