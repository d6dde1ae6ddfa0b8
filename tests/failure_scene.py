"""Everything that a dashboard shows, happening within a minute to a real cluster: what ``play`` leaves in Prometheus.

Two masters on one store; workers that train, die, are preempted, cut off, pushed to, and have GPUs (recorded ones) with
an XID error; searches with good results, every kind of failure, and a class of tasks that no worker serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import ARCHITECTURE
from observed_cluster import ObservedCluster
from processes import MasterProcess, eventually
from prometheus_server import DEADLINE_SECONDS
from tcp_relay import TcpRelay
from worker_process import TESTS, WorkerProcess

FATES = ("error", "fatal", "invalid_architecture", "memory", "kill", "segfault", "exit", "nan")
NORTH: dict[str, Any] = {"requirements": {"labels": {"site": "north"}}}
TRAINING = {"steps": "6", "seconds": "1.2", "checkpoint": "2"}


async def play(cluster: ObservedCluster) -> None:
    """All of it, from a cluster without workers to one that is well again but for what stays to be seen."""
    await _add_workers(cluster)
    # Groups: one act that fails ends the others, and leaves nothing of them behind.
    async with asyncio.TaskGroup() as whole:
        whole.create_task(_searches(cluster))
        whole.create_task(a_result_comes_late(cluster))
        async with asyncio.TaskGroup() as first:
            first.create_task(_a_worker_dies(cluster))
            first.create_task(_a_machine_is_preempted(cluster))
            first.create_task(_a_gpu_breaks(cluster))
            first.create_task(_a_worker_is_pushed_to(cluster))
        await _a_master_is_restarted(cluster)
    await cluster.fsck()
    await cluster.prometheus.until(
        lambda: cluster.prometheus.query("tenure_store_fsck_timestamp_seconds > 0"), "the check is known"
    )


async def submit(
    cluster: ObservedCluster, search: str, keys: Sequence[str], extra: Mapping[str, str], **more: Any
) -> list[str]:
    """Submit tasks for tests/evaluators.py with more than :meth:`Cluster.submit` knows."""

    def send() -> list[str]:
        made = cluster.client.search(search)
        config = {"extra": dict(extra)}
        handles = made.submit_many({"architecture": ARCHITECTURE, "config": config, "key": key, **more} for key in keys)
        return [handle.task_id for handle in handles]

    return await asyncio.to_thread(send)


async def _add_workers(cluster: ObservedCluster) -> None:
    gpus = cluster.workers["gpus"] = WorkerProcess(cluster.root, "gpus")
    gpus.program = (str(TESTS / "worker_with_gpus.py"), "xid", str(cluster.root))
    await asyncio.gather(
        cluster.add_worker("steady", slots=3, labels="site=north"),
        cluster.add_worker("doomed", labels="act=doomed"),
        cluster.add_worker(
            "spot", labels="act=spot", preemption_file=cluster.root / "preempted", preemption_poll_seconds=0.2
        ),
        cluster.add_worker("pushed", labels="act=pushed", dispatch="push"),
        cluster.start_worker(gpus, labels="site=south"),
    )


def _for(name: str) -> dict[str, Any]:
    return {"requirements": {"labels": {"act": name}}}


async def _searches(cluster: ObservedCluster) -> None:
    """One with results, one with every kind of failure, one that waits for what nobody has."""
    await submit(cluster, "waiting", ["w1", "w2"], {}, requirements={"labels": {"site": "moon"}})
    for number in range(4):
        await submit(cluster, "good", [f"g{number}"], {**TRAINING, "fitness": f"0.{number + 3}"}, **NORTH)
    for fate in FATES:
        await submit(cluster, "bad", [fate], {**TRAINING, "fate": fate, "fate_step": "3"}, max_attempts=2, **NORTH)
    await cluster.all_ended("good")
    # Answered by the tasks that there are.
    await submit(cluster, "good", ["g0", "g1"], {**TRAINING, "fitness": "0.3"}, **NORTH)
    await cluster.all_ended("bad")


async def _a_worker_dies(cluster: ObservedCluster) -> None:
    """With its machine: nobody says anything, its lease runs out."""
    gate = str(cluster.root / "never")
    (task,) = await submit(cluster, "good", ["doomed"], {**TRAINING, "gate": gate, "gate_step": "3"}, **_for("doomed"))
    await _at_gate(cluster, task)
    worker = cluster.workers["doomed"]
    worker.executors()
    worker.signal(signal.SIGKILL)
    await eventually(lambda: _shown(cluster, "sum(tenure_leases_expired_total) > 0"), 30, what="its lease expired")
    await asyncio.to_thread(cluster.client.cancel_tasks, [task])


async def _a_machine_is_preempted(cluster: ObservedCluster) -> None:
    gate = str(cluster.root / "never")
    (task,) = await submit(cluster, "good", ["spot"], {**TRAINING, "gate": gate, "gate_step": "3"}, **_for("spot"))
    await _at_gate(cluster, task)
    (cluster.root / "preempted").touch()
    await cluster.prometheus.until(
        lambda: cluster.prometheus.query('tenure_outcomes_total{kind="release"}'), "what it held was handed back"
    )
    await asyncio.to_thread(cluster.client.cancel_tasks, [task])


async def a_result_comes_late(cluster: ObservedCluster, search: str = "good") -> None:
    """A worker that was cut off delivers a result when its task is another's."""
    gate = cluster.root / "late-{task_id}"
    extra = {**TRAINING, "gate": str(gate), "gate_step": "3"}
    async with TcpRelay(int(cluster.masters[1].address.rpartition(":")[2])) as relay:
        alone = cluster.workers["alone"] = WorkerProcess(cluster.root, "alone")
        await alone.start(relay.address, labels="act=alone")
        (task,) = await submit(cluster, search, ["late"], extra, **_for("alone"))
        await _at_gate(cluster, task)
        relay.hold_up()
        await relay.cut()
        await cluster.add_worker("heir", labels="act=alone")
        await _at_gate(cluster, task, runs=2)
        # Only the first of them goes on: the other one is held where it is until that has delivered.
        second = cluster.journal("gate", task)[1]["pid"]
        os.kill(second, signal.SIGSTOP)
        Path(str(gate).replace("{task_id}", task)).touch()
        spool = alone.work_dir / "spool"
        await eventually(lambda: list(spool.glob("*.outcome")), what="the cut-off worker has spooled its result")
        relay.let_through()
        await cluster.prometheus.until(
            lambda: cluster.prometheus.query('tenure_store_counter{name="late_accepted"} > 0'),
            "the late result was taken",
        )
        # Its worker may have ended it meanwhile: it is nobody's any more.
        with contextlib.suppress(ProcessLookupError):
            os.kill(second, signal.SIGCONT)
        await alone.destroy()


