"""How long the scripts take to copy, verify, restore and drill, by the size of the store."""

from __future__ import annotations

import asyncio
import json
import os
import resource
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

_AT_ONCE = 1000
SCRIPTS = Path(__file__).resolve().parent.parent.parent / "ops" / "scripts"


@dataclass(frozen=True)
class Took:
    """One run: ``size_bytes`` of files were handled in ``seconds``. ``cpu_seconds``: for how long of it a core was
    busy, also with the servers that it starts; 0 where nobody knows.
    """

    what: str
    seconds: float
    size_bytes: int
    cpu_seconds: float = 0.0


def script(name: str, *words: str | Path) -> tuple[Any, float]:
    """Run one of ops/scripts: (its JSON, processor seconds)."""
    before = _children()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / name), *map(str, words), "--output", "json"],
        env=environment,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{name} ended with {done.returncode}")
    return json.loads(done.stdout), _children() - before


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def _fill(server: StoreServer, tasks: int) -> None:
    store = await open_store(StoreOptions(url=server.url, durability="relaxed"))
    try:
        for start in range(0, tasks, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, tasks))
            specs = [TaskSpec(architecture=graph(number), key=f"b-{number:08d}") for number in numbers]
            await asyncio.gather(*(store.tasks.submit("backup", batch) for batch in batches(specs)))
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
        facts, cpu = script("backup", "--store", server.url, "--to", to, "--method", method)
        size = sum(file["bytes"] for node in facts["nodes"] for file in node["files"])
        found += [
            Took(f"backup by {method}, the copy of it", facts["seconds"]["copy"], size),
            Took(f"backup by {method}, with verification", facts["seconds"]["all"], size, cpu),
            Took("longest that the store answered nobody meanwhile", facts["held_up_seconds"], size),
        ]
        progress(f"restore of what was copied by {method}")
        restored, cpu = script("restore", to, "--data-dir", root / f"data-{method}")
        found.append(Took("restore of that, with verification and a start", restored["seconds"], size, cpu))
    progress("disaster-drill")
    drilled, cpu = script("disaster-drill", "--from", root / "backups-files", "--scratch", root)
    return [*found, Took("disaster-drill, to a task evaluated", drilled["rto_seconds"], size, cpu)]
