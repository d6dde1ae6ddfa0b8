"""``ops/scripts/dashboard-image``: pictures of the dashboards for where there is no Grafana."""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from picturing import charts, colours, page
from picturing.browser import BrowserError, find, photograph
from picturing.panels import ALL, Choices, DashboardError, ask, choose, duration_seconds, load, panels, step_seconds
from picturing.prometheus import Prometheus, PrometheusError, Window

DASHBOARDS = Path(__file__).resolve().parents[2] / "grafana" / "dashboards"
# As many points as a panel of a third of the width has pixels.
POINTS = 480

_DESCRIPTION = """\
Draw Grafana dashboards without a Grafana: asks a Prometheus what the panels of the JSON ask, lays the answers out on
Grafana's grid, and has a headless Chromium make a PNG of it.

Needs Python 3.11 and Chromium, nothing else. For a postmortem, a ticket, a chat, or a machine without Grafana."""
_EXAMPLES = """\
examples:
  ops/scripts/dashboard-image --prometheus http://127.0.0.1:9090 cluster
  ops/scripts/dashboard-image --last 6h --var search=first --to search.png search
  ops/scripts/dashboard-image --from 2026-11-30T22:00:00Z --last 1h --folder /tmp/night cluster store failures

exit status: 0 all are drawn, 1 Prometheus or the browser failed, 2 wrong arguments."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        window = _window(given)
        scrape_seconds = duration_seconds(given.scrape_interval)
        chosen = _chosen(given.var)
    except (DashboardError, ValueError) as error:
        parser.error(str(error))
    if given.to is not None and len(given.dashboard) != 1:
        parser.error(f"--to names one picture, and {len(given.dashboard)} dashboards are asked for; use --folder")
    try:
        browser = given.browser or find()
        for name in given.dashboard:
            path = Path(name) if name.endswith(".json") else DASHBOARDS / f"{name}.json"
            document = load(path)
            prometheus = Prometheus(given.prometheus)
            step = step_seconds(window.seconds, POINTS, scrape_seconds)
            exact = Window(window.start, window.end, step)
            html = draw(document, chosen, prometheus, exact, scrape_seconds)
            target = given.to or given.folder / f"dashboard-{path.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            photograph(browser, html, page.WIDTH, page.height(document), target)
            sys.stdout.write(f"wrote {target}\n")
    except DashboardError as error:
        parser.error(str(error))
    except (PrometheusError, BrowserError, OSError) as error:
        sys.stderr.write(f"dashboard-image: {error}\n")
        return 1
    return 0


def draw(
    document: dict[str, Any],
    chosen: dict[str, list[str]],
    prometheus: Prometheus,
    window: Window,
    scrape_seconds: float,
) -> str:
    """The HTML of a dashboard over a window; only those choices count that it knows.

    Raises:
        DashboardError: A choice that can't be made.
        PrometheusError: No answer.
    """
    known = {each["name"] for each in document["templating"]["list"]}
    choices = choose(document, {name: chosen[name] for name in chosen if name in known}, prometheus, window)
    answers = {panel["id"]: ask(panel, choices, prometheus, window, scrape_seconds) for panel in panels(document)}
    return page.render(document, answers, choices, window, _marks(document, choices, prometheus, window))


def _marks(document: dict[str, Any], choices: Choices, prometheus: Prometheus, window: Window) -> list[charts.Mark]:
    """Of the annotations that have times as their values."""
    found = {}
    for each in document["annotations"]["list"]:
        if each.get("useValueForTime") and each["enable"]:
            for series in prometheus.range(choices.fill(each["expr"]), window):
                for value in series.values:
                    if value is not None:
                        found[value / 1000] = colours.named(each["iconColor"])
    return [charts.Mark(time, colour) for time, colour in sorted(found.items())]


def _window(given: argparse.Namespace) -> Window:
    seconds = duration_seconds(given.last)
    if given.start is None:
        now = time.time()
        return Window(now - seconds, now, 1)
    start = datetime.datetime.fromisoformat(given.start)
    if start.tzinfo is None:
        raise ValueError(f"--from {given.start}: say in which time zone, for example {given.start}Z")
    return Window(start.timestamp(), start.timestamp() + seconds, 1)


def _chosen(pairs: Sequence[str]) -> dict[str, list[str]]:
    chosen: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise ValueError(f"--var {pair}: write NAME=VALUE, for example search=first; once for each value")
        chosen.setdefault(name, []).append(ALL if value in ("All", ALL) else value)
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dashboard-image",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join(sorted(path.stem for path in DASHBOARDS.glob("*.json")))
    for names, more in (
        (["dashboard"], {"nargs": "+", "help": f"one of {known}, or the path of a dashboard's JSON"}),
        (["--prometheus"], {"metavar": "URL", "default": "http://127.0.0.1:9090", "help": "default: %(default)s"}),
        (["--last"], {"metavar": "DURATION", "default": "3h", "help": "up to now, or since --from (%(default)s)"}),
        (["--from"], {"metavar": "TIME", "dest": "start", "help": "ISO 8601 with a time zone; default: --last ago"}),
        (["--var"], {"metavar": "NAME=VALUE", "action": "append", "default": [], "help": "a choice; default: all"}),
        (["--folder"], {"type": Path, "default": Path("."), "help": "where dashboard-NAME.png is written"}),
        (["--to"], {"type": Path, "metavar": "FILE", "help": "the picture's own name, with one dashboard"}),
        (["--scrape-interval"], {"metavar": "DURATION", "default": "15s", "help": "as prometheus.yml's (%(default)s)"}),
        (["--browser"], {"metavar": "PATH", "help": "default: the first Chromium or Chrome found"}),
    ):
        parser.add_argument(*names, **more)
    return parser
