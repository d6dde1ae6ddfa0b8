"""KEDA's query, evaluated by Prometheus: a slot for each task that waits or runs, no change while nobody knows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_objects import KUBERNETES
from tools import tool

from tenure.master.metrics import MasterMetrics

pytestmark = pytest.mark.tools
SCALED_OBJECT: dict[str, Any] = yaml.safe_load((KUBERNETES / "components/keda/scaled-object.yaml").read_text())
QUERY = SCALED_OBJECT["spec"]["triggers"][0]["metadata"]["query"]


def series(name: str, value: float, **labels: str) -> dict[str, str]:
    given = ", ".join(f'{label}="{text}"' for label, text in {"namespace": "tenure", **labels}.items())
    return {"series": f"{name}{{{given}}}", "values": f"{value}"}


def two_masters(up: float = 1) -> list[dict[str, str]]:
    return [series("tenure_store_up", up, instance=instance) for instance in ("m1", "m2")]


def queue(depth: float, search: str = "s", requirements: str = "any") -> list[dict[str, str]]:
    """Every master exports the same."""
    return [
        series("tenure_queue_depth", depth, instance=instance, search=search, requirements=requirements)
        for instance in ("m1", "m2")
    ]


def leased(count: float, search: str = "s") -> list[dict[str, str]]:
    return [
        *(series("tenure_tasks", count, instance=instance, search=search, state="LEASED") for instance in ("m1", "m2")),
        *(series("tenure_tasks", 99, instance=instance, search=search, state="SUCCEEDED") for instance in ("m1", "m2")),
    ]


def test_the_query_asks_for_what_masters_export() -> None:
    exported = {metric.name for metric in MasterMetrics().registry.collect()}
    assert set(re.findall(r"tenure_\w+", QUERY)) <= exported


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param([*two_masters(), *queue(5), *leased(3)], 8, id="queued-and-leased"),
        pytest.param([*two_masters(), *queue(5), *queue(2, "t", "gpus=1"), *leased(1, "t")], 8, id="several-searches"),
        pytest.param([*two_masters(), *leased(3)], 3, id="nothing-waits"),
        pytest.param([*two_masters(), *queue(4)], 4, id="nothing-runs"),
        pytest.param(two_masters(), 0, id="nothing-to-do"),
        pytest.param([*queue(5), *leased(3)], None, id="no-master"),
        pytest.param([*two_masters(0), *queue(5)], None, id="no-store"),
        pytest.param([*two_masters(0)[:1], *two_masters()[1:], *queue(5)], 5, id="one-master-of-two"),
        pytest.param([*two_masters(), series("tenure_queue_depth", 7, namespace="other")], 0, id="another-tenure"),
    ],
)
def test_the_query_says_how_many_slots_are_wanted(
    given: list[dict[str, str]], wanted: float | None, tmp_path: Path
) -> None:
    # KEDA takes the one value of the answer; with none it leaves things as they are (ignoreNullValues).
    expected = [] if wanted is None else [{"labels": "{}", "value": wanted}]
    test = {
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "promql_expr_test": [{"expr": QUERY, "eval_time": "0m", "exp_samples": expected}],
            }
        ]
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    command = [tool("promtool"), "test", "rules", str(tmp_path / "test.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
