#!/usr/bin/env python3
"""Write the Grafana dashboards of ops/grafana/dashboards from the panels in scripts/dashboards.

A panel is a line or two here and fifty in Grafana's JSON; only the lines are worth reading in a review. Metric names
come from master/metrics.py and worker/metrics.py, and tests/ops checks each one against them.

Examples:
    scripts/generate_dashboards.py            # rewrite the dashboards
    scripts/generate_dashboards.py --check    # exit 1 and show the drift if one differs
"""

from __future__ import annotations

from dashboards import cluster, workers
from dashboards.grafana import dashboard
from generated_pages import ROOT, main

FOLDER = ROOT / "ops" / "grafana" / "dashboards"

DASHBOARDS = {
    FOLDER / "cluster.json": lambda: dashboard("tenure-cluster", "Tenure: cluster", cluster.VARIABLE, cluster.ROWS),
    FOLDER / "workers.json": lambda: dashboard("tenure-workers", "Tenure: workers", workers.VARIABLE, workers.ROWS),
}

if __name__ == "__main__":
    raise SystemExit(main(__doc__, DASHBOARDS))
