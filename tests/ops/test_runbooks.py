"""Every alert has a runbook, and runbooks speak of things that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from ops.pages import commands_not_there, logged, metrics_not_exported, options_not_there

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "ops" / "runbooks"
PAGES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("Tenure*.md"))}
SEVERITIES = {
    rule["alert"]: rule["labels"]["severity"]
    for path in (ROOT / "ops" / "prometheus" / "rules").glob("*.yml")
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
SECTIONS = ["What it means", "What to look at", "What to do", "When it clears"]
PANELS = {
    (document["title"], panel["title"])
    for document in (json.loads(path.read_text()) for path in (ROOT / "ops" / "grafana" / "dashboards").glob("*.json"))
    for panel in document["panels"]
}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert PAGES.keys() == SEVERITIES.keys()


@pytest.mark.parametrize("name", PAGES)
def test_a_runbook_is_whole(name: str) -> None:
    page = PAGES[name]
    assert page.startswith(f"# {name}\n\n*{SEVERITIES[name]}*: ")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == SECTIONS
    for section in re.split(r"^## .+$", page, flags=re.MULTILINE)[1:]:
        assert section.strip()


@pytest.mark.parametrize("name", PAGES)
def test_a_runbook_names_panels_that_are_there(name: str) -> None:
    text = " ".join(PAGES[name].split())
    for title, panels in re.findall(r"\*(Tenure: [\w ]+)\*, panels? ((?:\*[^*]+\*(?:, | and )?)+)", text):
        for panel in re.findall(r"\*([^*]+)\*", panels):
            assert (title, panel) in PANELS
    assert len(re.findall(r"\*Tenure: ", text)) == len(re.findall(r"\*Tenure: [\w ]+\*, panel", text))


@pytest.mark.parametrize("name", PAGES)
def test_a_runbook_names_commands_options_metrics_and_events_that_are_there(name: str) -> None:
    page = PAGES[name]
    assert commands_not_there(page) == []
    assert options_not_there(page) == []
    assert metrics_not_exported(page) == []
    events = set(re.findall(r"`([a-z]+\.[a-z_]+)`", page)) - {"server.log"}
    assert events - logged().keys() == set()
