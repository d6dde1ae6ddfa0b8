"""The real rules on a real Prometheus that scrapes a real cluster: workers, runs and machines fail, and get well again.

See test_prometheus_live.py.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from observed_cluster import ObservedCluster
from ops.alert_witness import Witness, watched
from ops.test_prometheus import RECORDS
from processes import eventually
from worker_process import TESTS, WorkerProcess

# Half a minute each on a machine that is free; they wait for what must happen however long that takes.
pytestmark = [pytest.mark.tools, pytest.mark.timeout(400)]

NAMES = ("a", "b", "c", "d", "e")
# Nothing of these happens in the scene that looks at all others.
NOT_RECORDED_THERE = {"morphml_worker_gpu_percent", "tenure:store_memory_used:ratio"}


async def test_work_goes_wrong(tmp_path: Path) -> None:
    replacing = {"TenureQueuedTooLong": {"> 3600": "> 1"}, "TenureComputeWasted": {"> 3600": "> 1"}}
    settings = {"retry_base_seconds": 0, "retry_max_seconds": 0}
    async with watched("work", tmp_path, replacing=replacing, **settings) as (cluster, witness):
        await nobody_works(cluster, witness)
        await a_search_is_paused(cluster, witness)
        leaving = {"evaluator": "leaving_evaluators:evaluate", "labels": "kind=leaving"}
        await cluster.add_worker("leaving", **leaving)
        await asyncio.gather(
            an_evaluator_is_wrong(cluster, witness),
            executors_die(cluster, witness),
            memory_is_short(cluster, witness),
            something_is_left_behind(cluster, witness),
            witness.fires("TenureComputeWasted"),
        )
        assert await silent_records(cluster) == NOT_RECORDED_THERE
        await witness.clears("TenureComputeWasted")


async def nobody_works(cluster: ObservedCluster, witness: Witness) -> None:
    """Tasks are submitted before there is a worker."""
    await cluster.submit("first", ["a", "b"], {})
    await witness.fires("TenureNoWorkers", severity="critical")
    await cluster.add_worker("w1", slots=2, labels="kind=w1")
    await witness.clears("TenureNoWorkers")
    await cluster.all_ended("first")


async def a_search_is_paused(cluster: ObservedCluster, witness: Witness) -> None:
    """While slots are free."""
    search = cluster.client.search("first")
    await asyncio.to_thread(search.pause)
    await cluster.submit("first", ["paused"], {})
    await witness.fires("TenureQueuedTooLong", search="first", requirements="any")
    await asyncio.to_thread(search.resume)
    await witness.clears("TenureQueuedTooLong")


async def an_evaluator_is_wrong(cluster: ObservedCluster, witness: Witness) -> None:
    """Every run fails; then the evaluator is mended, and the dead letters are requeued."""
    keys = [f"k{number}" for number in range(20)]
    failing = {"fate": "fatal", "fate_epochs": "1", "seconds": "0.4"}
    tasks = await cluster.submit("wrong", keys, failing, requirements={"labels": {"kind": "w1"}})
    await asyncio.gather(witness.fires("TenureMostRunsFail"), witness.fires("TenureDeadLetters", search="wrong"))
    await cluster.all_ended("wrong")
    await asyncio.to_thread(cluster.client.requeue_tasks, tasks)
    await witness.all_clear("TenureDeadLetters", "TenureMostRunsFail")


async def executors_die(cluster: ObservedCluster, witness: Witness) -> None:
    """Tasks that kill what runs them, until their own budget stops them."""
    poison = {"fate": "kill"}
    await cluster.submit("poison", ["p1", "p2"], poison, max_losses=5, requirements={"labels": {"kind": "w1"}})
    await asyncio.gather(
        witness.fires("TenureRunsLost", cause="SIGKILL"),
        witness.fires("TenureExecutorsCrash", instance=cluster.instance(cluster.workers["w1"])),
    )
    await cluster.all_ended("poison")
    await witness.all_clear("TenureRunsLost", "TenureExecutorsCrash")


async def memory_is_short(cluster: ObservedCluster, witness: Witness) -> None:
    """Runs that ask for more than there is."""
    keys = [f"m{number}" for number in range(8)]
    await cluster.submit("large", keys, {"fate": "memory"}, requirements={"labels": {"kind": "w1"}})
    await witness.fires("TenureOutOfMemory")
    await witness.clears("TenureOutOfMemory")


async def something_is_left_behind(cluster: ObservedCluster, witness: Witness) -> None:
    """Each run leaves a process."""
    keys = [f"l{number}" for number in range(7)]
    leaving = {"labels": {"kind": "leaving"}}
    await cluster.submit("leaving", keys, {"does": "process"}, requirements=leaving)
    instance = cluster.instance(cluster.workers["leaving"])
    await witness.fires("TenureExecutorsLeak", instance=instance, reason="processes_left")
    await witness.clears("TenureExecutorsLeak")


async def silent_records(cluster: ObservedCluster) -> set[str]:
    """What is recorded, and had no sample in this scene."""
    asked = {name: f"count(last_over_time({name}[10m]))" for name in RECORDS}
    return {
        name for name, expression in asked.items() if not await asyncio.to_thread(cluster.prometheus.query, expression)
    }


async def test_workers_vanish(tmp_path: Path) -> None:
    replacing = {
        # A window of seconds would be over before a worker is up again on a busy machine.
        "TenureWorkerRestarts": {"> 3": "> 0", "[30m]": "[90m]"},
        "TenureCheckpointsSkipped": {"< 900": "< 20"},
        "TenureScrapesSlow": {"> 5": "> 0.45"},
        "TenureRunSilent": {"> 7200": "> 2"},
        "TenureCheckpointOld": {"> 7200": "> 2"},
    }
    # With ticks that far apart the leases of workers that stop together run out in two ticks at most; of five workers
    # with equal numbers of leases, that are most of them in one of the two, whatever the split.
    settings = {"lease_ttl_seconds": 4, "heartbeat_seconds": 0.5, "tick_seconds": 1.5}
    async with watched("workers", tmp_path, replacing=replacing, **settings) as (cluster, witness):
        await asyncio.gather(*(cluster.add_worker(name, slots=2, labels="kind=here") for name in NAMES))
        gate = tmp_path / "gate"
        waiting = {"steps": "2", "checkpoint": "1", "gate": str(gate), "gate_step": "1"}
        keys = [f"k{number}" for number in range(2 * len(NAMES))]
        tasks = await cluster.submit("first", keys, waiting, requirements={"labels": {"kind": "here"}})
        await eventually(lambda: len(cluster.journal("gate")) == len(keys), 90, what="all runs at the gate")
        await witness.fires("TenureRunSilent", instance=cluster.instance(cluster.workers["a"]), slot="0")
        await witness.fires("TenureCheckpointOld", instance=cluster.instance(cluster.workers["a"]), slot="1")
        await one_is_not_scraped(cluster, witness)
        await some_are_killed(cluster, witness)
        await eventually(lambda: all_held(cluster, tasks), 90, what="runs that are resumed")
        await all_are_cut_off(cluster, witness)
        gate.touch()
        clear = ("TenureRunSilent", "TenureCheckpointOld", "TenureCheckpointsSkipped", "TenureLeasesExpire")
        await witness.all_clear("TenureWorkerRestarts", *clear)
        await cluster.all_ended("first")


async def one_is_not_scraped(cluster: ObservedCluster, witness: Witness) -> None:
    """A worker that nobody listed among Prometheus's targets."""
    worker = cluster.workers["unseen"] = WorkerProcess(cluster.root, "unseen")
    await worker.start(cluster.addresses, labels="kind=unseen")
    await witness.fires("TenureWorkersUnseen")
    await cluster.watch(worker)
    await witness.clears("TenureWorkersUnseen")


