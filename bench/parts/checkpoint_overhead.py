"""What the checkpoints of the built-in evaluator cost its training: the same training with and without, in turns."""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenure.common.spec import Config
from tenure.worker.checkpoint import ExecutorCheckpoints
from tenure.worker.checkpoint.interval import CheckpointPolicy
from tenure.worker.evaluator import EvaluationTask, MemoryContext
from tenure.worker.torch_eval import evaluate

WITHOUT = CheckpointPolicy(overhead=0.0)


@dataclass
class Cost:
    """Of one run: wall and CPU seconds of the process, and what its checkpoints took by their own account."""

    seconds: float
    cpu_seconds: float
    saved: int
    stall_seconds: float
    write_seconds: float
    size_bytes: int


@dataclass
class Turns:
    """Runs with checkpoints and without, one after the other."""

    given: list[Cost] = field(default_factory=list)
    without: list[Cost] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Each pair's ratio, their median, and the noise: how far runs without checkpoints differ among themselves."""
        bare = [one.seconds for one in self.without]
        saved = sum(one.saved for one in self.given)
        stalls = sum(one.stall_seconds for one in self.given) / sum(one.seconds for one in self.given)
        writes = sum(one.write_seconds for one in self.given) / sum(one.seconds for one in self.given)
        return [
            f"runs of {statistics.median(bare):.1f} s, {len(bare)} pairs, {saved} checkpoints of "
            f"{max(one.size_bytes for one in self.given) / 1e6:.1f} MB",
            *self._compare("wall", lambda cost: cost.seconds),
            *self._compare("CPU ", lambda cost: cost.cpu_seconds),
            f"by their own account: held up {100 * stalls:.2f} % of the time, writing beside it {100 * writes:.2f} %",
        ]

    def _compare(self, title: str, seconds: Callable[[Cost], float]) -> list[str]:
        ratios = [seconds(one) / seconds(other) for one, other in zip(self.given, self.without, strict=True)]
        noise = [seconds(later) / seconds(earlier) for earlier, later in itertools.pairwise(self.without)]
        return [
            f"{title} with / without     median {statistics.median(ratios):.4f}   {_all(ratios)}",
            f"{title} without / without  median {statistics.median(noise):.4f}   {_all(noise)}" if noise else "",
        ]


def _all(ratios: list[float]) -> str:
    return " ".join(f"{ratio:.3f}" for ratio in sorted(ratios))


def measure(directory: Path, policy: CheckpointPolicy, *, epochs: int, units: int, pairs: int) -> Turns:
    """In turns; which of the two is first changes from pair to pair. One run beforehand warms everything up."""
    _run(directory, WITHOUT, 1, units)
    turns = Turns()
    for pair in range(pairs):
        order = [(policy, turns.given), (WITHOUT, turns.without)]
        for one, costs in order if pair % 2 else reversed(order):
            costs.append(_run(directory, one, epochs, units))
    return turns


class _Context(MemoryContext):
    """Checkpoints as on a worker, under a policy of the bench's."""

    def __init__(self, directory: Path, policy: CheckpointPolicy) -> None:
        super().__init__(directory)
        self.size_bytes = 0
        self.checkpoint: Any = ExecutorCheckpoints(
            base_url=str(directory),
            search="bench",
            task_id="task",
            epoch=1,
            registered=[],
            announce=lambda written: setattr(self, "size_bytes", written.size_bytes),
            log=lambda event, **fields: None,
            policy=policy,
        )


def _run(directory: Path, policy: CheckpointPolicy, epochs: int, units: int) -> Cost:
    with tempfile.TemporaryDirectory(dir=directory) as place:
        context = _Context(Path(place), policy)
        started, cpu_started = time.perf_counter(), time.process_time()
        evaluate(_task(epochs, units), context)
        context.checkpoint.abandon()
        seconds = time.perf_counter() - started
        context.checkpoint.close()
        cpu_seconds = time.process_time() - cpu_started
        counters = context.checkpoint.counters
        return Cost(
            seconds, cpu_seconds, counters.saved, counters.stall_seconds, counters.write_seconds, context.size_bytes
        )


def _task(epochs: int, units: int) -> EvaluationTask:
    layers: list[tuple[str, Mapping[str, Any]]] = [
        ("conv2d", {"filters": 16, "kernel_size": 3, "padding": "same", "activation": "relu"}),
        ("batchnorm", {}),
        ("maxpool", {"pool_size": 2}),
        ("flatten", {}),
        ("dense", {"units": units, "activation": "relu"}),
        ("dropout", {"rate": 0.2}),
    ]
    nodes = [{"id": "input", "operation": "input"}]
    nodes += [{"id": f"n{i}", "operation": name, "params": params} for i, (name, params) in enumerate(layers)]
    ids = [str(node["id"]) for node in nodes]
    edges = [
        {"id": f"e{i}", "source_id": source, "target_id": target}
        for i, (source, target) in enumerate(itertools.pairwise(ids))
    ]
    return EvaluationTask(
        task_id="task",
        search="bench",
        architecture=json.dumps({"nodes": nodes, "edges": edges}),
        config=Config(num_epochs=epochs, dataset="mnist-5k", learning_rate=0.001, extra={"threads": "1"}),
        attempt=1,
        epoch=1,
    )
