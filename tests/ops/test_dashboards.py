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
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from processes import eventually
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from worker_process import TESTS, WorkerProcess

from tenure.master.metrics import MasterMetrics
from tenure.worker.metrics import LOOKED_UP, Instruments

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
                asked = re.sub(r"label_values\((.*), *(\w+)\)", r"count by (\2) (\1)", variable["query"]["query"])
                yield f"{path.name}: ${variable['name']}", asked
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
    return found | declared(row.family() for row in LOOKED_UP.values())


def told_by_backups() -> dict[str, set[str]]:
    """What ops/scripts/backup writes for node_exporter."""
    source = (ROOT / "ops" / "scripts" / "safekeeping" / "textfile.py").read_text()
    return {f"tenure_backup_{name}": set() for name in re.findall(r"gauge\(\s*\"(\w+)\"", source)}


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
    exported = declared_in_code() | told_by_backups()
    for address in (cluster.master.facts["http"], worker.ready["http"]):
        for name, labels in (await scrape(address)).items():
            exported[name] = exported.get(name, set()) | labels
    unknown = [(where, name) for where, text in expressions() for name in metrics_in(text) if name not in exported]
    assert unknown == []
    strange = [
        (where, label)
        for where, text in expressions()
        for label in labels_in(text) - GIVEN_LABELS
        if (names := metrics_in(text)) and not any(label in exported[name] for name in names) and ":" not in text
    ]
    assert strange == []


def test_the_parsing_above_sees_what_it_should() -> None:
    text = 'sum by (state) (rate(tenure_rpc_seconds_bucket{method=~"tenure_x"}[5m])) / on (shard) a:tenure_tasks:max'
    assert metrics_in(text) == {"tenure_rpc_seconds_bucket"}
    assert labels_in(text) == {"state", "method", "shard"}


@pytest.mark.parametrize("metric", ["tenure_leases_expired_total", "tenure_rpc_seconds_bucket", "tenure_worker_info"])
def test_the_modules_declare_the_suffixed_names(metric: str) -> None:
    assert metric in declared_in_code()


UIDS = {
    "cluster": "tenure-cluster",
    "search": "tenure-search",
    "workers": "tenure-workers",
    "store": "tenure-store",
    "failures": "tenure-failures",
}
# What is exported and on no dashboard, and why. What Python says of itself (``python_…``) is for its debuggers.
UNSHOWN = {
    "process_virtual_memory_bytes": "resident memory is what counts",
    "process_open_fds": "for whoever hunts a leak of descriptors",
    "process_max_fds": "for whoever hunts a leak of descriptors",
    "process_start_time_seconds": "the annotations are made of it",
}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_what_grafana_reads(path: Path) -> None:
    """Grafana's own model of its schema reads every field and writes the same again."""
    document = load(path)
    written = json.loads(json.dumps(Dashboard.from_json(load(path)), cls=JSONEncoder))
    # Of annotations the model lacks the fields that Prometheus's have.
    known = {"name", "datasource", "enable", "iconColor", "expr", "hide", "builtIn"}
    for annotation in document["annotations"]["list"]:
        assert set(annotation) - known == {"useValueForTime", "titleFormat", "step"}
    for each in (document, written):
        del each["annotations"]
    assert written == document


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    document = load(path)
    # Links and bookmarks hold it.
    assert document["uid"] == UIDS[path.stem]
    assert document["title"].startswith("Tenure: ")
    ids = [panel["id"] for panel in document["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels(document):
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], panel["title"]
        assert defaults["noValue"], panel["title"]
        assert defaults["thresholds"]["steps"][0]["value"] is None
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert all(target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_says_what_it_shows_what_is_normal_and_what_to_do(path: Path) -> None:
    for panel in panels(load(path)):
        what, normal, otherwise = panel["description"].split("\n\n")
        assert normal.startswith("**Normal:** "), panel["title"]
        assert otherwise.startswith("**Otherwise:** "), panel["title"]
        for part in (what, normal, otherwise):
            assert part[-1] in ".*)", (panel["title"], part)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_lie_beside_each_other_within_the_grid(path: Path) -> None:
    places = [panel["gridPos"] for panel in load(path)["panels"]]
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in places)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_course_behind_a_number_never_ends_in_the_value_of_somebody_dead(path: Path) -> None:
    for panel in panels(load(path)):
        if panel["type"] == "stat" and panel["options"]["graphMode"] == "area":
            assert panel["targets"][0]["expr"].endswith("or vector(0)"), panel["title"]


def test_what_can_be_chosen_chooses() -> None:
    names = {path.stem: {each["name"] for each in load(path)["templating"]["list"]} for path in DASHBOARDS}
    always = {"datasource", "docs"}
    assert names == {
        "cluster": always | {"search", "master"},
        "search": always | {"search"},
        "workers": always | {"worker", "instance"},
        "store": always | {"master"},
        "failures": always | {"search", "master", "worker", "instance"},
    }
    for path in DASHBOARDS:
        document = load(path)
        asked = " ".join(target["expr"] for panel in panels(document) for target in panel["targets"])
        for name in names[path.stem] - always:
            assert f'"${name}"' in asked, f"${name} of {path.name} chooses nothing"
        assert set(re.findall(r"\$(?!__)\{?(\w+)", asked)) <= names[path.stem]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_lead_to_each_other_and_to_the_pages(path: Path) -> None:
    document = load(path)
    others, *pages = document["links"]
    assert (others["type"], others["tags"], others["keepTime"], others["includeVars"]) == (
        "dashboards",
        document["tags"],
        True,
        True,
    )
    for page in pages:
        assert (ROOT / page["url"].removeprefix("${docs}/")).exists(), page["url"]
    for panel in panels(document):
        for link in panel["fieldConfig"]["defaults"].get("links", []):
            to = re.match(r"/d/([\w-]+)\?", link["url"])
            assert (to and to[1] in UIDS.values()) or link["url"].startswith("${docs}/ops/runbooks/"), link


def test_every_metric_is_on_a_dashboard() -> None:
    shown = set()
    for path in DASHBOARDS:
        document = load(path)
        for panel in panels(document):
            shown |= {name for target in panel["targets"] for name in metrics_in(target["expr"])}
    # A histogram is one figure, of whatever part of it a panel asks.
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} | UNSHOWN.keys()
    names = (name for name in declared_in_code() if not name.endswith("_created"))
    exported = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    assert sorted(name for name in exported - shown if not name.startswith("python_")) == []


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
    (docs,) = (each for each in load(DASHBOARDS[0])["templating"]["list"] if each["name"] == "docs")
    served = f"/usr/share/grafana{docs['query']}"
    assert (mounts["../docs"], mounts["./runbooks"]) == (f"{served}/docs", f"{served}/ops/runbooks")
    assert source["url"].strip("${}") in compose["services"]["grafana"]["environment"]
