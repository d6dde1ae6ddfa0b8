"""The contract between Tenure and the code that evaluates a task.

An evaluator is a function ``evaluate(task, context)`` named ``module:function``; it is imported in the executor, never
pickled. It returns a mapping of metric names to numbers, or a :class:`Result`. ``fitness`` is what searches maximise;
without one, and without ``val_accuracy`` to stand in for it, a success is no search's best.

What it raises decides what happens next:

* :class:`Stopped`, after ``context.should_stop`` became true: the task is handed back with its last checkpoint.
* :class:`tenure.common.errors.InvalidArchitecture` / ``InvalidConfig``, or any exception with a false ``retryable``
  attribute: the task fails at once.
* ``torch.OutOfMemoryError`` or ``MemoryError``: counted as out of memory, not as an attempt.
* anything else: burns an attempt; retried while the budget lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tenure.common.spec import Config
from tenure.worker.checkpoint.snapshot import copied
from tenure.worker.checkpoint.steps import StepCheckpointer
from tenure.worker.out_of_memory import ExpectedMemory

__all__ = [
    "CheckpointHandle",
    "Context",
    "EvaluationTask",
    "Evaluator",
    "ExpectedMemory",
    "MemoryCheckpoints",
    "MemoryContext",
    "Result",
    "StepCheckpointer",
    "Stopped",
]


class Stopped(Exception):
    """Raised by an evaluator that stops because ``context.should_stop`` is true."""


@dataclass(frozen=True)
class EvaluationTask:
    """What is to be evaluated.

    Attributes:
        task_id: Unique over all searches.
        search: The search's name.
        architecture: JSON text.
        config: Training configuration; zero or empty fields mean the evaluator's default.
        attempt: 1 for the first; rises with failures, not with losses or releases.
        epoch: The lease's epoch; rises with every run of the task.
        out_of_memory: How many runs of the task have ended for want of memory.
    """

    task_id: str
    search: str
    architecture: str
    config: Config
    attempt: int
    epoch: int
    out_of_memory: int = 0


@dataclass(frozen=True)
class Result:
    """An evaluation's result with more than numbers.

    Attributes:
        metrics: Finite numbers by name.
        detail: Any text kept with the result, JSON by convention, at most 64 KiB.
        architecture: The architecture as the evaluator changed it, JSON text; empty if unchanged.
    """

    metrics: Mapping[str, float]
    detail: str = ""
    architecture: str = ""


class CheckpointHandle(Protocol):
    """Loads and saves the state of one task's evaluation."""

    def load(self) -> Mapping[str, Any] | None:
        """The state of the newest registered checkpoint that is whole, or None on a fresh start.

        A checkpoint whose files don't match its manifest is skipped with a warning in the log, and the one registered
        before it is taken. Loaded with ``weights_only=True``: tensors, numbers, texts and containers of them only.

        Raises:
            CheckpointError: None is usable, and for at least one not its content but the storage or an unknown format
                is to blame. Let it through: the attempt fails, and the work isn't thrown away in silence.
        """

    @property
    def due(self) -> bool:
        """Whether a save is worth its cost now. Cheap: ask after each step.

        True once the time since the last save is Daly's optimum for what saves of this run have cost and how often
        this worker loses runs, and long enough that they cost at most the worker's ``--checkpoint-overhead``; never
        while an earlier save is still being written. What you save without asking is saved all the same.
        """

    @property
    def affordable(self) -> bool:
        """Whether a save now would cost at most the worker's ``--checkpoint-overhead`` since the last one.

        Sooner true than :attr:`due`: for a state that is worth more than its place in time, such as a new best.
        """

    def save(self, state: Mapping[str, Any], *, step: int, score: float | None = None, wait: bool = False) -> None:
        """Copy the state, and have it written and registered in the background.

        Args:
            state: Tensors, numbers, texts, and lists and dicts of them. It is copied before the call returns (tensors
                to the CPU), so give the live one and go on changing it.
            step: The training epoch (or step) that the state stands after.
            score: Higher is better; decides which checkpoint is kept as the best.
            wait: Return only when it is whole on storage, and its registration on its way. Without, it is so a little
                later: an evaluator that dies in between loses this save and has the one before.

        One save is being written and one may wait. A third takes the place of the one that waits; if that has the best
        score so far it is written first, and the call returns once that has begun.

        A write that fails (disk full) is logged and counted, the evaluation goes on, and the previous checkpoint stays
        the one to resume from. An evaluation that raises Stopped, or fails and may be retried, ends when its last save
        is written; one that returns a result doesn't wait: what isn't written then is never registered.

        Raises:
            InvalidInput: The state could not be read back (it holds a numpy number, an object), or a number is out of
                range. The evaluator has to change.
        """

    def wait(self) -> None:
        """Return when everything saved is whole on storage and its registration on its way, or has failed."""


