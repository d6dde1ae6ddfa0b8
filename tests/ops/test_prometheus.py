"""The Prometheus configuration: whole, consistent, and every alert has its page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "ops" / "prometheus"
PAGE = ROOT / "docs" / "operations.md"
CONFIG = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
RULES = [
    rule
    for path in sorted((FOLDER / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_accepts_the_configuration() -> None:
    promtool("check", "config", FOLDER / "prometheus.yml")


@needs_promtool
def test_the_rules_say_what_they_should_of_made_up_series() -> None:
    promtool("test", "rules", Path(__file__).with_name("alerts.test.yml"))


@needs_promtool
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
    promtool("check", "rules", tmp_path / "rules.yml")


def test_made_up_series_raise_every_alert() -> None:
    """Each alert was seen to fire at least once."""
    tested = yaml.safe_load(Path(__file__).with_name("alerts.test.yml").read_text())["tests"]
    expected = str([sample for case in tested for each in case["promql_expr_test"] for sample in each["exp_samples"]])
    assert [name for name in ALERTS if f'alertname="{name}"' not in expected] == []


def test_masters_and_workers_are_scraped_at_their_default_ports() -> None:
    targets = {}
    for scrape in CONFIG["scrape_configs"]:
        for discovery in scrape.get("file_sd_configs", []):
            for name in discovery["files"]:
                for folder in ("targets", "targets-compose"):
                    groups = yaml.safe_load((FOLDER / name.replace("targets", folder)).read_text())
                    ports = {target.rpartition(":")[2] for group in groups for target in group["targets"]}
                    targets.setdefault(scrape["job_name"], set()).update(ports)
    assert targets == {"tenure-master": {"9151"}, "tenure-worker": {"9152"}}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert re.fullmatch(r"Tenure([A-Z][a-z]+)+", name)
    assert alert["labels"]["severity"] in ("critical", "warning")
    for annotation in ("summary", "description"):
        assert alert["annotations"][annotation]
    assert alert["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
    page = PAGE.read_text()
    section = re.search(rf"^#### {name}\n(.+?)(?=^#+ |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/operations.md has no section {name}"
    assert alert["labels"]["severity"] in section[1].splitlines()[1], "the section begins with the severity"


def test_the_page_describes_no_other_alerts() -> None:
    described = re.findall(r"^#### (Tenure\w+)$", PAGE.read_text(), re.MULTILINE)
    assert sorted(described) == sorted(ALERTS)
