"""docs/metrics.md says what a master and a worker really export, and nothing is exported that it doesn't say."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from pathlib import Path

from cluster import Cluster
from processes import eventually
from prometheus_client.parser import text_string_to_metric_families
from worker_process import TESTS, WorkerProcess

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
# Of prometheus_client's own collectors, which the page names by their prefixes.
OTHERS = ("process_", "python_")


def on_the_page() -> dict[str, tuple[str, set[str]]]:
    """Kind and labels by name."""
    rows = re.findall(r"^\| `(tenure_\w+)` \| (\w+) \| [^|]* \| ([^|]*) \|", PAGE.read_text(), re.MULTILINE)
    return {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in rows}


async def scrape(address: str) -> dict[str, tuple[str, set[str]]]:
    """The same of what is exported, but for series of which there is no sample now."""

    def get() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as response:
            return str(response.read().decode())

    found = {}
    for family in text_string_to_metric_families(await asyncio.to_thread(get)):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        created = family.name.endswith("_created")
        if family.samples and not created and not family.name.startswith(OTHERS):
            found[family.name + ("_total" if family.type == "counter" else "")] = (family.type, labels)
    return found


async def test_the_page_lists_what_is_exported_with_its_labels(cluster: Cluster) -> None:
    worker = cluster.workers["w1"] = WorkerProcess(cluster.root, "w1")
    worker.program = (str(TESTS / "worker_with_gpus.py"), "xid", str(cluster.root))
    await worker.start(cluster.master.address)
    held = {"steps": "3", "checkpoint": "1", "gate": str(cluster.root / "gate"), "gate_step": "2"}
    await cluster.submit("first", ["held"], held)
    await eventually(lambda: worker.log_lines("checkpoint.registered"), what="a checkpoint")
    page, exported = on_the_page(), await scrape(worker.ready["http"])
    exported |= await scrape(cluster.master.facts["http"])
    assert {name: page.get(name) for name in exported} == exported
    assert {"tenure_worker_disk_free_bytes", "tenure_worker_gpu_power_watts", "tenure_leases_live"} <= exported.keys()
