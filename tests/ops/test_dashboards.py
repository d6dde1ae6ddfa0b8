"""Dashboards and rules agree with what masters and workers really export."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import Cluster
from processes import eventually
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from worker_process import TESTS, WorkerProcess

from tenure.master.metrics import MasterMetrics
from tenure.worker.metrics import Instruments

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "ops" / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((ROOT / "ops" / "prometheus" / "rules").glob("*.yml"))
# Labels that Prometheus gives, and the ones that recorded series and joins bring along.
GIVEN_LABELS = {"instance", "job", "le", "worker"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "info": ("_info",)}


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def panels(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of everything that asks for a series."""
    for path in DASHBOARDS:
        document = load(path)
        for panel in panels(document):
            yield from ((f"{path.name}: {panel['title']}", target["expr"]) for target in panel["targets"])
        for variable in document["templating"]["list"]:
            if variable["type"] == "query":
                yield (
                    f"{path.name}: ${variable['name']}",
                    re.sub(r"label_values\((.*), *(\w+)\)", r"\1{\2=~'.'}", variable["definition"]),
                )
    for rule in rules():
        yield rule.get("alert", rule.get("record")), rule["expr"]


def metrics_in(expression: str) -> set[str]:
    """Names of series; recorded ones left out."""
    text = re.sub(r'"[^"]*"|\'[^\']*\'', '""', expression)
    names = set(re.findall(r"(?<![\w:])(?:tenure|process|python)_\w+(?![\w:])", text))
    return {name for name in names if not re.search(rf":{name}\b|\b{name}:", text)}


def labels_in(expression: str) -> set[str]:
    """Names of labels in selectors and groupings."""
    text = re.sub(r'"[^"]*"|\'[^\']*\'', '""', expression)
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"\"", text))
    for group in re.findall(r"\b(?:by|on|ignoring|group_left)\s*\(([^)]*)\)", text):
        labels |= {label.strip() for label in group.split(",") if label.strip()}
    return labels


def declared(families: Any) -> dict[str, set[str]]:
    """Names of series, with the labels of the samples that there are."""
    found: dict[str, set[str]] = {}
    for family in families:
        for suffix in SUFFIXES.get(family.type, ("",)):
            found.setdefault(family.name + suffix, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def declared_in_code() -> dict[str, set[str]]:
    """The registries of both metrics modules, with their labels also where there is no sample yet."""
    found: dict[str, set[str]] = {}
    for owner in (MasterMetrics(), Instruments()):
        found |= declared(owner.registry.collect())
        for collector in vars(owner).values():
            if isinstance(collector, MetricWrapperBase):
                for name in declared(collector.collect()):
                    found[name] = found[name] | set(collector._labelnames)
    return found


async def scrape(address: str) -> dict[str, set[str]]:
    def get() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as response:
            return str(response.read().decode())

    text = await asyncio.to_thread(get)
    return declared(text_string_to_metric_families(text))


async def test_every_series_that_is_asked_for_is_exported_with_these_labels(cluster: Cluster) -> None:
    worker = cluster.workers["w1"] = WorkerProcess(cluster.root, "w1")
    # On recorded GPUs, so that of these, too, there are samples to read labels from.
    worker.program = (str(TESTS / "worker_with_gpus.py"), "xid", str(cluster.root))
    (cluster.root / "xid-31").touch()
    await worker.start(cluster.master.address)
    await eventually(lambda: worker.log_lines("gpu.incident"), what="an XID error")
    await cluster.submit("first", ["held"], {"steps": "2", "gate": str(cluster.root / "gate"), "gate_step": "1"})
    await eventually(lambda: cluster.journal("gate"), what="the evaluation at the gate")
    exported = declared_in_code()
    for address in (cluster.master.facts["http"], worker.ready["http"]):
        for name, labels in (await scrape(address)).items():
            exported[name] = exported.get(name, set()) | labels
    unknown = [(where, name) for where, text in expressions() for name in metrics_in(text) if name not in exported]
    assert unknown == []
    strange = [
        (where, label)
        for where, text in expressions()
        for label in labels_in(text) - GIVEN_LABELS
        if not any(label in exported[name] for name in metrics_in(text)) and ":" not in text
    ]
    assert strange == []


def test_the_parsing_above_sees_what_it_should() -> None:
    text = 'sum by (state) (rate(tenure_rpc_seconds_bucket{method=~"tenure_x"}[5m])) / on (shard) a:tenure_tasks:max'
    assert metrics_in(text) == {"tenure_rpc_seconds_bucket"}
    assert labels_in(text) == {"state", "method", "shard"}


@pytest.mark.parametrize("metric", ["tenure_leases_expired_total", "tenure_rpc_seconds_bucket", "tenure_worker_info"])
def test_the_modules_declare_the_suffixed_names(metric: str) -> None:
    assert metric in declared_in_code()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    document = load(path)
    assert document["uid"].startswith("tenure-")
    assert document["title"].startswith("Tenure: ")
    ids = [panel["id"] for panel in document["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels(document):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"].endswith((".", "`.")), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert all(target["expr"] for target in panel["targets"])
    for one, other in combinations([panel["gridPos"] for panel in document["panels"]], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
        assert one["x"] + one["w"] <= 24


def test_searches_and_workers_can_be_chosen() -> None:
    names = {path.stem: {each["name"] for each in load(path)["templating"]["list"]} for path in DASHBOARDS}
    assert names == {"cluster": {"datasource", "search"}, "workers": {"datasource", "worker"}}
    for path in DASHBOARDS:
        text = path.read_text()
        for name in names[path.stem] - {"datasource"}:
            assert f'=~\\"${name}\\"' in text, f"${name} of {path.name} chooses nothing"


def test_grafana_is_told_where_everything_is() -> None:
    folder = ROOT / "ops" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    scraped = yaml.safe_load((ROOT / "ops" / "prometheus" / "prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "tenure.yml").read_text())["providers"]
    compose = yaml.safe_load((ROOT / "ops" / "compose.yaml").read_text())
    mounts = dict(mount.split(":")[:2] for mount in compose["services"]["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert source["url"].strip("${}") in compose["services"]["grafana"]["environment"]
