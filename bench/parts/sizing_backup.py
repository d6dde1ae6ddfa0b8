"""How long the scripts take to copy, verify, restore and drill, by the size of the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parts.figures import progress
from parts.sizing_store import batches, graph
from store_server import StoreServer

from tenure.common.spec import TaskSpec
from tenure.master.store import StoreOptions, open_store

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "ops" / "scripts"


@dataclass(frozen=True)
class Took:
    """One run: ``size_bytes`` of files were handled in ``seconds``."""

    what: str
    seconds: float
    size_bytes: int

    @property
    def seconds_per_gb(self) -> float:
        """At this rate."""
        return self.seconds / (self.size_bytes / 1e9)


def script(name: str, *words: str | Path) -> Any:
    """Run one of ops/scripts; its JSON."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / name), *map(str, words), "--output", "json"],
        env=environment,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{name} ended with {done.returncode}")
    return json.loads(done.stdout)


async def _fill(server: StoreServer, tasks: int) -> None:
    store = await open_store(StoreOptions(url=server.url))
    try:
        specs = [TaskSpec(architecture=graph(number), key=f"b-{number:08d}") for number in range(tasks)]
        for batch in batches(specs):
            await store.tasks.submit("backup", batch)
    finally:
        await store.close()


async def measure_backup(tasks: int) -> list[Took]:
    """Of a store with so many tasks."""
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder:
        root = Path(folder)
        # What is measured is the scripts: the store is filled without waiting for its disk.
        server = StoreServer(root / "store", appendfsync="everysec", **{"repl-diskless-sync-delay": "0"}).start()
        try:
            progress(f"a store with {tasks} tasks")
            await _fill(server, tasks)
            return _run_scripts(root, server)
        finally:
            server.remove()


def _run_scripts(root: Path, server: StoreServer) -> list[Took]:
    found = []
    for method in ("replication", "files"):
        progress(f"backup by {method}")
        to = root / f"backups-{method}"
        facts = script("backup", "--store", server.url, "--to", to, "--method", method)
        size = sum(file["bytes"] for node in facts["nodes"] for file in node["files"])
        seconds = facts["seconds"]
        found += [
            Took(f"backup by {method}: copy", seconds["copy"], size),
            Took(f"backup by {method}: with verification", seconds["all"], size),
        ]
        progress(f"restore of what was copied by {method}")
        restored = script("restore", to, "--data-dir", root / f"data-{method}")
        found.append(Took("restore of that into a data directory, start checked", restored["seconds"], size))
        held_up = facts["held_up_seconds"]
        found.append(Took(f"longest that the store answered nobody ({method})", held_up, size))
    progress("disaster-drill")
    drilled = script("disaster-drill", "--from", root / "backups-files", "--scratch", root)
    return [*found, Took("disaster-drill: backup to a task evaluated", drilled["rto_seconds"], size)]
