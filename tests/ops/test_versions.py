"""The versions that an upgrade goes from and to: environments side by side, and the links to them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest
from restarting.console import Console
from restarting.master_target import LocalMaster
from restarting.processes import CannotRestart, Output, Recipe
from safekeeping import making
from upgrading.change import Change, InstalledVersion
from upgrading.command import _change
from upgrading.moving import moved
from upgrading.preflight import back_up, backup_command
from upgrading.versions import Installer, Versions


def test_what_runs_from_a_version_is_started_from_another(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    target = str(versions.path("2.0"))
    for interpreter, program in (
        (f"{tmp_path}/versions/1.0/bin/python", f"{tmp_path}/bin/tenure"),
        (f"{tmp_path}/versions/1.0/bin/python3", f"{tmp_path}/current/bin/tenure"),
    ):
        environment = {"PATH": f"{tmp_path}/versions/1.0/bin:/bin", "VIRTUAL_ENV": f"{tmp_path}/versions/1.0"}
        recipe = moved(Recipe((interpreter, program, "master"), environment, tmp_path), versions, "2.0")
        assert recipe.argv == (interpreter.replace("versions/1.0", "versions/2.0"), f"{target}/bin/tenure", "master")
        assert recipe.environ == {"PATH": f"{target}/bin:/bin", "VIRTUAL_ENV": target}
    kept = (f"{tmp_path}/versions/1.0/bin/python", f"{tmp_path}/bindings", f"{tmp_path}/versions2/x")
    assert moved(Recipe(kept, {}, tmp_path), versions, "2.0").argv[1:] == kept[1:]
    with pytest.raises(CannotRestart, match="is not below"):
        moved(Recipe(("/usr/bin/python3", "-m", "tenure.worker"), {}, tmp_path), versions, "2.0")


def test_versions_stand_side_by_side(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    assert (versions.current, versions.previous) == ("", "")
    installed(tmp_path, "1.0", "2.0")
    assert (versions.current, versions.previous) == ("2.0", "1.0")
    assert (tmp_path / "bin" / "tenure").resolve() == versions.path("2.0").resolve() / "bin" / "tenure"
    versions.use("2.0")
    assert versions.previous == "1.0", "using what is used changes nothing"
    versions.use("1.0")
    assert (versions.current, versions.previous) == ("1.0", "2.0")
    (tmp_path / "bin").unlink()
    (tmp_path / "bin").mkdir()
    with pytest.raises(CannotRestart, match="has to be a link to current/bin"):
        Versions(tmp_path)
    (tmp_path / "pyvenv.cfg").touch()
    with pytest.raises(CannotRestart, match="is a virtual environment itself"):
        Versions(tmp_path)


def installed(root: Path, *names: str) -> Versions:
    """These versions, used in this order."""
    versions = Versions(root)
    for name in names:
        (versions.path(name) / "bin").mkdir(parents=True)
        (versions.path(name) / "bin" / "tenure").touch()
        versions.use(name)
    return versions


PIP = Installer("python3", ["tenure"], [])


def rollback(versions: Versions) -> Change:
    """What ``upgrade --rollback`` is about to do."""
    given = argparse.Namespace(root=versions.root, rollback=True, to_command=None, back_command=None)
    return _change(given)


def test_after_going_back_by_itself_nothing_leads_to_the_bad_version(tmp_path: Path) -> None:
    versions = installed(tmp_path, "1.0", "2.0")
    bad = InstalledVersion(versions, "3.0", versions.current, versions.previous, PIP)
    bad.apply()
    assert (versions.current, versions.previous) == ("3.0", "2.0")
    assert rollback(versions).version == "2.0", "of an upgrade that was broken off"
    bad.revert()
    bad.settle(reverted=True)
    assert (versions.current, versions.previous, versions.leaving) == ("2.0", "1.0", "")
    assert rollback(versions).version == "1.0"


def test_after_going_back_from_the_second_version_there_is_none_before_the_first(tmp_path: Path) -> None:
    versions = installed(tmp_path, "1.0")
    bad = InstalledVersion(versions, "2.0", "1.0", "", PIP)
    bad.apply()
    bad.revert()
    bad.settle(reverted=True)
    assert (versions.current, versions.previous) == ("1.0", "")
    with pytest.raises(CannotRestart, match=r"has no version before 1\.0"):
        rollback(versions)


def test_a_rollback_finishes_going_back_where_that_stopped_half_way(tmp_path: Path) -> None:
    versions = installed(tmp_path, "1.0", "2.0")
    bad = InstalledVersion(versions, "3.0", versions.current, versions.previous, PIP)
    bad.apply()
    bad.revert()
    for _ in range(2):
        finishing = rollback(versions)
        assert finishing.version == "2.0", "neither the bad one nor the one before"
        finishing.apply()
        finishing.revert()
        finishing.settle(reverted=True)
        assert (versions.current, versions.previous, versions.leaving) == ("2.0", "1.0", "3.0")
    finishing.settle()
    assert rollback(versions).version == "1.0"
    # Or the new one is tried again.
    bad.apply()
    bad.revert()
    bad.apply()
    assert (versions.current, versions.previous, versions.leaving) == ("3.0", "2.0", "")


def test_a_rollback_that_was_broken_off_is_finished_by_the_next(tmp_path: Path) -> None:
    versions = installed(tmp_path, "1.0", "2.0")
    first = rollback(versions)
    first.apply()
    assert (versions.current, versions.previous, versions.leaving) == ("1.0", "2.0", "2.0")
    second = rollback(versions)
    assert second.version == "1.0", "back, not forward again"
    second.apply()
    second.settle()
    assert (versions.current, versions.previous, versions.leaving) == ("1.0", "2.0", "")
    assert rollback(versions).version == "2.0"


def test_a_link_that_was_set_before_a_kill_leads_nowhere_else(tmp_path: Path) -> None:
    versions = installed(tmp_path, "1.0", "2.0")
    for name in ("leaving", "previous"):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to("versions/2.0")
    assert (versions.current, versions.previous, versions.leaving) == ("2.0", "", "")


@pytest.mark.parametrize("given", [None, "redis://u:s3cret@given/1"])
def test_a_stores_password_is_in_no_command_line(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("tenure", "master", "--store", "redis://u:s3cret@told/1", "--key-prefix=p")
    master = LocalMaster("h:1", None, Recipe(argv, {"TENURE_MASTER_DATA_DIR": "/d"}, tmp_path), Output(None, None))
    wanted = given or "redis://u:s3cret@told/1"
    command, variables = backup_command(tmp_path / "to", [master], given)
    assert not any("s3cret" in word for word in command)
    monkeypatch.setenv("TENURE_MASTER_STORE", "embedded")
    dump = "import json, os, pathlib; pathlib.Path('seen').write_text(json.dumps(dict(os.environ)))"
    monkeypatch.chdir(tmp_path)
    back_up([sys.executable, "-c", dump], variables, Console(as_json=False))
    assert json.loads((tmp_path / "seen").read_text())["TENURE_MASTER_STORE"] == wanted
    monkeypatch.setenv("TENURE_MASTER_STORE", variables["TENURE_MASTER_STORE"])
    read = making.parser().parse_args(command[2:])
    assert (read.store, read.data_dir, read.key_prefix) == (wanted, Path("/d"), "p")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("tenure-1.0-py3-none-any.whl", "there is no such file"),
        ("other-1.0-py3-none-any.whl", "is not Tenure"),
        ("tenure.whl", "Invalid wheel filename"),
    ],
)
def test_a_wheel_that_can_not_be_installed(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(CannotRestart, match=why):
        Installer("python3", [str(tmp_path / name)], []).version()
