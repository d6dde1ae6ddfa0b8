"""How Kubernetes ends a worker: the preStop hook of ops/kubernetes, then SIGTERM; the test is the kubelet."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml
from cluster import Cluster
from kubernetes_objects import KUBERNETES, container

from tenure.common.exits import ExitCode
from tenure.common.states import TaskState

WORKERS = KUBERNETES / "base" / "workers.yaml"


def hook() -> list[str]:
    """The command that runs in the container before SIGTERM."""
    workers = next(one for one in yaml.safe_load_all(WORKERS.read_text()) if one["kind"] == "StatefulSet")
    return list(container(workers["spec"]["template"])["lifecycle"]["preStop"]["exec"]["command"])


async def run_hook(master: str, worker: str) -> int:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TENURE_MASTER": master,
        "TENURE_WORKER_WORKER_ID": worker,
    }
    return (await asyncio.to_thread(subprocess.run, hook(), env=environment, check=False, timeout=120)).returncode


async def test_a_pod_that_goes_hands_its_task_back_and_its_successor_takes_it(cluster: Cluster) -> None:
    gate = cluster.root / "gate"
    worker = await cluster.add_worker("tenure-worker-0")
    (task,) = await cluster.submit("s", ["1"], {"steps": "2", "checkpoint": "1", "gate": str(gate), "gate_step": "1"})
    await worker.journaled("gate")
    assert await run_hook(cluster.master.address, "tenure-worker-0") == 0
    # The hook has waited for it; the process lives, and SIGTERM finds it idle.
    assert (await cluster.records([task]))[task].state is TaskState.QUEUED
    assert worker.returncode is None
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == ExitCode.OK
    gate.touch()
    # Under the same id, which is not drained any more.
    await cluster.add_worker("tenure-worker-0")
    await cluster.all_ended("s")
    record = (await cluster.records([task]))[task]
    assert record.state is TaskState.SUCCEEDED
    assert (record.attempts, record.losses, record.resumes) == (0, 0, 1)


async def test_without_a_master_the_hook_gives_up_and_sigterm_drains(cluster: Cluster) -> None:
    worker = await cluster.add_worker("tenure-worker-0")
    await cluster.submit("s", ["1"], {"gate": str(cluster.root / "gate")})
    await worker.journaled("gate")
    cluster.master.kill()
    assert await run_hook(cluster.master.address, "tenure-worker-0") == 0
    worker.signal(signal.SIGTERM)
    assert await worker.wait(60) == ExitCode.OK
