"""How the restart scripts read a process, and what they would start."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from restarting.interruptions import undisturbed
from restarting.processes import (
    CannotRestart,
    Output,
    Ready,
    Recipe,
    Running,
    reachable,
    start,
    unit_of,
    wait_until,
)

from tenure.common.passwords import without_passwords


def recipe(*argv: str, **environ: str) -> Recipe:
    return Recipe(argv, environ, Path("/"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (recipe("tenure", "master", "--listen", "h:1"), "h:1"),
        (recipe("tenure", "master", "--listen=h:1"), "h:1"),
        (recipe("tenure", "master", "--listen", "h:1", "--listen", "h:2"), "h:2"),
        (recipe("tenure", "master", "--listen", "h:1", TENURE_MASTER_LISTEN="h:2"), "h:1"),
        (recipe("tenure", "master", TENURE_MASTER_LISTEN="h:2"), "h:2"),
        (recipe("tenure", "master", "--listen"), ""),
    ],
)
def test_what_a_process_was_told(given: Recipe, expected: str) -> None:
    assert given.option("listen", "TENURE_MASTER_LISTEN") == expected


def test_what_is_added_wins_over_what_was_there() -> None:
    added = {"TENURE_WORKER_WORKER_ID": "w"}
    told = recipe("tenure", "worker", "--worker-id", "x").with_options(added)
    assert told.option("worker-id", "TENURE_WORKER_WORKER_ID") == "w"
    # Settings of a module that takes no arguments are in its environment alone.
    told = recipe("python", "-m", "tenure.worker", TENURE_WORKER_WORKER_ID="x").with_options(added)
    assert told.argv == ("python", "-m", "tenure.worker")
    assert told.option("worker-id", "TENURE_WORKER_WORKER_ID") == "w"


@pytest.mark.parametrize(
    ("address", "expected"),
    [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("h:1", "h:1"), ("[::1]:1", "[::1]:1")],
)
def test_a_wildcard_is_called_by_loopback(address: str, expected: str) -> None:
    assert reachable(address) == expected


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("0::/system.slice/tenure-master.service\n", "tenure-master.service"),
        ("0::/system.slice/system-tenure\\x2dworker.slice/tenure-worker@w1.service\n", "tenure-worker@w1.service"),
        ("2:cpu:/\n1:name=systemd:/system.slice/tenure-master.service\n", "tenure-master.service"),
        # Started by hand, from a terminal of a session or by another service.
        ("0::/user.slice/user-1000.slice/session-2.scope\n", ""),
        ("0::/user.slice/user@1000.service/app.slice/vte.scope\n", ""),
        ("0::/system.slice/ssh.service\n", ""),
        ("", ""),
    ],
)
def test_who_supervises(groups: str, expected: str) -> None:
    assert unit_of(groups) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--store redis://u:secret@h:1/0", "--store redis://u:***@h:1/0"),
        ("rediss://:secret@h", "rediss://:***@h"),
        ("redis://h:6379/0 a@b", "redis://h:6379/0 a@b"),
        ("redis://:p@ss/w?rd@h:1 redis://u:x@y@h:2", "redis://:***@h:1 redis://u:***@h:2"),
    ],
)
def test_passwords_are_not_shown(text: str, expected: str) -> None:
    assert without_passwords(text) == expected


def test_a_process_is_started_again_as_it_was(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['GREETING'], os.getcwd(), sys.argv[1:], flush=True); sys.stdin.read()"
    with open(tmp_path / "log", "ab") as log:
        first = subprocess.Popen(
            [sys.executable, "-c", code, "tenure"],
            cwd=tmp_path,
            env={"GREETING": "hello"},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    with first:
        assert wait_until(lambda: (tmp_path / "log").read_text() != "", 20)
        running = Running(first.pid)
        output = Output(running, None)
        assert output.description == str(tmp_path / "log")
        output.open()
        running.signal(signal.SIGTERM)
        assert running.wait(20)
        # Only a parent, or /proc while nobody has reaped it, tells how it ended.
        assert running.exit_status == -signal.SIGTERM
        second = start(running.recipe, output)
        output.close()
    assert second.wait(20) == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == [f"hello {tmp_path} ['tenure']"] * 2


def test_somebody_elses_process_is_not_taken_for_tenures() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with pytest.raises(CannotRestart, match="is not Tenure's"):
            Running(process.pid)
        process.kill()
    with pytest.raises(CannotRestart, match=f"no process {process.pid} runs"):
        Running(process.pid)


def test_ctrl_c_waits_until_the_step_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[bool] = []

    def step() -> None:
        with undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done
    assert capsys.readouterr().err == "will stop after this step\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"grpc": "h:1"}', "is no ready file: it has no 'pid'"),
        ('{"pid": 1}', "is no ready file: it has no 'grpc'"),
        ("[]", "is no ready file: that is JSON with pid and grpc"),
        ('{"pid": "x", "grpc": ""}', "is no ready file: that is JSON with pid and grpc"),
        ("no JSON", "is no ready file: that is JSON with pid and grpc"),
    ],
)
def test_what_is_no_ready_file_is_told_in_words(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    path.write_text(text)
    with pytest.raises(CannotRestart, match=re.escape(why)):
        Ready.read(path)