class Context(Protocol):
    """What an evaluator is given beside the task."""

    device: str
    """``cpu`` or ``cuda:0``: executors see only their own GPUs."""
    devices: tuple[str, ...]
    """All of them, ``device`` first: one for each GPU of the slot (``cuda:0``, ``cuda:1``), several times ``cpu`` where
    the worker has the CPU stand for several."""
    work_dir: Path
    """A scratch directory of this run; deleted when it ends."""
    max_parameters: int
    """The worker's cap on a model's parameters; 0 = none."""

    @property
    def checkpoint(self) -> CheckpointHandle:
        """Where its state is loaded from and saved to."""

    @property
    def should_stop(self) -> bool:
        """True once the worker drains, the task is cancelled or its lease is lost: save, then raise Stopped."""

    def report(self, step: int, metrics: Mapping[str, float] | None = None, *, total_steps: int = 0) -> None:
        """Say how far the evaluation is. Cheap: call it each step or epoch; it also feeds the progress deadline.

        Never fails over a metric: what is no finite number is left out, and said once in the log.
        """

    def log(self, event: str, **fields: Any) -> None:
        """One structured log line with the task, the worker and the epoch in it."""

    def expect_memory(self, expected: ExpectedMemory) -> None:
        """Say, before it is taken, what memory the evaluation is going to take: for the attempt record, and for what
        follows should it run out."""


Evaluator = Callable[[EvaluationTask, Context], Mapping[str, float] | Result]


@dataclass
class MemoryContext:
    """A context for trying an evaluator in a plain Python process: nothing is registered, checkpoints stay in memory.

    Example:
        >>> context = MemoryContext(work_dir=Path("/tmp/try"))
        >>> metrics = evaluate(task, context)  # doctest: +SKIP
    """

    work_dir: Path
    device: str = "cpu"
    devices: tuple[str, ...] = ("cpu",)
    max_parameters: int = 0
    should_stop: bool = False
    reports: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    expected_memory: ExpectedMemory | None = None
    checkpoint: MemoryCheckpoints = field(default_factory=lambda: MemoryCheckpoints())

    def report(self, step: int, metrics: Mapping[str, float] | None = None, *, total_steps: int = 0) -> None:
        """Keep the report."""
        self.reports.append((step, dict(metrics or {})))

    def log(self, event: str, **fields: Any) -> None:
        """Keep the event."""
        self.events.append((event, fields))

    def expect_memory(self, expected: ExpectedMemory) -> None:
        """Keep it."""
        self.expected_memory = expected


@dataclass
class MemoryCheckpoints:
    """A :class:`CheckpointHandle` that keeps states in a list.

    Attributes:
        saved: (step, copy of the state) of each save.
        due: What the evaluator is told; set it to try what it does then.
        affordable: Likewise.
    """

    saved: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    due: bool = False
    affordable: bool = True

    def load(self) -> Mapping[str, Any] | None:
        """The last one saved."""
        return self.saved[-1][1] if self.saved else None

    def save(self, state: Mapping[str, Any], *, step: int, score: float | None = None, wait: bool = False) -> None:
        """Keep a copy; raises InvalidInput as on a worker."""
        self.saved.append((step, copied(state).content_as_state()))

    def wait(self) -> None:
        """Nothing is ever under way."""
