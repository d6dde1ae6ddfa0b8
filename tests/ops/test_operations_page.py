"""docs/operations.md speaks of things that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ops.pages import commands_not_there, logged, metrics_not_exported

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()


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
    assert metrics_not_exported(PAGE) == []


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\bops/[\w./-]*\w", PAGE))))
def test_files_in_the_text_are_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_commands_in_the_text_are_there() -> None:
    assert commands_not_there(PAGE) == []
