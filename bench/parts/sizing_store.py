"""What tasks cost the store: bytes of memory and of append-only file, a step at a time."""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parts.figures import progress
from store_scene import Scene, failure, open_scene, renewal, success
from store_server import StoreServer

from tenure.common.spec import TaskSpec
from tenure.master.store import StoreOptions, open_store
from tenure.master.store.records import Evidence, Grant

BATCH = 100
WORKER = "worker-gpu-0042"
LOG_TAIL_BYTES = 2000
CHECKPOINTS_EACH = 3
_GRAPH_NODES = 12


def graph(number: int) -> str:
    """An architecture of 2.7 KB, like no other."""
    chance = random.Random(number)
    nodes = [
        {
            "id": f"node-{index}",
            "operation": chance.choice(["conv2d", "dense", "maxpool", "dropout", "batchnorm"]),
            "params": {"filters": chance.randrange(16, 512), "kernel_size": chance.choice([1, 3, 5]), "stride": 1},
            "metadata": {"origin": f"{chance.getrandbits(128):032x}"},
        }
        for index in range(_GRAPH_NODES)
    ]
    edges = [
        {"id": f"edge-{index}", "source_id": f"node-{index}", "target_id": f"node-{index + 1}"}
        for index in range(_GRAPH_NODES - 1)
    ]
    return json.dumps({"nodes": nodes, "edges": edges, "metadata": {"generation": number % 50}})


@dataclass(frozen=True)
class Cost:
    """Of one thing. ``memory`` and ``log``: bytes a piece; ``log`` is the append-only file."""

    what: str
    memory: float
    log: float


class Measuring:
    """A server, and what grows in it.

    Attributes:
        costs: One for each step so far.
        event_bytes: What an event takes in the stream.
    """

    def __init__(self, server: StoreServer, scene: Scene) -> None:
        self.scene = scene
        self.costs: list[Cost] = []
        self.event_bytes = 0.0
        self._client = server.client()

    def used(self) -> tuple[int, int]:
        """(memory without the event stream, append-only file) in bytes.

        The stream is bounded, so it is no part of what a task costs.
        """
        events = self.scene.key("events")
        if length := int(self._client.xlen(events)):
            self.event_bytes = float(self._client.memory_usage(events, samples=0) or 0) / length
            self._client.xtrim(events, maxlen=0, approximate=False)
        info: Any = self._client.info("everything")
        return int(info["used_memory"]), int(info["aof_current_size"])

    async def step(self, what: str, count: int, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do something ``count`` times over; notes what it cost a piece."""
        progress(f"{what}: {count}")
        memory, written = self.used()
        result = await work()
        memory_after, written_after = self.used()
        self.costs.append(Cost(what, (memory_after - memory) / count, (written_after - written) / count))
        return result

    def rewrite(self) -> tuple[int, int]:
        """(size of the append-only file before, after it was rewritten)."""
        before = self.used()[1]
        self._client.bgrewriteaof()
        while True:
            info: Any = self._client.info("persistence")
            if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]:
                return before, self.used()[1]

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()


def batches(items: list[Any]) -> Iterator[list[Any]]:
    """A hundred at a time."""
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


async def measure_store(tasks: int) -> tuple[list[Cost], tuple[int, int]]:
    """(costs, (append-only file before, after a rewrite)) of the life of ``tasks`` tasks, and as many that wait."""
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder:
        server = StoreServer(Path(folder) / "store", **{"auto-aof-rewrite-percentage": "0"}).start()
        store = await open_store(StoreOptions(url=server.url))
        scene = open_scene(store, server, "sizing")
        measuring = Measuring(server, scene)
        try:
            await _life(measuring, scene, tasks)
            events = Cost("event, of which the store keeps 100,000 a shard", measuring.event_bytes, 0)
            return [*measuring.costs, events], measuring.rewrite()
        finally:
            measuring.close()
            scene.client.close()
            await store.close()
            server.remove()


async def _life(measuring: Measuring, scene: Scene, tasks: int) -> None:
    half = tasks // 2

    async def submit(architectures: list[str], prefix: str) -> None:
        specs = [TaskSpec(architecture=each, key=f"{prefix}-{n:08d}") for n, each in enumerate(architectures)]
        for batch in batches(specs):
            await scene.tasks.submit(scene.search, batch)

    async def claim(count: int) -> list[Grant]:
        grants: list[Grant] = []
        while len(grants) < count:
            grants += await scene.claim(WORKER, min(BATCH, count - len(grants)))
        return grants

    architectures = [graph(number) for number in range(tasks)]
    size = sum(map(len, architectures)) / tasks
    what = f"queued task, a graph of its own ({size / 1000:.1f} KB)"
    await measuring.step(what, tasks, lambda: submit(architectures, "o"))
    same = [graph(-1)] * tasks
    await measuring.step("queued task, equal to another", tasks, lambda: submit(same, "e"))
    grants = await measuring.step("claim", tasks, lambda: claim(tasks))
    report = json.dumps({"step": 7, "total": 100, "metrics": {"loss": 0.123456, "val_accuracy": 0.654321}})

    async def renew(**changed: str) -> None:
        await scene.advance(10_000)  # or there is nothing to write
        for batch in batches(grants):
            await scene.tasks.renew_all([renewal(grant, WORKER, **changed) for grant in batch])

    await measuring.step("renewal with progress, the first", tasks, lambda: renew(progress=report))
    await measuring.step("renewal with progress, another", tasks, lambda: renew(progress=report))
    await measuring.step("renewal", tasks, renew)

    async def checkpoint() -> None:
        for number in range(CHECKPOINTS_EACH):
            for batch in batches(grants):
                await asyncio.gather(*(scene.checkpoint(grant, number + 1, worker=WORKER) for grant in batch))

    await measuring.step("checkpoint registered", tasks * CHECKPOINTS_EACH, checkpoint)
    metrics = {"fitness": 0.9, "val_accuracy": 0.9, "val_loss": 0.3, "params": 1e6, "train_loss": 0.2, "epochs": 20.0}

    async def complete() -> None:
        for batch in batches(grants[:half]):
            await scene.tasks.complete_all([success(grant, WORKER, metrics=metrics) for grant in batch])

    await measuring.step("success (leased to ended)", half, complete)
    tail = os.urandom(LOG_TAIL_BYTES // 2).hex()
    evidence = Evidence(error_class="RuntimeError", error_message="CUDA error: an illegal memory access", log_tail=tail)

    async def fail() -> None:
        for batch in batches(grants[half:]):
            ends = [failure(grant, WORKER, retryable=False, evidence=evidence) for grant in batch]
            await asyncio.gather(*(scene.tasks.fail(end) for end in ends))

    await measuring.step(f"failure with {LOG_TAIL_BYTES / 1000:g} KB of output", tasks - half, fail)