async def all_are_cut_off(cluster: ObservedCluster, witness: Witness) -> None:
    """Their supervisors are stopped: they hold their connections and say nothing."""
    for name in NAMES:
        cluster.workers[name].signal(signal.SIGSTOP)
    # Together: each is seen for a few seconds only.
    await asyncio.gather(
        witness.fires("TenureReaperPaused", severity="critical"),
        witness.fires("TenureScrapesSlow", instance=cluster.instance(cluster.workers["a"])),
        witness.fires("TenureLeasesExpire", cause="silent"),
    )
    for name in NAMES:
        cluster.workers[name].signal(signal.SIGCONT)
    await witness.all_clear("TenureReaperPaused", "TenureScrapesSlow")


async def all_held(cluster: ObservedCluster, tasks: list[str]) -> bool:
    """Whether every task has its lease."""
    records = await cluster.records(tasks)
    return all(record.state == "LEASED" for record in records.values())


async def some_are_killed(cluster: ObservedCluster, witness: Witness) -> None:
    """With all that they hold; and what they have saved is gone, too."""
    killed = [cluster.workers[name] for name in NAMES[:2]]
    for worker in killed:
        worker.executors()
        worker.signal(signal.SIGKILL)
    await asyncio.gather(*(worker.wait() for worker in killed))
    instance = cluster.instance(killed[0])
    await asyncio.gather(
        witness.fires("TenureWorkerDown", instance=instance), witness.fires("TenureLeasesExpire", cause="disconnected")
    )
    shutil.rmtree(cluster.root / "checkpoints")
    await asyncio.gather(
        *(cluster.start_worker(worker, slots=2, labels="kind=here") for worker in killed),
        witness.fires("TenureWorkerRestarts", instance=instance),
        witness.fires("TenureCheckpointsSkipped", instance=instance),
    )
    await witness.clears("TenureWorkerDown")


