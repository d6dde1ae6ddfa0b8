"""The real rules on a real Prometheus that scrapes a real cluster: what fails raises its alert, remedies clear it."""

from __future__ import annotations

from pathlib import Path

import pytest
from observed_cluster import ObservedCluster

pytestmark = pytest.mark.tools


async def test_a_killed_master(tmp_path: Path) -> None:
    cluster = await ObservedCluster.start(tmp_path, masters=2, external=True)
    try:
        await cluster.add_worker("w1")
        assert cluster.prometheus.alerts() == []
        cluster.masters[0].kill()
        await cluster.prometheus.until_fires("TenureMasterDown", instance=cluster.instance(cluster.masters[0]))
        await cluster.restart(cluster.masters[0])
        await cluster.prometheus.until_clears("TenureMasterDown")
        for rule in cluster.prometheus.rules():
            assert rule["health"] == "ok", rule
    finally:
        await cluster.destroy()
