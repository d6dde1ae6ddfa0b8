"""Mends the embedded store after damage to its append-only file that stops its start.

The file is a base (a snapshot) and increments (what was written since), named in order by a manifest. An increment is
cut at its first damaged record. A damaged base can't be mended.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tenure.common.errors import StartupError
from tenure.master.store.embedded import DataDirectory, find_server

# A line of the manifest: ``file <name> seq <number> type <b|i|h>…``; b is the base, i an increment.
_MANIFEST_LINE = re.compile(r"^file (?P<name>\S+) seq \d+ type (?P<kind>\w)")


def repair_append_only_file(data_dir: Path) -> str:
    """Cut the append-only file at its first damaged record. Returns what was done, for people.

    Holds the data directory meanwhile, and keeps a copy of the folder beside it first.

    Raises:
        DataDirectoryInUse: A master runs on it.
        StartupError: There is no such file, or it can't be mended.
    """
    data = DataDirectory(data_dir)
    try:
        manifests = sorted((data_dir / "store" / "appendonlydir").glob("*.manifest"))
        if not manifests:
            raise StartupError("holds no append-only file", field="data_dir", given=str(data_dir))
        stamp = time.strftime("%Y%m%dT%H%M%S")
        copy = Path(tempfile.mkdtemp(prefix=f"store.before-repair-{stamp}-", dir=data_dir))
        shutil.copytree(data_dir / "store", copy, dirs_exist_ok=True)
        done = _mend(manifests[0], copy)
        return f"{done}\nthe files as they were are in {copy}"
    finally:
        data.release()


def _mend(manifest: Path, copy: Path) -> str:
    entries = [found for line in manifest.read_text().splitlines() if (found := _MANIFEST_LINE.match(line))]
    for base in (manifest.parent / entry["name"] for entry in entries if entry["kind"] == "b"):
        _run("rdb" if base.suffix == ".rdb" else "aof", base, copy)
    increments = [manifest.parent / entry["name"] for entry in entries if entry["kind"] == "i"]
    for position, path in enumerate(increments):
        whole = path.stat().st_size
        _run("aof", path, copy, "--fix")
        cut = whole - path.stat().st_size
        if cut:
            # What was written after the damage means nothing without what is missing.
            _drop(manifest, [later.name for later in increments[position + 1 :]])
            return f"{path} was cut at its first damaged record: {cut} bytes less"
    return f"{manifest.parent} is not damaged"


def _run(kind: str, path: Path, copy: Path, *options: str) -> None:
    """The server's binary is its own checker when it is called by that name."""
    binary = find_server()
    family = "valkey" if "valkey" in os.path.basename(binary) else "redis"
    finished = subprocess.run(
        [f"{family}-check-{kind}", *options, str(path)],
        executable=binary,
        input="y\n",
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if finished.returncode != 0:
        raise StartupError(
            f"{path} can't be mended: {(finished.stdout + finished.stderr).strip()[-500:]}",
            field="data_dir",
            given=str(path.parent.parent.parent),
            expected=f"restore a backup; the untouched copy is {copy}",
        )


def _drop(manifest: Path, names: list[str]) -> None:
    kept = [
        line
        for line in manifest.read_text().splitlines(keepends=True)
        if not (entry := _MANIFEST_LINE.match(line)) or entry["name"] not in names
    ]
    rewritten = manifest.with_suffix(".rewritten")
    rewritten.write_text("".join(kept))
    os.replace(rewritten, manifest)
    for name in names:
        (manifest.parent / name).unlink()
