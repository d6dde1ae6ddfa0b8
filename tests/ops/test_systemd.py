"""The systemd units: settings that belong together, and what systemd itself says of them where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tenure.master.settings import MasterSettings
from tenure.worker.settings import WorkerSettings
from tenure.worker.supervisor import ExitCode

FOLDER = Path(__file__).resolve().parents[2] / "ops" / "systemd"
UNITS = sorted([*FOLDER.glob("*.service"), *FOLDER.glob("*.timer")])
MASTER, WORKER = FOLDER / "tenure-master.service", FOLDER / "tenure-worker@.service"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def directives(unit: Path) -> dict[str, str]:
    """The last value of each."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with a command that exists, since systemd looks for it."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/tenure/bin/tenure", "/bin/true"))
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_unit_without_a_word(unit: Path, installed: Path) -> None:
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(installed / unit.name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "tenure" in line]
    assert (done.returncode, ours) == (0, [])


@needs_systemd
@pytest.mark.parametrize("unit", [MASTER, WORKER], ids=lambda unit: unit.name)
def test_the_unit_exposes_little(unit: Path, installed: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=40", "--no-pager"]
    done = subprocess.run([*command, str(installed / unit.name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", [MASTER, WORKER], ids=lambda unit: unit.name)
def test_it_comes_back_always_and_only_it_gets_the_sigterm(unit: Path) -> None:
    told = directives(unit)
    assert told["Restart"] == "always"
    assert told["StartLimitIntervalSec"] == "0"
    # control-group would send SIGTERM to the embedded store and to executors, too.
    assert told["KillMode"] == "mixed"
    assert told["OOMPolicy"] == "continue"
    assert told["User"] == "tenure"
    assert told["NoNewPrivileges"] == "yes"


def test_a_drain_may_finish_before_the_kill() -> None:
    grace = WorkerSettings.model_fields["drain_grace_seconds"].default
    assert int(directives(WORKER)["TimeoutStopSec"]) >= grace + 20


def test_a_superseded_worker_stays_down() -> None:
    assert directives(WORKER)["RestartPreventExitStatus"] == str(ExitCode.SUPERSEDED.value)


def test_a_worker_keeps_its_gpus() -> None:
    """Each of these closes /dev/nvidia*, ProtectClock by way of the device policy that it implies."""
    told = directives(WORKER)
    assert not {"PrivateDevices", "ProtectClock", "DevicePolicy", "DeviceAllow", "MemoryDenyWriteExecute"} & told.keys()


@pytest.mark.parametrize(("name", "settings"), [("master.env", MasterSettings), ("worker.env", WorkerSettings)])
def test_environment_files_name_settings(name: str, settings: type) -> None:
    prefix = settings.model_config["env_prefix"]
    given = re.findall(r"^#?([A-Z_]+)=", (FOLDER / name).read_text(), re.MULTILINE)
    assert given
    fields = {f"{prefix}{field.upper()}" for field in settings.model_fields} | {"TENURE_MASTER"}
    assert set(given) <= fields
