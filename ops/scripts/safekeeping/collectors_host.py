"""What a support bundle holds of this machine: versions, settings, processes, logs, the kernel's words."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

import tenure
from safekeeping.redaction import Redaction
from tenure.master.store.embedded import find_server

_COMMAND_SECONDS = 20.0
_KERNEL = re.compile(r"out of memory|oom|killed process|xid|i/o error|hung task|segfault", re.IGNORECASE)
_KERNEL_LINES_MAX = 500


def versions() -> str:
    """Of Tenure, Python, every package, and the store's server."""
    packages = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
    server = find_server()
    return _json(
        {
            "tenure": tenure.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "server": {"path": server, "version": _output([server, "--version"])},
            "packages": dict(sorted(packages.items())),
        }
    )


def environment(redaction: Redaction) -> str:
    """This process's settings."""
    found = {name: value for name, value in sorted(os.environ.items()) if name.startswith("TENURE_")}
    redaction.learn(os.environ)
    return _json(found)


def processes(redaction: Redaction) -> str:
    """Tenure's processes on this machine, with their settings as far as this user may read them."""
    return _json(list(_processes(redaction)))


def _processes(redaction: Redaction) -> Iterator[dict[str, Any]]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if process.pid == os.getpid() or not any("tenure" in part for part in line):
                continue
            # Before what another user's process refuses.
            redaction.learn(_options(line))
            facts: dict[str, Any] = {"pid": process.pid, "parent": process.ppid(), "command": line}
            try:
                settings = process.environ()
                redaction.learn(settings)
                facts["settings"] = {name: value for name, value in settings.items() if name.startswith("TENURE_")}
                facts["memory"] = process.memory_info()._asdict()
                facts["threads"] = process.num_threads()
                facts["files"] = process.num_fds()
                facts["cpu_seconds"] = sum(process.cpu_times()[:2])
                facts["started_unix"] = process.create_time()
            except psutil.AccessDenied:
                facts["note"] = "belongs to another user: run this as that user, or as root, for more"
            yield facts


def _options(line: list[str]) -> dict[str, str]:
    """``--name value`` and ``--name=value`` of a command line."""
    found = {}
    for index, part in enumerate(line):
        if part.startswith("--"):
            name, equals, value = part.removeprefix("--").partition("=")
            found[name] = value if equals else (line[index + 1] if index + 1 < len(line) else "")
    return found


def settings_file(path: Path, redaction: Redaction) -> str:
    """An environment file."""
    text = path.read_text(errors="replace")
    pairs = (line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#"))
    redaction.learn({name.strip(): value.strip().strip("\"'") for name, _, value in pairs if value})
    return text


def system(folders: list[Path]) -> str:
    """Memory, disks, load, limits."""
    usages = {}
    for folder in folders:
        existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
        usages[str(folder)] = shutil.disk_usage(existing)._asdict()
    limits = {}
    for name in ("memory.max", "memory.current", "memory.events", "cpu.max", "pids.max"):
        with contextlib.suppress(OSError):
            limits[name] = Path("/sys/fs/cgroup", name).read_text().strip()
    facts: dict[str, Any] = {
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "memory": psutil.virtual_memory()._asdict(),
        "swap": psutil.swap_memory()._asdict(),
        "boot_unix": psutil.boot_time(),
        "disks": usages,
        "control_group": limits,
        "overcommit_memory": _first_line(Path("/proc/sys/vm/overcommit_memory")),
        "transparent_hugepages": _first_line(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "somaxconn": _first_line(Path("/proc/sys/net/core/somaxconn")),
    }
    return _json(facts)


def kernel(since: str) -> str:
    """What the kernel said of memory, GPUs and disks."""
    command = ["journalctl", "--dmesg", "--no-pager", "--output=short-iso", f"--since=-{since}"]
    text = _output(command) if shutil.which("journalctl") else _output(["dmesg", "--ctime"])
    lines = [line for line in text.splitlines() if _KERNEL.search(line)]
    return "\n".join(lines[-_KERNEL_LINES_MAX:]) + "\n"


def journal(unit: str, since: str) -> str:
    """The last log lines of a unit."""
    return _output(["journalctl", "--unit", unit, "--no-pager", "--output=cat", f"--since=-{since}"])


def gpus() -> str:
    """What NVIDIA's tool says."""
    return _output(["nvidia-smi", "-q"])


def tail(path: Path, bytes_max: int) -> str:
    """The end of a file, from the start of a line."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - bytes_max))
        content = file.read()
    if size > bytes_max:
        content = content.partition(b"\n")[2]
    return content.decode("utf-8", "replace")


def listing(folder: Path) -> str:
    """Names, sizes and times of all files below a folder."""
    rows = []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        rows.append(f"{status.st_mode:o} {status.st_uid} {status.st_size:>14} {status.st_mtime:.0f} {path}")
    return "\n".join(rows) + "\n"


def _first_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().partition("\n")[0]
    return ""


def _output(command: list[str]) -> str:
    """What a program prints; raises OSError if it can't be run, or fails without a word."""
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=_COMMAND_SECONDS, check=False
    )
    if done.returncode != 0 and not done.stdout:
        raise OSError(f"{command[0]}: {done.stderr.strip()[-300:] or f'exit status {done.returncode}'}")
    return done.stdout


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