async def test_machines_fail(tmp_path: Path) -> None:
    async with watched("machines", tmp_path) as (cluster, witness):
        await asyncio.gather(
            storage_fails(cluster, witness),
            an_evaluator_disappears(cluster, witness),
            notices_cannot_be_asked_for(cluster, witness),
            gpus_fail(cluster, witness),
        )
        assert await asyncio.to_thread(cluster.prometheus.query, "last_over_time(morphml_worker_gpu_percent[10m])")


async def storage_fails(cluster: ObservedCluster, witness: Witness) -> None:
    """Where checkpoints go, and then where results are spooled, is a file where a folder was."""
    checkpoints = cluster.root / "checkpoints-w1"
    worker = await cluster.add_worker("w1", labels="kind=w1", checkpoints=checkpoints)
    instance = cluster.instance(worker)
    mine = {"labels": {"kind": "w1"}}
    with replaced_by_a_file(checkpoints):
        saving = {"steps": "3", "checkpoint": "1"}
        await cluster.submit("first", ["unsaved"], saving, requirements=mine)
        await witness.fires("TenureCheckpointsFail", instance=instance)
    await witness.clears("TenureCheckpointsFail")
    await cluster.all_ended("first")
    with replaced_by_a_file(worker.work_dir / "spool"):
        await cluster.submit("first", ["unspooled"], {}, requirements=mine)
        await witness.fires("TenureSpoolUnwritable", severity="critical", instance=instance)
    await witness.clears("TenureSpoolUnwritable")
    await cluster.all_ended("first")


@contextmanager
def replaced_by_a_file(folder: Path) -> Iterator[None]:
    """Nothing can be written there, whoever tries."""
    aside = folder.with_name(folder.name + "-aside")
    folder.mkdir(exist_ok=True)
    folder.rename(aside)
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)


async def an_evaluator_disappears(cluster: ObservedCluster, witness: Witness) -> None:
    """Its module is gone when the executor is started anew, and comes back."""
    code = cluster.root / "code"
    code.mkdir()
    module = code / "frail.py"
    module.write_text("def evaluate(task, context):\n    return {'fitness': 1.0}\n")
    settings = {"evaluator": "frail:evaluate", "python_path": str(code), "labels": "kind=frail"}
    worker = await cluster.add_worker("frail", **settings)
    module.unlink()
    for executor in worker.executors():
        executor.kill()
    await witness.fires("TenureSlotBroken", instance=cluster.instance(worker))
    module.write_text("def evaluate(task, context):\n    return {'fitness': 1.0}\n")
    await witness.clears("TenureSlotBroken")


async def notices_cannot_be_asked_for(cluster: ObservedCluster, witness: Witness) -> None:
    """The URL of preemption notices answers that it is out of order; then, that there is none."""
    with notices() as (url, say):
        settings = {"preemption_url": url, "preemption_poll_seconds": 0.2, "labels": "kind=spot"}
        worker = await cluster.add_worker("spot", **settings)
        await witness.fires("TenurePreemptionUnseen", instance=cluster.instance(worker))
        say[0] = 404
        await witness.clears("TenurePreemptionUnseen")


@contextmanager
def notices() -> Iterator[tuple[str, list[int]]]:
    """A server of preemption notices, and the status that it answers with: at first 500."""
    status = [500]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status[0])

        def log_request(self, code: object = "", size: object = "") -> None:
            pass

        def log_error(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/notice", status
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def gpus_fail(cluster: ObservedCluster, witness: Witness) -> None:
    """One has memory errors and falls off the bus, the other is hot. NVML is a recording (tests/nvml/failing.json)."""
    gates = cluster.root / "gates"
    gates.mkdir()
    worker = cluster.workers["gpus"] = WorkerProcess(cluster.root, "gpus")
    worker.program = (str(TESTS / "worker_with_gpus.py"), "failing", str(gates))
    await cluster.start_worker(worker, labels="kind=gpus")
    instance = cluster.instance(worker)
    for name in ("ecc", "heat", "xid-79"):
        (gates / name).touch()
    await asyncio.gather(
        witness.fires("TenureGpuMemoryErrors", instance=instance),
        witness.fires("TenureSlotCordoned", instance=instance, slot="0", cause="xid"),
        witness.fires("TenureGpuThrottled", instance=instance),
    )
    (gates / "heat").unlink()
    await asyncio.to_thread(cluster.client.uncordon_worker, "gpus")
    await witness.all_clear("TenureSlotCordoned", "TenureGpuThrottled", "TenureGpuMemoryErrors")
