"""make, CI and the packaging: what a newcomer meets first agrees with itself."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib

from tidy.tree import PACKAGE_FOLDERS, ROOT

import tenure

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^\s+make ([\w-]+)", listed, re.MULTILINE)) == targets
    assert targets >= {"help", "setup", "demo", "test", "lint", "proto"}


def test_ci_is_strict_and_asks_nothing() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert "exec </dev/null" in text
    assert re.search(r"^make test( 2>&1 \| tee \"\$log\" \|\| alone)?$", text, re.MULTILINE)
    subprocess.run(["bash", "-n", script], check=True)


def test_the_package_is_the_top_level_folders() -> None:
    """src/tenure holds links for editable installs; what is built comes from the folders themselves."""
    links = {path.name: os.readlink(path) for path in (ROOT / "src" / "tenure").iterdir() if path.is_symlink()}
    assert links == {folder: f"../../{folder}" for folder in PACKAGE_FOLDERS}
    targets = PROJECT["tool"]["hatch"]["build"]["targets"]
    assert targets["wheel"]["sources"] == {"src/tenure": "tenure"} | {
        name: f"tenure/{name}" for name in PACKAGE_FOLDERS
    }
    assert set(PACKAGE_FOLDERS) < set(targets["wheel"]["only-include"]) < set(targets["sdist"]["only-include"])


def test_there_is_one_version() -> None:
    assert PROJECT["project"]["version"] == tenure.__version__


def test_the_constraints_pin_within_the_ranges() -> None:
    ranges = {}
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    for entry in (entry for group in groups for entry in group):
        name, _, specifier = re.match(r"([\w-]+)(\[[^]]*\])?(.*)", entry).groups()
        ranges[name] = specifier
    pins = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints" / "test.txt").read_text(), re.MULTILINE)
    assert pins
    for name, version in pins:
        for operator, bound in re.findall(r"(>=|<)([\d.]+)", ranges[name]):
            pinned, limit = (tuple(map(int, text.split("."))) for text in (version, bound))
            assert pinned >= limit if operator == ">=" else pinned < limit, f"{name}=={version}{ranges[name]}"
