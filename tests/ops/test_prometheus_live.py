"""The real rules on a real Prometheus that scrapes a real cluster: masters and their store fail, and get well again.

Time runs 240 times as fast in the rules: five minutes are a second and a quarter. What they
compare with in seconds is lowered where a test says so. Workers and their work: test_prometheus_live_workers.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import psutil
import pytest
import redis
from chaos_suite.disks import SmallDisks, can_mount
from observed_cluster import ObservedCluster
from ops.alert_witness import ALWAYS, LIVE, LIVE_WITH_MOUNTS, Witness, watched
from ops.test_prometheus import ALERTS
from processes import eventually
from store_server import StoreServer, delete_keys, keys_of

# Half a minute each on a machine that is free; they wait for what must happen however long that takes.
pytestmark = [pytest.mark.tools, pytest.mark.timeout(400)]

# A window of seconds would be over before a master is up again on a busy machine.
LONGER = {"[30m]": "[90m]"}


def test_every_alert_is_provoked() -> None:
    named = [
        *ALWAYS,
        *(name for scenes in (LIVE, LIVE_WITH_MOUNTS) for each in scenes.values() for name in each),
    ]
    assert sorted(named) == sorted(ALERTS)


async def test_masters_and_their_store_fail(tmp_path: Path) -> None:
    replacing = {
        "TenureMasterRestarts": {"> 3": "> 0", **LONGER},
        "TenureFsckOld": {"3 * 86400": "6"},
        "TenureStoreRolledBack": {"< 900": "< 5"},
    }
    async with watched("masters", tmp_path, masters=2, external=True, replacing=replacing) as (cluster, witness):
        await cluster.add_worker("w1")
        await all_masters_die(cluster, witness)
        await one_master_dies(cluster, witness)
        await files_run_short(cluster, witness)
        await the_store_dies(cluster, witness)
        await the_store_is_full(cluster, witness)
        await the_store_is_damaged(cluster, witness)
        await the_store_is_rolled_back(cluster, witness)
        await a_rule_is_wrong(cluster, witness)
        await witness.clears("TenureMasterRestarts")


async def all_masters_die(cluster: ObservedCluster, witness: Witness) -> None:
    """While a run is under way, which ends before they are back."""
    gate = cluster.root / "gate"
    (held,) = await cluster.submit("first", ["held"], {"gate": str(gate)})
    await cluster.workers["w1"].journaled("gate", held)
    for master in cluster.masters:
        master.kill()
    worker = cluster.instance(cluster.workers["w1"])
    await witness.fires("TenureNoMaster", severity="critical")
    await witness.fires("TenureWorkerCutOff", instance=worker)
    gate.touch()
    await witness.fires("TenureSpoolGrows", instance=worker)
    await asyncio.gather(*(cluster.restart(master) for master in cluster.masters))
    await witness.all_clear("TenureNoMaster", "TenureWorkerCutOff", "TenureSpoolGrows")
    await cluster.all_ended("first")


async def one_master_dies(cluster: ObservedCluster, witness: Witness) -> None:
    """The other one serves on."""
    master = cluster.masters[1]
    instance = cluster.instance(master)
    master.kill()
    await witness.fires("TenureMasterDown", instance=instance)
    assert cluster.prometheus.alerts("TenureNoMaster") == []
    await cluster.restart(master)
    await witness.fires("TenureMasterRestarts", instance=instance)
    await witness.clears("TenureMasterDown")


async def files_run_short(cluster: ObservedCluster, witness: Witness) -> None:
    """A limit that is hardly above what is open."""
    process = psutil.Process(cluster.masters[0].pid)
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 3, before[1]))
    await witness.fires("TenureFilesShort", instance=cluster.instance(cluster.masters[0]))
    process.rlimit(psutil.RLIMIT_NOFILE, before)
    await witness.clears("TenureFilesShort")


async def the_store_dies(cluster: ObservedCluster, witness: Witness) -> None:
    """SIGKILL; both masters notice."""
    store = store_of(cluster)
    store.kill()
    for master in cluster.masters:
        await witness.fires("TenureStoreDown", severity="critical", instance=cluster.instance(master))
    await asyncio.to_thread(store.start)
    await witness.clears("TenureStoreDown")


async def the_store_is_full(cluster: ObservedCluster, witness: Witness) -> None:
    """Its limit is set below what it uses; then it is lifted, and what was refused goes through by itself."""
    with store_of(cluster).client() as client:
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory", int(used * 0.95))
        await witness.fires("TenureStoreMemoryShort")
        # Several programs: each tries again, and ever more rarely.
        submits = [asyncio.create_task(cluster.submit("first", [f"refused {n}"], {})) for n in range(5)]
        await witness.fires("TenureSubmitsRefused", severity="critical", method="Submit")
        assert not any(submit.done() for submit in submits)
        client.config_set("maxmemory", 0)
    await asyncio.gather(*submits)
    await witness.all_clear("TenureStoreMemoryShort", "TenureSubmitsRefused")


async def the_store_is_damaged(cluster: ObservedCluster, witness: Witness) -> None:
    """An index is lost that nobody had checked so far, and put back."""
    index = "tenure:{0}:ended:first:SUCCEEDED"
    await witness.fires("TenureFsckOld")
    await cluster.all_ended("first")
    with store_of(cluster).client() as client:
        kept = client.dump(index)
        client.delete(index)
        assert await cluster.fsck()
        await witness.clears("TenureFsckOld")
        alert = await witness.fires("TenureFsckViolations", severity="critical")
        assert "violations" in alert.annotations["summary"]
        client.restore(index, 0, kept, replace=True)
    assert await cluster.fsck() == []
    await witness.clears("TenureFsckViolations")


async def the_store_is_rolled_back(cluster: ObservedCluster, witness: Witness) -> None:
    """Everything in it is as it was some ticks ago."""
    with store_of(cluster).client() as client:
        before = {key: client.dump(key) for key in keys_of(client, "tenure")}
        clock = clock_ms(client)
        await eventually(lambda: clock_ms(client) > clock + 1500, what="ticks of the lease clock")
        delete_keys(client, "tenure")
        for key, value in before.items():
            client.restore(key, 0, value, replace=True)
    await witness.fires("TenureStoreRolledBack")
    await witness.clears("TenureStoreRolledBack")


async def a_rule_is_wrong(cluster: ObservedCluster, witness: Witness) -> None:
    """A join that finds several series where it may find one."""
    wrong = {"record": "tenure:wrong:max", "expr": "up * on () up"}
    cluster.prometheus.add_rules("wrong", [{"name": "wrong", "rules": [wrong]}])
    await witness.fires("TenureRulesFail")
    cluster.prometheus.add_rules("wrong", [])
    await witness.clears("TenureRulesFail")


async def test_an_embedded_store_dies_and_is_slow(tmp_path: Path) -> None:
    replacing = {"TenureRpcSlow": {"> 2.5": "> 0.5"}}
    async with watched("store", tmp_path, factor=120, replacing=replacing) as (cluster, witness):
        before = cluster.master.store_pid
        psutil.Process(before).kill()
        await witness.fires("TenureStoreRestarted", instance=cluster.instance(cluster.master))
        slow = asyncio.create_task(hold_up(cluster.master.data_dir / "store.sock"))
        asking = asyncio.create_task(ask_again_and_again(cluster))
        await witness.all_fire("TenureStoreSlow", "TenureRpcSlow")
        for task in (slow, asking):
            task.cancel()
        await asyncio.gather(slow, asking, return_exceptions=True)
        await witness.all_clear("TenureStoreRestarted", "TenureStoreSlow", "TenureRpcSlow")


async def hold_up(socket: Path) -> None:
    """The server answers nobody for most of each second, until cancelled."""
    with redis.Redis(unix_socket_path=str(socket)) as client:
        while True:
            client.client_pause(800)
            # Held up, too: it is answered when the pause is over.
            await asyncio.to_thread(client.ping)


async def ask_again_and_again(cluster: ObservedCluster) -> None:
    """Calls, one after the other, until cancelled."""
    while True:
        await cluster.counters()


@pytest.mark.skipif(not can_mount(), reason="needs small file systems, and may not mount any")
async def test_disks_are_full(tmp_path: Path) -> None:
    disks = SmallDisks(tmp_path)
    disks.make("store", 32)
    disks.make("w1", 32)
    replacing = {"TenureDiskShort": {"1024 * 1024 * 1024": "16 * 1024 * 1024"}}
    # One that fsyncs at every write ends when it can't; this one goes on and refuses writes.
    external = {"appendfsync": "everysec"}
    try:
        async with watched("disks", tmp_path, external=external, replacing=replacing) as (cluster, witness):
            worker = await cluster.add_worker("w1")
            disks.fill("w1")
            await witness.fires("TenureDiskShort", instance=cluster.instance(worker), kind="work_dir")
            disks.free("w1")
            await witness.clears("TenureDiskShort")

            disks.fill("store")
            await witness.fires("TenureAofUnhealthy", severity="critical")
            # It refuses writes, and a tick is one.
            await cluster.prometheus.until_fires("TenureStoreDown")
            with store_of(cluster).client() as client:
                with contextlib.suppress(redis.ResponseError):
                    client.bgrewriteaof()
                await witness.fires("TenureAofRewriteFails")
                disks.free("store")
                await witness.clears("TenureAofUnhealthy")
                await eventually(lambda: rewritten(client), what="a rewrite of the append-only file")
            await witness.clears("TenureAofRewriteFails")
    finally:
        disks.remove()


def rewritten(client: redis.Redis) -> bool:
    """Whether the last rewrite went well; starts another one if not."""
    figures = client.info("persistence")
    if figures["aof_last_bgrewrite_status"] != "ok" and not figures["aof_rewrite_in_progress"]:
        client.bgrewriteaof()
    return bool(figures["aof_last_bgrewrite_status"] == "ok")


def store_of(cluster: ObservedCluster) -> StoreServer:
    """The external one."""
    assert cluster.store is not None
    return cluster.store


def clock_ms(client: redis.Redis) -> int:
    """The lease clock of the only shard."""
    return int(client.hget("tenure:{0}:clock", "now") or 0)
