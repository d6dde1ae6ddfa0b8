"""What the dashboards' numbers count when a process is started again in the time shown, asked of promtool."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from tools import tool

pytestmark = pytest.mark.tools

DASHBOARDS = Path(__file__).resolve().parents[2] / "ops" / "grafana" / "dashboards"
MASTER = 'job="tenure-master", instance="m1"'
WORKER = 'job="tenure-worker", instance="w1"'


def outcomes(kind: str, cause: str, verdict: str = "accepted") -> str:
    """One series of the master."""
    return f'tenure_outcomes_total{{{MASTER}, kind="{kind}", cause="{cause}", verdict="{verdict}"}}'


# A sample a minute for two hours, of which the second is shown. In its middle the process is away for a scrape.
COUNTED = {
    # Began at 0 long ago; one before the restart, none since.
    f'tenure_leases_expired_total{{{MASTER}, cause="silent"}}': "0x79 1x9 _ 0x29",
    # Three at its first scrape, two more before the restart, four since.
    outcomes("loss", "SIGABRT"): "_x70 3x4 5x13 _ _x4 4x24",
    # Seven at its first scrape, none since: its series is gone.
    outcomes("failure", "KeyError"): "_x70 7x18 stale",
    # Ninety before the time shown, one within it.
    outcomes("out_of_memory", "MemoryError"): "90x79 91x9 _x30",
    outcomes("success", "", "stale"): "_x100 1x19",
    outcomes("release", "WorkerPreempted"): "2x89 _x9 1x19",
    f"tenure_worker_checkpoint_failures_total{{{WORKER}}}": "4x79 5x9 _ 0x9 1x19",
    # The store keeps it: the same after the restart.
    f'tenure_compute_wasted_seconds_total{{{MASTER}, search="first", cause="loss"}}': "500x79 600x9 _ 600x29",
    f'tenure_compute_wasted_seconds_total{{{MASTER}, search="new", cause="loss"}}': "_x75 20x13 _ 20x29",
}
SHOWN = {
    "Leases expired": 1,
    "Losses": 9,
    "Failures": 7,
    "Out of memory": 1,
    "Stale writes": 1,
    "Preempted": 1,
    "Checkpoint failures": 2,
    "Compute wasted": 120,
}


def test_numbers_of_a_time_with_a_restart_are_whole(tmp_path: Path) -> None:
    document = json.loads((DASHBOARDS / "failures.json").read_text())
    asked = {panel["title"]: panel["targets"][0]["expr"] for panel in document["panels"] if panel["type"] == "stat"}
    assert asked.keys() == SHOWN.keys()
    tests = [
        {
            "expr": asked[title]
            .replace("$__range", "1h")
            .replace("$master", ".*")
            .replace("$search", ".*")
            .replace("$instance", ".*"),
            "eval_time": "119m",
            "exp_samples": [{"labels": "{}", "value": value}],
        }
        for title, value in SHOWN.items()
    ]
    given = [{"series": name, "values": values} for name, values in COUNTED.items()]
    file = tmp_path / "counts.test.yml"
    file.write_text(yaml.safe_dump({"tests": [{"interval": "1m", "input_series": given, "promql_expr_test": tests}]}))
    done = subprocess.run([tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
