"""The Prometheus configuration is whole and consistent: config, rules, targets, the example for Alertmanager."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ops import alert_cases_masters, alert_cases_workers
from ops.alert_everyday import EVERYDAY
from tools import tool

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "ops" / "prometheus"
CONFIG = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
ALERTMANAGER = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())
FILES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((FOLDER / "rules").glob("*.yml"))}
RULES = [rule for document in FILES.values() for group in document["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDS = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
# The names that MorphML's dashboard asks for.
MORPHML = {
    "morphml_tasks_completed_total",
    "morphml_tasks_failed_total",
    "morphml_task_duration_seconds_bucket",
    "morphml_task_duration_seconds_sum",
    "morphml_task_duration_seconds_count",
    "morphml_task_queue_depth",
    "morphml_best_fitness",
    "morphml_worker_cpu_percent",
    "morphml_worker_memory_percent",
    "morphml_worker_gpu_percent",
}


def check(program: str, *arguments: str | Path) -> str:
    """What the program says; fails with it when it refuses."""
    done = subprocess.run([tool(program), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.tools
def test_promtool_accepts_the_configuration_and_every_rule() -> None:
    said = check("promtool", "check", "config", FOLDER / "prometheus.yml")
    found = re.findall(r"SUCCESS: (\d+) rules found", said)
    assert sum(map(int, found)) == len(RULES)


@pytest.mark.tools
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=TenureStoreDown", "severity=critical"], "on-call"),
        (["alertname=TenureMasterDown", "severity=warning"], "team"),
        (["alertname=TenureWatchdog", "severity=none"], "dead-mans-switch"),
        (["alertname=SomethingElse"], "team"),
    ],
)
def test_alertmanager_would_tell(labels: list[str], receiver: str) -> None:
    check("amtool", "check-config", FOLDER / "alertmanager.yml")
    told = check("amtool", "config", "routes", "test", f"--config.file={FOLDER / 'alertmanager.yml'}", *labels)
    assert told.strip() == receiver


def test_alertmanager_is_told_of_alerts_that_exist() -> None:
    named = set(re.findall(r"Tenure\w+", str(ALERTMANAGER["inhibit_rules"]) + str(ALERTMANAGER["route"])))
    assert named
    assert named - ALERTS.keys() == set()


@pytest.mark.tools
def test_promtool_can_parse_what_the_dashboards_ask(tmp_path: Path) -> None:
    asked = []
    for path in (ROOT / "ops" / "grafana" / "dashboards").glob("*.json"):
        panels = json.loads(path.read_text())["panels"]
        asked += [target["expr"] for panel in panels for target in panel.get("targets", [])]
    for name in ("$__rate_interval", "$__interval", "$__range"):
        asked = [expression.replace(name, "5m") for expression in asked]
    for name in ("$search", "$worker", "$instance", "$master"):
        asked = [expression.replace(name, ".*") for expression in asked]
    assert not any("$" in expression for expression in asked)
    rules = [{"record": f"panel:query{index}:x", "expr": expression} for index, expression in enumerate(asked)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    check("promtool", "check", "rules", tmp_path / "rules.yml")


def test_made_up_series_raise_every_alert() -> None:
    """By tests/ops/test_prometheus_rules.py. The watchdog is expected in each of them."""
    seen = {case.alert for module in (alert_cases_masters, alert_cases_workers) for case in module.CASES}
    assert seen == ALERTS.keys() - {"TenureWatchdog"}
    assert EVERYDAY


def test_records_have_morphmls_names() -> None:
    assert {name for name in RECORDS if name.startswith("morphml_")} == MORPHML


def test_what_is_recorded_is_there_before_it_is_asked_for() -> None:
    """Within a group rules are evaluated in order, and a recorded name must be one that is recorded."""
    known: set[str] = set()
    for name, expression in RECORDS.items():
        assert set(re.findall(r"\b\w+:\w+:\w+\b", expression)) <= known, name
        known.add(name)
    for name, alert in ALERTS.items():
        assert set(re.findall(r"\b\w+:\w+:\w+\b", alert["expr"])) <= known, name


def test_masters_and_workers_are_scraped_at_their_default_ports() -> None:
    targets = {}
    for scrape in CONFIG["scrape_configs"]:
        for discovery in scrape.get("file_sd_configs", []):
            for name in discovery["files"]:
                groups = yaml.safe_load((FOLDER / name).read_text())
                ports = {target.rpartition(":")[2] for group in groups for target in group["targets"]}
                targets.setdefault(scrape["job_name"], set()).update(ports)
    assert targets == {"tenure-master": {"9151"}, "tenure-worker": {"9152"}}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert re.fullmatch(r"Tenure([A-Z][a-z]+)+", name)
    assert alert["labels"]["severity"] in (("none",) if name == "TenureWatchdog" else ("critical", "warning"))
    # Also "0m" is said: nobody is woken at once by oversight.
    assert re.fullmatch(r"\d+[mhd]", alert["for"])
    for annotation in ("summary", "description"):
        assert alert["annotations"][annotation]
        assert not alert["annotations"][annotation].endswith(".") or annotation == "description"
    assert alert["annotations"]["runbook_url"] == f"{{{{ $externalLabels.runbooks }}}}ops/runbooks/{name}.md"
