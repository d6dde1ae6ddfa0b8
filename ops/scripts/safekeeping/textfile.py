"""Figures of the newest backup for node_exporter's textfile collector (``--collector.textfile.directory``)."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import generate_latest

from safekeeping.folder import backups_in

NAME = "tenure_backup.prom"


def write_textfile(folder: Path, kept_in: Path, *, ran_at_unix: float, done: bool) -> None:
    """Replace the file.

    Args:
        folder: Where the collector looks.
        kept_in: The folder of the backups.
        ran_at_unix: When the run ended that this is written behind.
        done: Whether it did what it was told.
    """
    backups, unreadable = backups_in(kept_in)
    registry = CollectorRegistry()

    def gauge(name: str, text: str, value: float) -> None:
        Gauge(f"tenure_backup_{name}", text, registry=registry).set(value)

    gauge("run_timestamp_seconds", "When the last run ended, whatever came of it.", ran_at_unix)
    gauge("run_succeeded", "1 if the last run did what it was told: make a backup and verify it.", done)
    gauge("count", "Backups that are kept.", len(backups))
    if backups or unreadable:
        good = bool(backups) and backups[0].verified
        newest_good = good and not any(each.is_newer_than(backups[0]) for each in unreadable)
        gauge("verified", "1 if the newest backup is verified, and not damaged as far as is known.", newest_good)
    if backups:
        facts = backups[0].facts
        verified = [backup for backup in backups if backup.verified]
        gauge("bytes", "Size of the newest backup.", backups[0].size_bytes)
        gauge("seconds", "How long the newest backup took, with its verification.", facts["seconds"]["all"])
        gauge("held_up_seconds", "The longest that the store didn't answer meanwhile.", facts["held_up_seconds"])
        gauge("tasks", "Tasks in the newest backup.", sum(facts["states"].values()))
        if verified:
            gauge(
                "timestamp_seconds",
                "Moment of the newest verified backup: what was written later is not in it.",
                verified[0].moment_unix,
            )
    new = folder / f"{NAME}.new"
    new.write_bytes(generate_latest(registry))
    # The collector reads as another user.
    new.chmod(0o644)
    os.replace(new, folder / NAME)
