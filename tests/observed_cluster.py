"""A whole Tenure under a real Prometheus: cluster.py's processes, scraped and judged by what ops/prometheus says.

::

    cluster = await ObservedCluster.start(tmp_path, masters=2)
    try:
        await cluster.add_worker("w1")
        cluster.masters[0].kill()
        await cluster.prometheus.until_fires("TenureMasterDown", instance=cluster.instance(cluster.masters[0]))
        cluster.restart(cluster.masters[0])
        await cluster.prometheus.until_clears("TenureMasterDown")
    finally:
        await cluster.destroy()
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import Cluster
from processes import MasterProcess, start_master
from prometheus_server import PrometheusServer
from store_server import StoreServer
from worker_process import WorkerProcess

from tenure.client import Client

MASTERS, WORKERS = "tenure-master", "tenure-worker"


class ObservedCluster(Cluster):
    """Masters, workers and a Prometheus; every process that is added is scraped at once. Made by :meth:`start`.

    Attributes:
        masters: All of them, the first is ``master``, too.
        prometheus: The server.
        store: The store's process when it is an external one.
    """

    def __init__(
        self, root: Path, prometheus: PrometheusServer, store: StoreServer | None = None, **master_settings: Any
    ) -> None:
        self.prometheus = prometheus
        self.store = store
        self._master_settings = {
            "lease_ttl_seconds": 4.0,
            "heartbeat_seconds": 1.0,
            "store": store.url if store is not None else None,
            **master_settings,
        }
        super().__init__(root, **self._master_settings)
        self.masters: list[MasterProcess] = [self.master]
        # Killed ones stay targets: that they don't answer is what shall be seen.
        self._worker_addresses: dict[str, str] = {}

    @classmethod
    async def start(
        cls,
        root: Path,
        *,
        masters: int = 1,
        external: bool | Mapping[str, str] = False,
        factor: float = 60,
        replacing: Mapping[str, Mapping[str, str]] | None = None,
        external_labels: Mapping[str, str] | None = None,
        **master_settings: Any,
    ) -> ObservedCluster:
        """Start it, without workers, and wait until Prometheus has scraped every master.

        Args:
            root: Everything is below it.
            masters: How many; more than one needs an ``external`` store.
            external: Whether the store is a server of its own; a mapping is more of its configuration.
            factor: See :class:`PrometheusServer`.
            replacing: See :class:`PrometheusServer`.
            external_labels: See :class:`PrometheusServer`.
            master_settings: For every master.
        """
        assert masters == 1 or external is not False, "an embedded store has one master"
        settings = external if isinstance(external, Mapping) else {}
        store = StoreServer(root / "store", **settings).start() if external is not False else None
        prometheus = PrometheusServer(root / "prometheus", factor, replacing, external_labels=external_labels)
        await asyncio.to_thread(prometheus.start)
        cluster = await asyncio.to_thread(cls, root, prometheus, store, **master_settings)
        for _ in range(masters - 1):
            await asyncio.to_thread(cluster._add_master)
        cluster.client.close()
        cluster.client = Client(cluster.addresses, timeout_seconds=120)
        cluster._scrape_masters()
        await prometheus.until_scraped(MASTERS, masters)
        return cluster

    @property
    def addresses(self) -> str:
        """Of all masters, for clients and workers."""
        return ",".join(master.address for master in self.masters)

    @staticmethod
    def instance(process: MasterProcess | WorkerProcess) -> str:
        """The process's ``instance`` label."""
        facts = process.facts if isinstance(process, MasterProcess) else process.ready
        return str(facts["http"])

    async def add_worker(self, name: str, **settings: Any) -> WorkerProcess:
        """Start a worker, have it scraped, and wait until it serves and was."""
        worker = WorkerProcess(self.root, name)
        self.workers[name] = worker
        return await self.start_worker(worker, **settings)

    async def start_worker(self, worker: WorkerProcess, **settings: Any) -> WorkerProcess:
        """Start a worker (again, at its old address), and wait until it serves and was scraped."""
        known = self._worker_addresses.get(worker.name)
        await worker.start(self.addresses, **({"http": known} if known else {}), **settings)
        await self.watch(worker)
        return worker

    async def watch(self, worker: WorkerProcess) -> None:
        """Have a worker scraped that was started by other means, and wait until it was."""
        self._worker_addresses[worker.name] = self.instance(worker)
        self.prometheus.scrape(WORKERS, list(self._worker_addresses.values()))
        await self.prometheus.until(
            lambda: self.prometheus.value(f'up{{instance="{self.instance(worker)}"}}') == 1, f"{worker.name} is scraped"
        )

    async def restart(self, master: MasterProcess, **settings: Any) -> None:
        """Start a master that was ended, at its old addresses."""
        await asyncio.to_thread(master.restart, http=self.instance(master), **settings)

    async def destroy(self) -> None:
        """End everything, whatever state it is in."""
        await super().destroy()
        for master in self.masters:
            master.remove()
        self.prometheus.remove()
        if self.store is not None:
            self.store.remove()

    def _add_master(self) -> None:
        folder = self.root / f"master-{len(self.masters) + 1}"
        self.masters.append(start_master(folder, **self._master_settings))

    def _scrape_masters(self) -> None:
        self.prometheus.scrape(MASTERS, [self.instance(master) for master in self.masters])
