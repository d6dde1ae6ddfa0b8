"""One wheel of this checkout for all environments."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from compat.environments import ROOT, run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a user's pip would build it: in isolation, from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--quiet", "--no-deps"]
    run([*pip, "--wheel-dir", folder, ROOT], cwd=folder)
    (built,) = folder.glob("tenure-*.whl")
    return built
