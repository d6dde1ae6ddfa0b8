"""What pages for operators may speak of: log events, commands, metrics."""

from __future__ import annotations

import re
from pathlib import Path

from tenure.client.cli.app import app
from tenure.worker.slots.execution import WARNINGS

ROOT = Path(__file__).resolve().parents[2]


def logged() -> dict[str, set[str]]:
    """Levels by event, from the source."""
    found: dict[str, set[str]] = {}
    for folder in ("common", "master", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            for level, event in re.findall(r'\blog\.(\w+)\(\s*"(\w+\.\w+)"', path.read_text()):
                found.setdefault(event, set()).add("error" if level == "exception" else level)
            # What an executor logs, its supervisor writes at this level.
            for event in re.findall(r'\b_?log\(\s*"(\w+\.\w+)"', path.read_text()):
                found.setdefault(event, set()).add("warning" if event in WARNINGS else "info")
    return found


def metrics_not_exported(page: str) -> list[str]:
    """Names of metrics on the page that docs/metrics.md, which is made from the code, doesn't have; nor does
    the script that writes them."""
    listed = set(re.findall(r"`(tenure_\w+?)(?:\{|`)", (ROOT / "docs" / "metrics.md").read_text()))
    backups = (ROOT / "ops" / "scripts" / "safekeeping" / "textfile.py").read_text()
    listed |= {f"tenure_backup_{name}" for name in re.findall(r'gauge\(\s*"(\w+)"', backups)}
    names = [re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"\btenure_\w+", page)]
    return [name for name in names if name not in listed and f"{name}_total" not in listed]


def quoted(page: str) -> list[str]:
    """What stands between backticks within its text, each on one line: wrapped text may break it over two."""
    text = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", text)]


def commands_not_there(page: str) -> list[str]:
    """``tenure NOUN VERB`` on the page that the command line doesn't have."""
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    plain = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    missing = []
    for noun, verb in re.findall(r"`tenure\s+(\w+)(?:\s+(\w+))?", page):
        if noun in groups:
            inner = groups[noun]
            assert inner is not None
            verbs = {each.name or each.callback.__name__ for each in inner.registered_commands if each.callback}
            if verb not in verbs:
                missing.append(f"tenure {noun} {verb}")
        elif noun not in plain:
            missing.append(f"tenure {noun}")
    return missing


def options_not_there(page: str) -> list[str]:
    """Options in code of their own (```--store``) that the command line doesn't have."""
    known = set(re.findall(r"--[a-z-]+", (ROOT / "docs" / "cli.md").read_text()))
    return [option for option in re.findall(r"`(--[a-z-]+)", page) if option not in known]
