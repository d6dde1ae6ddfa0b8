"""The model of the protocol: read strictly, in step with the scripts, and each mutation has a counterexample."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "docs" / "model"
SCRIPT = ROOT / "scripts" / "check_model.py"
CHECKS = tomllib.loads((MODEL / "checks.toml").read_text())
# What README.md says is left out, and what only reads.
LEFT_OUT = {"submit", "forget"}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_model"] = module
    spec.loader.exec_module(module)
    return module


check_model = load()


def test_every_transition_is_modelled_under_its_name() -> None:
    from tenure.common.states import TRANSITIONS

    inlines = set(re.findall(r"^inline (\w+)\(", (MODEL / "store.pml").read_text(), re.MULTILINE))
    assert {row.name for row in TRANSITIONS} - inlines == LEFT_OUT
    scripts = {path.stem for path in (ROOT / "master" / "store" / "lua").glob("*.lua")}
    fragments = {"goes_to", "after_failure", "lease_for", "adopt", "readopt_if_late"}
    assert inlines - fragments <= scripts


@pytest.mark.parametrize("mutation", CHECKS["mutations"], ids=lambda each: each["name"])
def test_a_mutation_still_fits_the_model(mutation: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / mutation["file"]
    path.write_text((MODEL / mutation["file"]).read_text())
    check_model.mutate(path, mutation["find"], mutation["replace"])
    assert mutation["configuration"] in CHECKS["configurations"]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "pan: out of memory",
        "State-vector 8 byte, depth reached 9, errors: 0\n 5 states, stored\nerror: max search depth too small",
        "State-vector 8 byte, depth reached 9, errors: 0\n 5 states, stored\nWarning: Search not completed",
        "State-vector 8 byte, depth reached 9, errors: 1\n 5 states, stored",
    ],
)
def test_a_search_that_was_cut_short_is_no_success(said: str, tmp_path: Path) -> None:
    with pytest.raises(check_model.CheckError):
        check_model.read(said, tmp_path, [])


def test_a_finished_search_is_read(tmp_path: Path) -> None:
    said = "State-vector 8 byte, depth reached 9, errors: 0\n   1.5e+06 states, stored\npan: elapsed time 2.5 seconds\n"
    found = check_model.read(said, tmp_path, [])
    assert (found.violated, found.states, found.depth, found.seconds) == ("", 1_500_000, 9, 2.5)


def test_without_spin_it_says_how_to_get_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "apt-get install spin" in done.stderr


@pytest.mark.skipif(not shutil.which("spin") or not check_model.compiler(), reason="needs spin and a C compiler")
def test_a_mutation_is_caught() -> None:
    """One, to know that the checks can fail; all of them, and the configurations, are `make model`."""
    mutation = next(each for each in CHECKS["mutations"] if each["name"] == "the reaper doesn't look at the clock")
    found = check_model.search(check_model.verifier_of(mutation["configuration"], CHECKS, quick=True), 120, mutation)
    assert "need==0" in found.violated
    assert "call claim" in found.trace
