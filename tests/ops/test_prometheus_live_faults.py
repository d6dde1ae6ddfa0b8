"""The real rules on a real Prometheus that scrapes a real cluster: what needs a fault, a program or a time of its own.

Disks and forks are made slow, and a clock is stopped, around the store's own server and a worker (faults.py), a replica
is lost, node_exporter tells of real backups, and an upgrade stops half-way. See test_prometheus_live.py.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from faults import Faults
from memory_box import MemoryBox, can_limit_memory
from observed_cluster import ObservedCluster
from ops.alert_witness import Witness, watched
from ops.test_prometheus_live import store_of
from ops.test_upgrade import build_wheel
from ops_scripts import KEPT, UNAVAILABLE, Scripts
from processes import wait_for
from sentinel import _free_ports
from store_server import StoreServer
from tools import tool
from worker_process import WorkerProcess

from tenure.common.errors import TenureError

# Half a minute each on a machine that is free; they wait for what must happen however long that takes.
pytestmark = [pytest.mark.tools, pytest.mark.timeout(400)]

# A day is three seconds: `for` is nothing, and windows are a few scrapes.
A_DAY_IN_SECONDS = 3


async def test_a_stores_disk_and_forks_are_slow_and_its_clock_stands(tmp_path: Path) -> None:
    replacing = {
        "TenureAofGrows": {"1e9": "1e5"},
        "TenureFsyncSlow": {"> 10": "> 0"},
        "TenureRenewalsLate": {"> 10": "> 1"},
    }
    # It would rewrite its file all the time; a backup that was broken off has turned that off.
    external = {"appendfsync": "everysec", "auto-aof-rewrite-min-size": "1kb", "auto-aof-rewrite-percentage": "0"}
    # No rate over a few scrapes stays as it is for longer: renewals come every few seconds then.
    async with watched("slow", tmp_path, factor=2000, external=external, replacing=replacing) as (cluster, witness):
        store, faults = store_of(cluster), Faults(tmp_path)
        store.kill()
        store.environment = faults.environment
        await asyncio.to_thread(store.start)
        await cluster.add_worker("w1")
        await cluster.submit("first", ["held"], {"gate": str(tmp_path / "gate")})
        await cluster.submit("first", [f"k{number}" for number in range(200)], {"note": "x" * 100})
        await cluster.workers["w1"].journaled("gate")
        # Longer than the two seconds for which the server puts writes off behind an fsync that is under way.
        faults.set(sync_ms=2500)
        await witness.all_fire("TenureFsyncSlow", "TenureLeaseClockSlow", "TenureRenewalsLate", "TenureAofGrows")
        faults.set(fork_ms=1500)
        with store.client() as client:
            client.config_set("auto-aof-rewrite-percentage", 100)
            await witness.clears("TenureAofGrows")
            await witness.fires("TenureForkSlow")
            faults.set()
            with suppress(redis.ResponseError):  # one is under way
                client.bgrewriteaof()
            await witness.clears("TenureForkSlow")
        await witness.all_clear("TenureFsyncSlow", "TenureLeaseClockSlow", "TenureRenewalsLate")
        faults.set(clock_stands=True)
        await witness.fires("TenureLeaseClockStands", severity="critical")
        faults.set()
        await witness.clears("TenureLeaseClockStands")
        (tmp_path / "gate").touch()
        await cluster.all_ended("first")


async def test_a_replica_is_lost_without_which_nothing_is_written(tmp_path: Path) -> None:
    (port,) = _free_ports(1)
    external = {"port": str(port), "bind": "127.0.0.1", "repl-diskless-sync-delay": "0"}
    async with watched("replica", tmp_path, external=external) as (cluster, witness):
        replica = StoreServer(tmp_path / "replica")
        try:
            await follows(cluster, replica, port)
            with store_of(cluster).client() as client:
                client.config_set("min-replicas-to-write", 1)
            replica.kill()
            await witness.fires("TenureReplicaLost")
            # It answers, and refuses.
            await cluster.prometheus.until_fires("TenureStoreDown")
            await follows(cluster, replica, port)
            await witness.clears("TenureReplicaLost")
            await cluster.prometheus.until_clears("TenureStoreDown")
        finally:
            replica.remove()


async def follows(cluster: ObservedCluster, replica: StoreServer, port: int) -> None:
    """Start it, and wait until masters count it."""
    await asyncio.to_thread(replica.start)
    with replica.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", port)
    await cluster.prometheus.until(
        lambda: cluster.prometheus.value("max(tenure_store_replicas)") == 1, "the replica is counted"
    )


async def test_what_takes_a_day_a_program_or_a_damage(tmp_path: Path, scripts: Scripts) -> None:
    replacing = {
        "TenureBackupOld": {"36 * 3600": "10"},
        "TenureMasterBusy": {"> 0.9": "> 0.3"},
    }
    factor = 86400 / A_DAY_IN_SECONDS
    async with watched("days", tmp_path, factor=factor, replacing=replacing) as (cluster, witness):
        await asyncio.gather(
            an_upgrade_stops_half_way(cluster, witness),
            backups_fail_and_end(cluster, witness, scripts),
            storage_is_slow(cluster, witness),
        )
        await a_task_is_damaged(cluster, witness)
        await a_program_asks_too_often(cluster, witness)


async def an_upgrade_stops_half_way(cluster: ObservedCluster, witness: Witness) -> None:
    """One worker is of the next version, a wheel; then it is taken back."""
    folder = cluster.root / "next"
    folder.mkdir()
    with zipfile.ZipFile(build_wheel(folder, "99.0.0")) as wheel:
        wheel.extractall(folder)
    worker = cluster.workers["newer"] = WorkerProcess(cluster.root, "newer")
    worker.environment = {"PYTHONPATH": str(folder)}
    await cluster.start_worker(worker, labels="kind=newer")
    alert = await witness.fires("TenureVersionsMixed")
    assert alert.annotations["summary"].startswith("2 versions")
    worker.signal(signal.SIGTERM)
    await worker.wait()
    worker.environment = {}
    await cluster.start_worker(worker, labels="kind=newer")
    await witness.clears("TenureVersionsMixed")


async def backups_fail_and_end(cluster: ObservedCluster, witness: Witness, scripts: Scripts) -> None:
    """One is made, one is asked for of a folder without a master, and then nobody makes one for a while."""
    textfiles, to = cluster.root / "textfiles", cluster.root / "backups"
    textfiles.mkdir()
    telling = ("--to", to, "--textfile-dir", textfiles)
    backup = ("backup", "--data-dir", cluster.master.data_dir, *telling)
    with node_exporter(textfiles) as address:
        cluster.prometheus.scrape("prometheus", [cluster.prometheus.address, address])
        assert (await scripts(*backup)).code == KEPT
        assert (await scripts("backup", "--data-dir", cluster.root / "elsewhere", *telling)).code == UNAVAILABLE
        await witness.fires("TenureBackupFails", instance=address)
        await witness.fires("TenureBackupOld")
        assert (await scripts(*backup)).code == KEPT
        await witness.all_clear("TenureBackupFails", "TenureBackupOld")
        cluster.prometheus.scrape("prometheus", [cluster.prometheus.address])


@contextmanager
def node_exporter(textfiles: Path) -> Iterator[str]:
    """A node_exporter that exports these files and nothing else; its address."""
    log = textfiles.with_suffix(".log")
    command = [
        tool("prometheus-node-exporter"),
        "--web.listen-address=127.0.0.1:0",
        "--collector.disable-defaults",
        "--collector.textfile",
        f"--collector.textfile.directory={textfiles}",
        "--log.format=json",
    ]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)

    def address() -> str | None:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        return next((line["address"] for line in lines if line.get("msg") == "Listening on"), None)

    try:
        found = wait_for(address, what="the port that node_exporter listens on")
        assert found is not None
        yield found
    finally:
        process.kill()
        process.wait()


async def storage_is_slow(cluster: ObservedCluster, witness: Witness) -> None:
    """Each checkpoint is waited for, and each fsync of it takes a while."""
    folder = cluster.root / "slow"
    folder.mkdir()
    faults = Faults(folder)
    worker = cluster.workers["slow"] = WorkerProcess(cluster.root, "slow")
    worker.environment = faults.environment
    await cluster.start_worker(worker, labels="kind=slow")
    faults.set(sync_ms=200)
    saving = {"steps": "1000", "seconds": "100", "checkpoint": "1"}
    (task,) = await cluster.submit("slow", ["s"], saving, requirements={"labels": {"kind": "slow"}})
    await witness.fires("TenureCheckpointsStall", instance=cluster.instance(worker))
    faults.set()
    await asyncio.to_thread(cluster.client.cancel_tasks, [task])
    await witness.clears("TenureCheckpointsStall")


async def a_task_is_damaged(cluster: ObservedCluster, witness: Witness) -> None:
    """By whoever writes to the store with other tools: it is in no state that there is, which whoever asks meets."""
    (task,) = await cluster.submit("damaged", ["d"], {}, requirements={"labels": {"kind": "newer"}})
    await cluster.all_ended("damaged")
    with redis.Redis(unix_socket_path=str(cluster.master.data_dir / "store.sock")) as client:
        key = f"tenure:{{0}}:task:{task}"
        client.hset(key, "state", "NOWHERE")
        asking = asyncio.create_task(ask(cluster, task))
        await witness.fires("TenureRpcErrors", method="GetTasks")
        client.hset(key, "state", "SUCCEEDED")
        await witness.clears("TenureRpcErrors")
        asking.cancel()
    assert (await cluster.records([task]))[task].state == "SUCCEEDED"


async def a_program_asks_too_often(cluster: ObservedCluster, witness: Witness) -> None:
    """For one task again and again, instead of watching it."""
    (task,) = await cluster.submit("asked", ["a"], {}, requirements={"labels": {"kind": "nobody's"}})
    asking = [asyncio.create_task(ask(cluster, task)) for _ in range(4)]
    await witness.fires("TenureMasterBusy", instance=cluster.instance(cluster.master))
    for each in asking:
        each.cancel()
    await witness.clears("TenureMasterBusy")


async def ask(cluster: ObservedCluster, task: str) -> None:
    """For a task and all that is in it, until cancelled."""
    while True:
        with suppress(TenureError):
            await asyncio.to_thread(cluster.client.get_tasks, [task], full=True)


@pytest.mark.skipif(not can_limit_memory(), reason="needs a cgroup of its own, and may not make one")
async def test_a_container_has_nearly_all_of_its_memory_in_use(tmp_path: Path) -> None:
    """While the machine has plenty. The ballast is there so that little of it is much, and nobody is killed for it."""
    with MemoryBox() as box:
        async with watched("memory", tmp_path) as (cluster, witness):
            worker = cluster.workers["boxed"] = WorkerProcess(cluster.root, "boxed")
            ballast = f"ballast = b'x' * {600 << 20}"
            serving = "import runpy; runpy.run_module('tenure.worker', run_name='__main__')"
            worker.program = ("-c", "; ".join([box.entering, ballast, serving]))
            await cluster.start_worker(worker)
            box.leave_free(24 << 20)
            await witness.fires("TenureWorkerMemoryShort", instance=cluster.instance(worker))
            box.lift()
            await witness.clears("TenureWorkerMemoryShort")
