"""docs/operations.md speaks of things that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tenure.client.cli.app import app
from tenure.worker.slots.execution import WARNINGS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()


def logged() -> dict[str, set[str]]:
    """Levels by event, from the source."""
    found: dict[str, set[str]] = {}
    for folder in ("master", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            for level, event in re.findall(r'\blog\.(\w+)\(\s*"(\w+\.\w+)"', path.read_text()):
                found.setdefault(event, set()).add("error" if level == "exception" else level)
            # What an executor logs, its supervisor writes at this level.
            for event in re.findall(r'\b_?log\(\s*"(\w+\.\w+)"', path.read_text()):
                found.setdefault(event, set()).add("warning" if event in WARNINGS else "info")
    return found


def described() -> dict[str, str]:
    """Level by event, from the table."""
    rows = re.findall(r"^\| (`\w+\.\w+`(?:, `\w+\.\w+`)*) \| (\w+) \|", PAGE, re.MULTILINE)
    return {event: level for events, level in rows for event in re.findall(r"`(\w+\.\w+)`", events)}


def test_events_in_the_table_are_logged_at_that_level() -> None:
    levels = logged()
    assert {event for event, level in described().items() if level not in levels.get(event, set())} == set()


def test_every_error_is_in_the_table() -> None:
    grave = {event for event, levels in logged().items() if levels & {"error", "critical"}}
    assert grave - described().keys() == set()


def test_events_in_the_text_are_logged() -> None:
    text = PAGE.partition("## Log events")[2].rpartition("|\n")[2]
    named = re.findall(r"`(\w+\.\w+)`", text)
    assert named
    assert [event for event in named if event not in logged()] == []


def test_metrics_in_the_text_are_exported() -> None:
    source = "".join((ROOT / name / "metrics.py").read_text() for name in ("master", "worker"))
    for name in re.findall(r"`(tenure_\w+)`", PAGE):
        assert name.removesuffix("_total").removeprefix("tenure_worker_") in source, name


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\bops/[\w./-]*\w", PAGE))))
def test_files_in_the_text_are_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_commands_in_the_text_are_there() -> None:
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    plain = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    for noun, verb in re.findall(r"`tenure (\w+)(?:\s+(\w+))?", PAGE):
        if noun in groups:
            inner = groups[noun]
            assert inner is not None
            verbs = {
                command.name or command.callback.__name__ for command in inner.registered_commands if command.callback
            }
            assert verb in verbs, f"tenure {noun} {verb}"
        else:
            assert noun in plain, f"tenure {noun}"
