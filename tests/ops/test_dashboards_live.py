"""Every query of every dashboard, asked of a real Prometheus that has watched a real cluster fail in every way."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from failure_scene import play
from observed_cluster import ObservedCluster
from picturing.panels import Answer, ask, choose, load, panels, values_of, variables
from picturing.prometheus import Prometheus, Window
from tools import tool

# Far above what it takes where nothing else runs.
pytestmark = [pytest.mark.tools, pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "ops" / "grafana" / "dashboards").glob("*.json"))
# The scene takes a minute where dashboards show hours: what they count in minutes is counted in these seconds.
STEP_SECONDS = 2.0
# What may have no data here, and why.
EMPTY = {("store", "Last backup"): "ops/scripts/backup tells it to a node_exporter, which this scene has not"}
# So that the store has a limit to show, and that an alert that is about a search fires.
LIMITED = {"maxmemory": "256mb", "maxmemory-policy": "noeviction"}
LOWER = {"TenureDeadLetters": {"> 10": "> 0"}}


async def test_every_panel_has_data(tmp_path: Path) -> None:
    cluster = await ObservedCluster.start(tmp_path, masters=2, external=LIMITED, replacing=LOWER)
    start = time.time()
    try:
        await play(cluster)
        # A step longer, or what came last may lie between the last two points.
        window = Window(start, time.time() + STEP_SECONDS, STEP_SECONDS)
        problems = await asyncio.to_thread(_problems, cluster, window)
        assert not problems, "\n".join(problems)
        await asyncio.to_thread(_draw, cluster, window, tmp_path / "cluster.png")
    finally:
        await cluster.destroy()


def _problems(cluster: ObservedCluster, window: Window) -> list[str]:
    prometheus = Prometheus(cluster.prometheus.url)
    scrape_seconds = cluster.prometheus.interval_ms / 1000
    found = []
    for path in DASHBOARDS:
        document = load(path)
        given = {"search": ["good"]} if path.stem == "search" else {}
        choices = choose(document, given, prometheus, window)
        for variable in variables(document):
            values = values_of(variable, choices, prometheus, window)
            if len(values) < 2:
                found.append(f"{path.stem}: ${variable['name']} offers {values}")
        for annotation in document["annotations"]["list"]:
            seen = prometheus.range(annotation["expr"], window)
            times = {value for series in seen for value in series.values if value is not None}
            # Two masters and the start of one of them again; and more workers.
            if len(times) < 3:
                found.append(f"{path.stem}: annotation {annotation['name']} marks {sorted(times)}")
        for panel in panels(document):
            for target in panel["targets"]:
                if (path.stem, panel["title"]) in EMPTY:
                    continue
                one = {**panel, "interval": None, "targets": [target]}
                answer = ask(one, choices, prometheus, window, scrape_seconds)
                found += [
                    f"{path.stem}: {panel['title']}: {problem}: {target['expr']}" for problem in _problems_of(answer)
                ]
    return found


def _draw(cluster: ObservedCluster, window: Window, picture: Path) -> None:
    """By the script, in a real browser: a PNG as wide as a page."""
    script = ROOT / "ops" / "scripts" / "dashboard-image"
    asked = ["--prometheus", cluster.prometheus.url, "--last", f"{round(window.seconds)}s", "--to", str(picture)]
    command = [sys.executable, str(script), *asked, "--browser", tool("chromium"), "cluster"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == 1600


def _problems_of(answer: Answer) -> list[str]:
    panel = answer.panel
    if not answer.lines:
        return ["no data"]
    found = []
    if panel["type"] == "stat" and len(answer.lines) != 1:
        found.append(f"{len(answer.lines)} numbers")
    # A quantile of what did not happen in any window is not a number; but of something it must be one.
    if all(line.last is None for line in answer.lines):
        found.append("no number")
    names = [line.name for line in answer.lines]
    if panel["type"] in ("timeseries", "bargauge", "state-timeline"):
        if len(set(names)) != len(names):
            found.append(f"one name twice: {sorted(names)}")
        wanted = set(re.findall(r"{{(\w+)}}", panel["targets"][0]["legendFormat"]))
        if not any(wanted <= line.labels.keys() for line in answer.lines):
            found.append(f"no series has all of {sorted(wanted)}")
    if panel["type"] == "table":
        (keep,) = (each for each in panel["transformations"] if each["id"] == "filterFieldsByName")
        labels = {label for line in answer.lines for label in line.labels} | {"Value"}
        if missing := set(keep["options"]["include"]["names"]) - labels:
            found.append(f"no series has {sorted(missing)}")
    return found
