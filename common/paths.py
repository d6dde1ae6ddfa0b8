"""Where Tenure keeps files when nobody says otherwise (XDG base directories)."""

from __future__ import annotations

import os
from pathlib import Path


def data_home() -> Path:
    """``$TENURE_HOME``, else ``$XDG_DATA_HOME/tenure``, else ``~/.local/share/tenure``."""
    if home := os.environ.get("TENURE_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tenure"


def master_data_dir() -> Path:
    """The embedded store's directory."""
    return data_home() / "master"


def worker_dir(worker_id: str) -> Path:
    """A worker's spool, logs and scratch space."""
    return data_home() / "workers" / worker_id.replace("/", "_")


def checkpoints_url() -> str:
    """One place for all workers of this user, so that any of them can go on from another's checkpoint."""
    return (data_home() / "checkpoints").as_uri()
