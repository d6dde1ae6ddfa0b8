"""``tenure demo``, whole: what a newcomer sees first must work, tell the truth, and leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(400)]

COMMAND = [sys.executable, "-m", "tenure.client.cli", "demo"]
# For those that are ended before anything has been trained: a worker more is another start of torch.
SMALL = [*COMMAND, "--workers", "1"]


@pytest.fixture(autouse=True)
def _needs_the_demo_extra() -> None:
    for name in ("torch", "sklearn", "optuna"):
        pytest.importorskip(name)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's temporary directory goes here, and its name tells its processes apart from all others."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_the_demo_keeps_every_promise(temporary: Path) -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout
    assert "SIGKILL to worker-" in told
    assert "SIGKILL to the master and its store" in told
    for name, number in {"submitted": None, "lost": 0, "evaluated twice": 0}.items():
        (figure,) = re.findall(rf"^{name} +(\d+)", told, re.MULTILINE)
        assert number is None or int(figure) == number
    (submitted,) = re.findall(r"^submitted +(\d+)", told, re.MULTILINE)
    (succeeded,) = re.findall(r"^succeeded +(\d+)", told, re.MULTILINE)
    (resumed,) = re.findall(r"^resumed from a checkpoint +(\d+)", told, re.MULTILINE)
    assert int(submitted) == int(succeeded) > 10
    assert int(resumed) >= 1
    accuracies = re.findall(r"^ +(0\.\d{4}|1\.0000) ", told, re.MULTILINE)
    assert float(accuracies[0]) >= 0.97
    assert "BROKEN" not in told
    assert "every promise was kept" in told
    assert done.stderr == ""
    assert survivors(temporary) == []
    assert list(temporary.glob("tenure-demo-*")) == []


def test_without_chaos_nobody_is_killed(temporary: Path) -> None:
    command = [*COMMAND, "--no-chaos", "--trials", "3", "--workers", "1", "--data-dir", str(temporary / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "SIGKILL" not in done.stdout
    kept = "every promise was kept" in done.stdout
    assert done.returncode == (0 if kept else 1), done.stdout
    # Three networks may all be poor; that is the only promise that such a run may break.
    assert set(re.findall(r"^BROKEN +(.+?)  ", done.stdout, re.MULTILINE)) <= {"the best accuracy is at least 0.97"}
    # A directory that was named is kept, with the logs.
    assert {path.name for path in (temporary / "demo" / "logs").glob("*.log")} == {"master.log", "worker-1.log"}
    assert survivors(temporary) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_stopped_leaves_no_process(temporary: Path, number: signal.Signals, code: int) -> None:
    with subprocess.Popen(SMALL, stdout=subprocess.PIPE, text=True, start_new_session=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "searching" in line:
                break
        assert len(processes_of(temporary)) >= 3
        os.kill(demo.pid, number)
        demo.stdout.read()
        assert demo.wait(60) == code
    assert survivors(temporary) == []


def test_a_demo_that_is_killed_leaves_no_process(temporary: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the parent-death signal is Linux's")
    with subprocess.Popen(SMALL, stdout=subprocess.PIPE, text=True, start_new_session=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "searching" in line:
                break
        started = processes_of(temporary)
        assert len(started) >= 3
        demo.kill()
    assert psutil.wait_procs(started, timeout=90)[1] == []


def processes_of(directory: Path) -> list[psutil.Process]:
    """Processes that name the directory, or work in it."""
    return [process for process in psutil.process_iter(["cmdline", "cwd"]) if _belongs(process, directory)]


def survivors(directory: Path) -> list[psutil.Process]:
    """Those of them that are still there after a moment to die in."""
    return psutil.wait_procs(processes_of(directory), timeout=60)[1]


def _belongs(process: psutil.Process, directory: Path) -> bool:
    words = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
    return process.pid != os.getpid() and any(str(directory) in word for word in words)
