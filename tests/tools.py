"""Programs that pip can't install. Tests that need one are marked ``tools`` and run in ``make ops-test`` only."""

from __future__ import annotations

import shutil

import pytest

PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "amtool": "prometheus-alertmanager",
    "chromium": "chromium",
    "shellcheck": "shellcheck",
    "systemctl": "systemd",
    "systemd-analyze": "systemd",
}

# Not in Debian, or too old there.
ELSEWHERE = {"kubectl": "https://kubernetes.io/docs/tasks/tools/ (1.27 or newer)"}


def tool(name: str) -> str:
    """The path of a program; the test fails when it isn't installed: who runs these tests has asked for them."""
    path = shutil.which(name)
    if path is None and name in ELSEWHERE:
        pytest.fail(f"{name} is not installed: {ELSEWHERE[name]}")
    if path is None:
        pytest.fail(f"{name} is not installed: apt-get install {PACKAGES.get(name, name)}, or scripts/install_tools")
    return path
