"""The systemd units: settings that belong together, and what systemd itself says of them where it is installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tools import tool

from tenure.common.notify import BEAT_SECONDS_MAX, EXTENSION_SECONDS
from tenure.master.settings import MasterSettings
from tenure.worker.settings import WorkerSettings
from tenure.worker.supervisor import ExitCode

FOLDER = Path(__file__).resolve().parents[2] / "ops" / "systemd"
UNITS = sorted([*FOLDER.glob("*.service"), *FOLDER.glob("*.timer")])
MASTER, WORKER = FOLDER / "tenure-master.service", FOLDER / "tenure-worker@.service"

# What `systemd-analyze security` may say of each, from 0 (closed) to 100, in tenths of what it prints.
EXPOSURE_MAX = {
    "tenure-master.service": 12,
    "tenure-worker@.service": 23,
    "tenure-fsck.service": 16,
    "tenure-backup.service": 16,
}


def directives(unit: Path) -> dict[str, str]:
    """The last value of each."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with a command that exists, since systemd looks for it."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(re.sub(r"/opt/tenure/bin/\w+", "/bin/true", unit.read_text()))
    return tmp_path


@pytest.mark.tools
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_unit_without_a_word(unit: Path, installed: Path) -> None:
    command = [tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(installed / unit.name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "tenure" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.tools
@pytest.mark.parametrize("unit", sorted(FOLDER.glob("*.service")), ids=lambda unit: unit.name)
def test_the_unit_exposes_little(unit: Path, installed: Path) -> None:
    command = [tool("systemd-analyze"), "security", "--offline=true", "--no-pager"]
    command.append(f"--threshold={EXPOSURE_MAX[unit.name]}")
    done = subprocess.run([*command, str(installed / unit.name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", [MASTER, WORKER], ids=lambda unit: unit.name)
def test_it_says_itself_when_it_serves_and_that_it_turns(unit: Path) -> None:
    told = directives(unit)
    assert told["Type"] == "notify"
    # The event loop may be held up by a slow disk; silence must be a lot longer than a beat.
    assert int(told["WatchdogSec"]) >= 10 * BEAT_SECONDS_MAX
    assert "NotifyAccess" not in told, "the main process only, by default: no executor speaks for its worker"


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


def test_a_silent_worker_is_killed_when_its_leases_are_lost_anyway() -> None:
    ttl = MasterSettings.model_fields["lease_ttl_seconds"].default
    assert int(directives(WORKER)["WatchdogSec"]) >= 2 * ttl


@pytest.mark.parametrize("unit", [MASTER, WORKER], ids=lambda unit: unit.name)
def test_a_beat_asks_for_more_time_before_a_stop_is_over(unit: Path) -> None:
    assert int(directives(unit)["TimeoutStopSec"]) >= 2 * BEAT_SECONDS_MAX
    assert EXTENSION_SECONDS >= 2 * BEAT_SECONDS_MAX


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
