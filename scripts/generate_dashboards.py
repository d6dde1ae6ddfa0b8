#!/usr/bin/env python3
"""Write the Grafana dashboards of ops/grafana/dashboards from the panels in scripts/dashboards.

A panel is a few lines here and a hundred in Grafana's JSON; only the few are worth reading in a review. Metric names
come from master/metrics.py and worker/metrics.py; tests/ops checks each one against them, and asks a real Prometheus
every query.

Examples:
    scripts/generate_dashboards.py            # rewrite the dashboards
    scripts/generate_dashboards.py --check    # exit 1 and show the drift if one differs
"""

from __future__ import annotations

from functools import partial

from dashboards import cluster, failures, search, store, workers
from dashboards.grafana import document
from generated_pages import ROOT, main

FOLDER = ROOT / "ops" / "grafana" / "dashboards"

DASHBOARDS = {
    FOLDER / f"{module.__name__.rpartition('.')[2]}.json": partial(document, module.PAGE)
    for module in (cluster, search, workers, store, failures)
}

if __name__ == "__main__":
    raise SystemExit(main(__doc__, DASHBOARDS))
