"""A real systemd for tests, with the real units: in namespaces of its own (systemd_stage.sh), below one directory."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import psutil
from processes import wait_for

UNITS = Path(__file__).resolve().parents[1] / "ops" / "systemd"
SCRIPT = Path(__file__).with_suffix(".sh")
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
# What a user's systemd can't do, or would hide the test's own files and interpreter.
NOT_HERE = ("User=", "Group=", "PrivateTmp=no", "ProtectHome=no")


def why_not() -> str:
    """Why no systemd can be run here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root, for namespaces and control groups"
    tried = subprocess.run(
        [*UNSHARE, "sh", "-c", "mount --make-rprivate / && mount -t proc proc /proc && mount -t cgroup2 none /mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"namespaces can't be made: {tried.stderr.strip()}" if tried.returncode else ""


class Stage:
    """One systemd, with the units of ops/systemd below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "units.log"
        self._group = f"tenure-test-{secrets.token_hex(6)}"
        for name in ("run", "config", "units", "state"):
            (directory / name).mkdir(mode=0o700)
        for name in ("basic", "shutdown", "network-online", "default"):
            (directory / "units" / f"{name}.target").write_text(f"[Unit]\nDescription={name}\n")
        for unit in UNITS.glob("*.service"):
            (directory / "units" / unit.name).write_text(self._moved(unit.read_text()))
        self._process = subprocess.Popen([*UNSHARE, str(SCRIPT), str(directory), self._group])
        wait_for(lambda: (directory / "run" / "systemd" / "private").exists(), what="systemd's socket")
        self._pid = psutil.Process(self._process.pid).children()[0].pid

    def settle(self, unit: str, environment: dict[str, str], *directives: str) -> None:
        """A drop-in for what differs from an installation: addresses, places, shorter times."""
        folder = self.directory / "units" / f"{unit}.service.d"
        folder.mkdir()
        lines = [
            "[Service]",
            *NOT_HERE,
            f"ReadWritePaths={self.directory}",
            f"WorkingDirectory={self.directory}",
            f"StandardOutput=append:{self.log}",
            f"StandardError=append:{self.log}",
            *(f'Environment="{name}={value}"' for name, value in environment.items()),
            *directives,
        ]
        (folder / "test.conf").write_text("\n".join(lines) + "\n")

    def systemctl(self, *arguments: str) -> str:
        """What it prints.

        Raises:
            AssertionError: It failed; with the end of what the units have said.
        """
        done = self._inside("systemctl", "--user", *arguments)
        assert done.returncode == 0, f"{done.stderr}\n{self.log.read_text()[-3000:] if self.log.exists() else ''}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit).strip()

    def signal(self, unit: str, name: str) -> None:
        """To the main process alone."""
        self.systemctl("kill", "--kill-whom=main", f"--signal={name}", unit)

    def end(self) -> None:
        """End it and everything that it has started."""
        self._process.kill()
        self._process.wait()
        clean = 'mount -t cgroup2 none /mnt && find "/mnt/$1" -depth -type d -exec rmdir {} +'
        wait_for(
            lambda: (
                not subprocess.run(
                    ["unshare", "--mount", "sh", "-c", clean, "-", self._group], capture_output=True, check=False
                ).returncode
            ),
            what="the end of its control group",
        )

    def _inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.directory / "run")}
        enter = ("nsenter", f"--target={self._pid}", "--mount", "--pid")
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=False, env=environment)

    def _moved(self, text: str) -> str:
        """A unit with its command and its places where this test has them."""
        return (
            text.replace("/opt/tenure/bin/tenure", f"{sys.executable} -P -m tenure.client.cli")
            .replace("/var/lib/tenure", str(self.directory / "state"))
            .replace("/run/", f"{self.directory}/run/")
        )