async def _a_gpu_breaks(cluster: ObservedCluster) -> None:
    (cluster.root / "xid-31").touch()
    (cluster.root / "xid-79").touch()
    (cluster.root / "xid-94").touch()
    await cluster.prometheus.until(
        lambda: cluster.prometheus.query("tenure_worker_slot_cordoned == 1"), "its slot is cordoned"
    )


async def _a_worker_is_pushed_to(cluster: ObservedCluster) -> None:
    await submit(cluster, "good", ["pushed"], TRAINING, **_for("pushed"))
    await cluster.prometheus.until(lambda: cluster.prometheus.query("tenure_pushes_total"), "an Evaluate call ended")


async def _a_master_is_restarted(cluster: ObservedCluster) -> None:
    """The one that most workers are at, after a while without it."""
    master: MasterProcess = cluster.masters[0]
    await cluster.prometheus.until(
        lambda: cluster.prometheus.query("sum(tenure_worker_checkpoints_saved_total) > 0"), "runs are under way"
    )
    master.kill()
    await cluster.prometheus.until_fires("TenureMasterDown", instance=cluster.instance(master))
    await cluster.restart(master)
    await cluster.prometheus.until_clears("TenureMasterDown", instance=cluster.instance(master))


async def _at_gate(cluster: ObservedCluster, task: str, runs: int = 1) -> None:
    """Wait until so many runs of the task wait at its gate; on a busy machine executors take a while to start."""
    what = f"{runs} of {task} at its gate"
    await eventually(lambda: len(cluster.journal("gate", task)) == runs, DEADLINE_SECONDS, what=what)


def _shown(cluster: ObservedCluster, expression: str) -> bool:
    return bool(cluster.prometheus.query(expression))
