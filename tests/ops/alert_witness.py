"""Which alerts a test has seen fire and clear on a real cluster, and the list of what each scene must see."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from observed_cluster import ObservedCluster
from prometheus_server import Alert

ROOT = Path(__file__).resolve().parents[2]

# By scene: what is made to fail for real, fires with the right labels, and clears by what its runbook says.
LIVE = {
    "masters": {
        "TenureNoMaster",
        "TenureMasterDown",
        "TenureMasterRestarts",
        "TenureFilesShort",
        "TenureSubmitsRefused",
        "TenureStoreDown",
        "TenureStoreRolledBack",
        "TenureStoreMemoryShort",
        "TenureFsckViolations",
        "TenureFsckOld",
        "TenureWorkerCutOff",
        "TenureSpoolGrows",
        "TenureRulesFail",
    },
    "store": {
        "TenureStoreRestarted",
        "TenureStoreSlow",
        "TenureRpcSlow",
    },
    "work": {
        "TenureNoWorkers",
        "TenureQueuedTooLong",
        "TenureDeadLetters",
        "TenureMostRunsFail",
        "TenureRunsLost",
        "TenureOutOfMemory",
        "TenureExecutorsCrash",
        "TenureExecutorsLeak",
        "TenureComputeWasted",
    },
    "workers": {
        "TenureLeasesExpire",
        "TenureReaperPaused",
        "TenureWorkerDown",
        "TenureWorkerRestarts",
        "TenureWorkersUnseen",
        "TenureScrapesSlow",
        "TenureCheckpointsSkipped",
        "TenureRunSilent",
        "TenureCheckpointOld",
    },
    "machines": {
        "TenureCheckpointsFail",
        "TenureSpoolUnwritable",
        "TenureSlotBroken",
        "TenurePreemptionUnseen",
        "TenureSlotCordoned",
        "TenureGpuMemoryErrors",
        "TenureGpuThrottled",
    },
    "slow": {
        "TenureAofGrows",
        "TenureFsyncSlow",
        "TenureForkSlow",
        "TenureLeaseClockSlow",
        "TenureLeaseClockStands",
        "TenureRenewalsLate",
    },
    "replica": {"TenureReplicaLost"},
    "days": {
        "TenureVersionsMixed",
        "TenureBackupOld",
        "TenureBackupFails",
        "TenureCheckpointsStall",
        "TenureRpcErrors",
        "TenureMasterBusy",
    },
}
# Where a small file system may be mounted and a cgroup be made (root on Linux) these, too.
LIVE_WITH_MOUNTS = {
    "disks": {"TenureAofUnhealthy", "TenureAofRewriteFails", "TenureDiskShort"},
    "memory": {"TenureWorkerMemoryShort"},
}
# Fires always: seen in each scene.
ALWAYS = {"TenureWatchdog"}


class Witness:
    """Waits for alerts of a cluster and keeps which of them fired and cleared.

    Attributes:
        seen: Alerts that did both.
    """

    def __init__(self, cluster: ObservedCluster) -> None:
        self._prometheus = cluster.prometheus
        self._fired: set[str] = set()
        self.seen: set[str] = set()

    async def fires(self, name: str, **labels: str) -> Alert:
        """Wait until it fires with these labels; its texts are filled in and its runbook is there."""
        alert = await self._prometheus.until_fires(name, **labels)
        self._fired.add(name)
        for text in alert.annotations.values():
            assert "{{" not in text
            assert "<no value>" not in text
            assert "<error" not in text, "a template that failed says so in its text"
        assert (ROOT / alert.annotations["runbook_url"]).is_file()
        return alert

    async def clears(self, name: str, **labels: str) -> None:
        """Wait until it has cleared."""
        assert name in self._fired
        await self._prometheus.until_clears(name, **labels)
        self.seen.add(name)

    async def all_fire(self, *names: str) -> None:
        """Each of them, in whatever order."""
        await asyncio.gather(*(self.fires(name) for name in names))

    async def all_clear(self, *names: str) -> None:
        """Each of them, in whatever order."""
        await asyncio.gather(*(self.clears(name) for name in names))

    def assert_well(self, scene: str) -> None:
        """The scene has seen what it must, and Prometheus could evaluate every rule."""
        assert self.seen == {**LIVE, **LIVE_WITH_MOUNTS}[scene]
        assert self._prometheus.alerts("TenureWatchdog", severity="none")
        broken = [rule for rule in self._prometheus.rules() if rule["health"] != "ok" or rule.get("lastError")]
        assert broken == []


@contextlib.asynccontextmanager
async def watched(
    scene: str, root: Path, *, factor: float = 240, **settings: Any
) -> AsyncIterator[tuple[ObservedCluster, Witness]]:
    """A cluster under Prometheus for one scene; at its end all that the scene must see was seen.

    Args:
        scene: Its name in :data:`LIVE`.
        root: Everything is below it.
        factor: By how much time in the rules is faster.
        settings: For :meth:`ObservedCluster.start`.
    """
    cluster = await ObservedCluster.start(root, factor=factor, **settings)
    try:
        witness = Witness(cluster)
        yield cluster, witness
        witness.assert_well(scene)
    finally:
        await cluster.destroy()
