"""Trainings for tests: small networks, a context on real storage, and a process that dies at a chosen point.

Run as a program (``python trainings.py DIRECTORY JSON``) it goes on with the training in DIRECTORY; JSON may name
``kill_at_look``: at so many looks at ``should_stop`` it kills itself; and ``ranks``: for how many devices the CPU
stands.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenure.common.spec import Config
from tenure.worker.checkpoint import ExecutorCheckpoints, RegisteredCheckpoint, WrittenCheckpoint, read_checkpoint
from tenure.worker.evaluator import EvaluationTask, ExpectedMemory

Layer = tuple[str, dict[str, Any]]


def chain(*layers: Layer) -> str:
    """A graph of one layer after the other."""
    nodes = [{"id": "input", "operation": "input"}]
    nodes += [{"id": f"n{i}", "operation": name, "params": params} for i, (name, params) in enumerate(layers)]
    ids = [node["id"] for node in nodes]
    edges = [
        {"id": f"e{i}", "source_id": source, "target_id": target}
        for i, (source, target) in enumerate(itertools.pairwise(ids))
    ]
    return json.dumps({"nodes": nodes, "edges": edges})


def conv(filters: int) -> Layer:
    """A 3 × 3 convolution that keeps the size, with ReLU."""
    return "conv2d", {"filters": filters, "kernel_size": 3, "padding": "same", "activation": "relu"}


# Everything that has a state of its own or draws at random: batch normalisation's buffers, dropout.
STATEFUL = chain(
    conv(4),
    ("batchnorm", {}),
    ("maxpool", {"pool_size": 2}),
    ("dropout", {"rate": 0.3}),
    ("dense", {"units": 16, "activation": "relu"}),
    ("dropout", {"rate": 0.2}),
)
CNN = chain(conv(16), ("batchnorm", {}), conv(32), ("maxpool", {"pool_size": 2}), ("dropout", {"rate": 0.2}))


def blobs() -> Any:
    """A data set in no time: 1800 images of 8 × 8 cells in 10 classes, hard enough to get some wrong."""
    import torch

    generator = torch.Generator().manual_seed(5)
    targets = torch.arange(1800) % 10
    centres = torch.rand(10, 1, 8, 8, generator=generator)
    return centres[targets] + torch.randn(1800, 1, 8, 8, generator=generator), targets


def task_of(architecture: str = STATEFUL, extra: Mapping[str, str] | None = None, **config: Any) -> EvaluationTask:
    """A task on one thread that saves after each epoch; its other settings are the defaults."""
    return EvaluationTask(
        task_id="0-task",
        search="search",
        architecture=architecture,
        config=Config(**config, extra={"threads": "1", "checkpoint_every_epochs": "1"} | dict(extra or {})),
        attempt=1,
        epoch=1,
    )


class PromptCheckpoints(ExecutorCheckpoints):
    """Every save is on storage when it returns: a test that counts looks and saves must not depend on a thread.

    Nor on the clock: a new best can always be afforded.
    """

    affordable = True

    def save(self, state: Mapping[str, Any], *, step: int, score: float | None = None, wait: bool = False) -> None:
        super().save(state, step=step, score=score, wait=True)


@dataclass
class StorageContext:
    """A context whose checkpoints lie in a directory, with a list of those announced: what a master would keep.

    Attributes:
        directory: Of one task; a later context on it goes on from the newest checkpoint.
        stop_at_look: ``should_stop`` is true from so many looks on; 0 = never.
        kill_at_look: The process kills itself then.
        looks: How often ``should_stop`` was looked at.
    """

    directory: Path
    stop_at_look: int = 0
    kill_at_look: int = 0
    device: str = "cpu"
    devices: tuple[str, ...] = ("cpu",)
    max_parameters: int = 0
    looks: int = 0
    reports: list[tuple[int, dict[str, float], int]] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    expected_memory: ExpectedMemory | None = None

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.work_dir = self.directory
        self.announced = read_announced(self.directory)
        self.checkpoint = PromptCheckpoints(
            base_url=str(self.directory / "checkpoints"),
            search="search",
            task_id="0-task",
            epoch=1,
            registered=[RegisteredCheckpoint(one.url, one.digest, one.step) for one in reversed(self.announced)],
            announce=self._announce,
            log=self.log,
        )

    @property
    def should_stop(self) -> bool:
        self.looks += 1
        if self.looks == self.kill_at_look:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0 < self.stop_at_look <= self.looks

    def report(self, step: int, metrics: Mapping[str, float] | None = None, *, total_steps: int = 0) -> None:
        self.reports.append((step, dict(metrics or {}), total_steps))

    def expect_memory(self, expected: ExpectedMemory) -> None:
        """Keep it."""
        self.expected_memory = expected

    def log(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    def _announce(self, written: WrittenCheckpoint) -> None:
        self.announced.append(written)
        with (self.directory / "announced.jsonl").open("a") as file:
            file.write(json.dumps(vars(written)) + "\n")


def read_announced(directory: Path) -> list[WrittenCheckpoint]:
    """Every checkpoint that was announced, oldest first."""
    path = directory / "announced.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [WrittenCheckpoint(**json.loads(line)) for line in lines]


def newest_state(directory: Path) -> dict[str, Any]:
    """The state of the newest checkpoint."""
    newest = read_announced(directory)[-1]
    return read_checkpoint(newest.url, newest.digest)


def run_process(directory: Path, task: EvaluationTask, **options: int) -> int:
    """Go on with the training in a Python process of its own; returns its exit status."""
    given = {"architecture": task.architecture, "config": vars(task.config), **options}
    given["config"] = {**given["config"], "extra": dict(task.config.extra)}
    return subprocess.run(
        [sys.executable, __file__, str(directory), json.dumps(given)], check=False, timeout=150
    ).returncode


def main(arguments: Sequence[str]) -> None:
    """See the module's docstring."""
    from tenure.worker.torch_eval import evaluate

    directory, given = Path(arguments[0]), json.loads(arguments[1])
    extra = given["config"].pop("extra")
    task = task_of(given["architecture"], extra, **given["config"])
    devices = ("cpu",) * given.get("ranks", 1)
    result = evaluate(task, StorageContext(directory, kill_at_look=given.get("kill_at_look", 0), devices=devices))
    (directory / "metrics.json").write_text(json.dumps(dict(result.metrics)))


if __name__ == "__main__":
    main(sys.argv[1:])
