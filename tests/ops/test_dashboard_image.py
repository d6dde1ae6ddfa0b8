"""What ops/scripts/dashboard-image makes of a dashboard's JSON and of Prometheus's answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from picturing import charts, page
from picturing.command import main
from picturing.panels import (
    ALL,
    Answer,
    Choices,
    DashboardError,
    Line,
    duration_seconds,
    fill_intervals,
    legend,
    load,
    step_seconds,
)
from picturing.prometheus import Series, Window
from picturing.units import text_of, tick_text, ticks

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "ops" / "scripts" / "dashboard-image"
WINDOW = Window(0, 240, 60)


def panel(dashboard: str, title: str) -> dict[str, Any]:
    document = load(ROOT / "ops" / "grafana" / "dashboards" / f"{dashboard}.json")
    (found,) = (each for each in document["panels"] if each["title"] == title and each["type"] != "row")
    return dict(found)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "short", "0"),
        (12, "short", "12"),
        (1234, "short", "1.23 K"),
        (0.25, "percentunit", "25%"),
        (0.9876, "percentunit", "98.8%"),
        (1536, "bytes", "1.50 KiB"),
        (90, "s", "1.50 mins"),
        (0.0123, "s", "12.3 ms"),
        (0.0000042, "s", "4.20 µs"),
        (1, "bool_yes_no", "Yes"),
        (412.3, "watt", "412 W"),
        (-3, "short", "-3"),
    ],
)
def test_values_are_written_as_grafana_writes_them(value: float, unit: str, text: str) -> None:
    assert text_of(value, unit) == text


def test_axes_are_divided_at_round_values() -> None:
    assert ticks(0, 1, "short", 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0, 100, "s", 4) == [0, 30, 60, 90]
    assert [tick_text(each, "bytes") for each in ticks(0, 2.0**30, "bytes", 2)] == ["0 B", "512 MiB", "1 GiB"]
    assert [tick_text(each, "s") for each in (0.5, 1.5)] == ["500 ms", "1.5 s"]


def test_choices_fill_queries_as_grafana_does() -> None:
    all_values = {"search": ".*", "worker": ".*"}
    asked = 'x{search=~"$search", one="$one", instance=~"${worker}"}[$__rate_interval]'
    chosen = Choices({"search": [ALL], "one": ["a.b"], "worker": ["w.1", "w2"]}, all_values)
    assert chosen.fill(asked) == 'x{search=~".*", one="a.b", instance=~"w\\\\.1|w2"}[$__rate_interval]'


def test_intervals_depend_on_the_step_and_on_how_often_is_scraped() -> None:
    asked = "rate(x[$__rate_interval]) + increase(x[$__interval]) + increase(x[$__range])"
    assert fill_intervals(asked, Window(0, 3600, 60), 15) == (
        "rate(x[75000ms]) + increase(x[60000ms]) + increase(x[3600000ms])"
    )
    assert fill_intervals("x[$__rate_interval]", Window(0, 300, 1), 15) == "x[60000ms]"


def test_series_are_named_by_their_legend() -> None:
    series = Series({"__name__": "x", "kind": "loss", "cause": "SIGKILL"}, [1.0])
    assert legend("{{kind}} {{ cause }}", series) == "loss SIGKILL"
    assert legend("__auto", series) == "kind=loss, cause=SIGKILL"
    assert legend("{{kind}} {{absent}}", series) == "loss"


def test_steps_are_round_and_no_finer_than_scrapes() -> None:
    assert step_seconds(10_800, 480, 15) == 30
    assert step_seconds(300, 480, 15) == 15
    assert step_seconds(14 * 86_400, 480, 15) == 3600


def test_durations_are_read_or_refused() -> None:
    assert duration_seconds("1h30m") == 5400
    assert duration_seconds("250ms") == 0.25
    for wrong in ("", "15", "h", "1w", "10 s"):
        with pytest.raises(DashboardError, match=r"15s, 90m or 1h30m"):
            duration_seconds(wrong)


def test_what_is_stacked_stands_on_what_is_below() -> None:
    lines = [Line("QUEUED", {}, [1, 2, None, 0, 1]), Line("LEASED", {}, [1, 1, 1, 1, 1])]
    answer = Answer(panel("cluster", "Tasks by state"), WINDOW, lines)
    drawn = charts.timeseries(answer, 400, 200, [charts.Mark(120, "#fff")])
    assert drawn.count("<polygon") == 2
    # The colours of their states, wherever they are shown.
    assert "#fade2a" in drawn
    assert "#5794f2" in drawn
    assert drawn.count("stroke-dasharray") == 1


def test_a_gap_is_a_gap_and_a_lonely_value_a_point() -> None:
    answer = Answer(panel("cluster", "Renewal lag"), WINDOW, [Line("p50", {}, [1, 1, None, 2, None])])
    drawn = charts.timeseries(answer, 400, 200, [])
    assert (drawn.count("<polyline"), drawn.count("<circle")) == (1, 1)


def test_a_panel_without_data_says_what_that_means() -> None:
    document = load(ROOT / "ops" / "grafana" / "dashboards" / "failures.json")
    answers = {each["id"]: Answer(each, WINDOW, []) for each in document["panels"]}
    given = {name: [ALL] for name in ("search", "master", "worker", "instance")}
    html = page.render(document, answers, Choices(given, dict.fromkeys(given, ".*")), WINDOW, [])
    assert "No alert fired in this time." in html
    assert "No slot is cordoned." in html


def test_tables_have_the_columns_that_the_panel_keeps() -> None:
    shown = panel("cluster", "Alerts firing now")
    labels = {"alertname": "TenureStoreDown", "severity": "critical", "instance": "<a>", "job": "x"}
    document = {"title": "t", "panels": [shown], "templating": {"list": []}}
    answer = Answer(shown, WINDOW, [Line("", labels, [90.0])])
    html = page.render(document, {shown["id"]: answer}, Choices({}), WINDOW, [])
    assert "<th>Alert</th><th>Severity</th><th>Where</th><th>Search</th><th>Since</th>" in html
    assert "<td>TenureStoreDown</td><td>critical</td><td>&lt;a&gt;</td><td></td><td>1.50 mins</td>" in html


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--var", "search", "cluster"], "write NAME=VALUE"),
        (["--last", "soon", "cluster"], "15s, 90m or 1h30m"),
        (["--from", "2026-11-30T22:00:00", "cluster"], "in which time zone"),
        (["--to", "x.png", "cluster", "store"], "use --folder"),
        (["nonsense"], "is no dashboard"),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_right(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--browser", "/bin/true", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_json_that_is_no_dashboard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"title": "no panels"}))
    with pytest.raises(DashboardError, match="it has no `panels`"):
        load(tmp_path / "x.json")


def test_without_a_prometheus_it_says_so() -> None:
    command = [
        sys.executable,
        "-P",
        str(SCRIPT),
        "--prometheus",
        "http://127.0.0.1:1",
        "--browser",
        "/bin/true",
        "cluster",
    ]
    environment = {"PYTHONPATH": str(SCRIPT.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("dashboard-image: http://127.0.0.1:1 gives no answer")
