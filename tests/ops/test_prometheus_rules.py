"""What the rules say of made-up series, by promtool: each alert fires, alone, and clears; the ordinary raises none."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ops import alert_cases_masters, alert_cases_workers
from ops.alert_case import Case
from ops.alert_everyday import EVERYDAY, OLD_STORE
from ops.alert_series import QUIET, START_MINUTES, Grid, Values
from tools import tool

pytestmark = pytest.mark.tools

RULES = Path(__file__).resolve().parents[2] / "ops" / "prometheus" / "rules"
CASES = {"masters": alert_cases_masters.CASES, "workers": alert_cases_workers.CASES}
# By the time between samples: that in minutes, and how often rules are evaluated.
STEPS = {"30s": (0.5, "1m"), "1m": (1.0, "1m"), "4m": (4.0, "20m")}
# It fires always, and is meant to.
WATCHDOG = {"labels": '{alertname="TenureWatchdog"}', "value": 1}
FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'


def series(changed: Mapping[str, Values], grid: Grid) -> list[dict[str, str]]:
    """The quiet cluster with these changes, for promtool."""
    return [{"series": name, "values": values(grid)} for name, values in {**QUIET, **changed}.items()]


def firing(minutes: float, *alerts: str) -> dict[str, Any]:
    """That these alerts fire then, and no others."""
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in alerts]
    return {"expr": FIRING, "eval_time": f"{round(minutes * 60)}s", "exp_samples": [*samples, WATCHDOG]}


def alert_test(case: Case) -> dict[str, Any]:
    """Before, while and after."""
    end = START_MINUTES + case.clears + 5
    labels = "".join(f', {name}="{value}"' for name, value in case.labels.items())
    named = {
        "expr": f'count(ALERTS{{alertname="{case.alert}", alertstate="firing"{labels}}})',
        "eval_time": f"{round((START_MINUTES + case.fires) * 60)}s",
        "exp_samples": [{"labels": "{}", "value": 1}],
    }
    cleared = {
        "expr": f'ALERTS{{alertname="{case.alert}"}}',
        "eval_time": f"{round((START_MINUTES + case.clears) * 60)}s",
        "exp_samples": [],
    }
    return {
        "name": f"{case.alert} fires and clears",
        "interval": case.step,
        "input_series": series(case.series, Grid(STEPS[case.step][0], end)),
        "promql_expr_test": [
            firing(1),
            firing(START_MINUTES + case.fires, case.alert, *case.also),
            named,
            cleared,
            firing(START_MINUTES + case.clears),
        ],
    }


def everyday_test(name: str, changed: Mapping[str, Values], step: str = "30s", minutes: int = 60) -> dict[str, Any]:
    """A time in which nothing fires, looked at every minute."""
    return {
        "name": name,
        "interval": step,
        "input_series": series(changed, Grid(STEPS[step][0], minutes)),
        "promql_expr_test": [firing(minute) for minute in range(1, minutes)],
    }


def run_promtool(folder: Path, tests: list[dict[str, Any]], evaluation: str = "1m") -> None:
    """Fails with what promtool says."""
    document = {"rule_files": [f"{RULES}/*.yml"], "evaluation_interval": evaluation, "tests": tests}
    file = folder / "rules.test.yml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    done = subprocess.run([tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("subject", "step"), [("masters", "1m"), ("workers", "1m"), ("masters", "4m")])
def test_every_alert_fires_alone_and_clears(tmp_path: Path, subject: str, step: str) -> None:
    run_promtool(tmp_path, [alert_test(case) for case in CASES[subject] if case.step == step], STEPS[step][1])


def test_no_case_is_left_out() -> None:
    assert [case.alert for case in CASES["workers"] if case.step != "1m"] == []
    assert {case.step for case in CASES["masters"]} == {"1m", "4m"}


def test_what_happens_every_day_raises_no_alert(tmp_path: Path) -> None:
    run_promtool(tmp_path, [everyday_test(name, changed) for name, changed in EVERYDAY.items()])


def test_what_failed_before_prometheus_came_raises_no_alert(tmp_path: Path) -> None:
    run_promtool(tmp_path, [everyday_test(name, changed, "1m", 135) for name, changed in OLD_STORE.items()])


def test_an_external_label_makes_runbooks_links(tmp_path: Path) -> None:
    """``external_labels`` of prometheus.yml, as its comment has it."""
    case = next(case for case in CASES["masters"] if case.alert == "TenureNoMaster")
    test = alert_test(case)
    del test["promql_expr_test"]
    test["external_labels"] = {"runbooks": "https://git.example.org/ml/tenure/blob/main/"}
    annotations = {
        "summary": "No master answers",
        "description": "Nobody submits, and workers spool their results. Leases stand still; nothing is lost yet.",
        "runbook_url": "https://git.example.org/ml/tenure/blob/main/ops/runbooks/TenureNoMaster.md",
    }
    fires = {"exp_labels": {"severity": "critical"}, "exp_annotations": annotations}
    test["alert_rule_test"] = [{"eval_time": "7m", "alertname": "TenureNoMaster", "exp_alerts": [fires]}]
    run_promtool(tmp_path, [test])
