"""Evaluators for tests: no torch, and their fate is an argument.

Name one as ``evaluators:evaluate`` to a worker whose ``PYTHONPATH`` has this folder. Everything is said
by the task's ``config.extra`` (all values are text):

=================  =====================================================================================
``steps``          how many steps a run has (default 1)
``seconds``        how long all steps together take (default 0)
``fate``           what happens at ``fate_step``, see below (default ``ok``)
``fate_step``      the step after which it happens (default: the last; 0 = before the first)
``fate_epochs``    the lease epochs in which it happens, ``1`` or ``1,2``; else ``ok`` (default: every epoch)
``checkpoint``     save ``{"step": n}`` after every n-th step, go on from the last saved (default 0 = never)
``gate``           path of a file: the run waits there until it exists (``{task_id}`` is replaced)
``gate_step``      the step after which it waits (default 0 = before the first)
``report``         ``0``: report no progress
``ignore_stop``    ``1``: never look at ``should_stop``
``fitness``        what an ``ok`` run returns (default: 0.5)
``training``       seed of a :class:`pure_training.PureTraining` that each step is a step of: it is part of checkpoints,
                   and its fitness is what an ``ok`` run returns
=================  =====================================================================================

Fates: ``ok``; ``error`` (raises RuntimeError); ``fatal`` (raises an error that must not be retried);
``invalid_architecture``; ``memory`` (MemoryError); ``exhaust`` (asks for more memory than it lets itself have);
``exit`` (``os._exit(7)``); ``sys_exit``; ``kill`` (SIGKILL to itself); ``segfault`` (a real one); ``hang`` (sleeps for
ever, deaf to ``should_stop``); ``gil`` (holds the GIL for ``seconds``, in one call; the steps then take no time);
``nan`` (returns a NaN fitness); ``nan_loss`` (a finite fitness beside a NaN ``val_loss``); ``text`` (returns a text as
metric); ``nothing`` (returns None); ``flood`` (prints 4 MiB, then is ``ok``); ``orphan`` (starts a grandchild that
would outlive it, journals its pid as ``orphan``, then hangs); ``unprintable`` (raises an error whose text can't be
made); ``garbage`` (writes nonsense into the pipe to its supervisor, then hangs); ``surrogates`` (returns texts that are
no UTF-8).

With ``TENURE_TEST_JOURNAL`` set, each run appends one JSON line per event to that file (O_APPEND, one
write each, so that many processes can share it): ``task_id``, ``search``, ``epoch``, ``attempt``,
``pid``, ``event`` (``start``, ``step``, ``gate``, ``fate`` other than ``ok``, ``stopped``, ``end``, ``orphan``),
``step``,
``resumed_from`` (the step of the checkpoint, -1 on a fresh start), ``time`` (monotonic seconds of this
machine). :func:`read_journal` reads it back.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pure_training import PureTraining

from tenure.common.errors import InvalidArchitecture
from tenure.worker.evaluator import Context, EvaluationTask, Result, Stopped

JOURNAL_ENV = "TENURE_TEST_JOURNAL"
_POLL_SECONDS = 0.005
_MEMORY_LEFT_BYTES = 64 << 20

not_callable = 3
"""For tests of a reference that names no function."""


class FatalError(Exception):
    """An error that says of itself that retrying can't help."""

    retryable = False


class UnprintableError(Exception):
    """An error whose text can't be made."""

    def __str__(self) -> str:
        raise ValueError("no text for you")


def noop(task: EvaluationTask, context: Context) -> Mapping[str, float]:
    """Returns at once; for measuring everything around it."""
    return {"fitness": 1.0}


def evaluate(task: EvaluationTask, context: Context) -> Mapping[str, float] | Result | None:
    """Runs the steps that ``config.extra`` asks for and meets the fate it names."""
    return _Run(task, context).run()


def read_journal(path: Path, *, event: str | None = None, task_id: str | None = None) -> list[dict[str, Any]]:
    """The journal's lines in order, all or those of one event or task; an absent file has none."""
    if not path.exists():
        return []
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        entry
        for entry in entries
        if (event is None or entry["event"] == event) and (task_id is None or entry["task_id"] == task_id)
    ]


class _Run:
    def __init__(self, task: EvaluationTask, context: Context) -> None:
        self.task = task
        self.context = context
        extra = task.config.extra
        self.steps = int(extra.get("steps", "1"))
        self.seconds = float(extra.get("seconds", "0"))
        self.fate = extra.get("fate", "ok")
        self.fate_step = int(extra.get("fate_step", str(self.steps)))
        epochs = extra.get("fate_epochs", "")
        if epochs and task.epoch not in {int(epoch) for epoch in epochs.split(",")}:
            self.fate = "ok"
        self.hold_seconds = self.seconds
        if self.fate == "gil":
            self.seconds = 0.0
        self.checkpoint_every = int(extra.get("checkpoint", "0"))
        self.gate = extra.get("gate", "").replace("{task_id}", task.task_id)
        self.gate_step = int(extra.get("gate_step", "0"))
        self.reports = extra.get("report", "1") == "1"
        self.stoppable = extra.get("ignore_stop", "0") != "1"
        self.fitness = float(extra.get("fitness", "0.5"))
        self.training = PureTraining(extra["training"]) if "training" in extra else None
        self.resumed_from = -1

    def run(self) -> Mapping[str, float] | Result | None:
        if self.checkpoint_every and (state := self.context.checkpoint.load()) is not None:
            self.resumed_from = int(state["step"])
            if self.training is not None:
                self.training.restore(state["training"])
        first = max(self.resumed_from, 0)
        self.journal("start", first)
        result = self.after(first)
        for step in range(first + 1, self.steps + 1):
            self.wait(self.seconds / self.steps, step - 1)
            if self.training is not None:
                self.training.step()
            self.journal("step", step)
            if self.checkpoint_every and step % self.checkpoint_every == 0:
                self.context.checkpoint.save(self.state(step), step=step, score=step / self.steps, wait=True)
            if self.reports:
                self.context.report(step, {"samples_per_second": 100.0}, total_steps=self.steps)
            result = self.after(step)
        self.journal("end", self.steps)
        return result

    def after(self, step: int) -> Mapping[str, float] | Result | None:
        """What happens once ``step`` is done; returns what the run would return if it were the last."""
        if self.gate and step == self.gate_step:
            self.journal("gate", step)
            while not os.path.exists(self.gate):
                self.wait(_POLL_SECONDS, step)
        fitness = self.fitness if self.training is None else self.training.fitness
        result: Mapping[str, float] | Result | None = {"fitness": fitness, "steps": float(self.steps)}
        if step == self.fate_step:
            result = self.meet_fate(step, result)
        return result

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"step": step} if self.training is None else {"step": step, "training": self.training.state()}

    def wait(self, seconds: float, step: int) -> None:
        deadline = time.monotonic() + seconds
        while True:
            if self.stoppable and self.context.should_stop:
                self.journal("stopped", step)
                raise Stopped
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _POLL_SECONDS))

    def meet_fate(self, step: int, result: Mapping[str, float] | Result | None) -> Mapping[str, float] | Result | None:
        if self.fate != "ok":
            self.journal("fate", step, fate=self.fate)
        match self.fate:
            case "ok":
                return result
            case "error":
                raise RuntimeError(f"the evaluation failed at step {step}, as asked")
            case "fatal":
                raise FatalError("never retry this, as asked")
            case "invalid_architecture":
                raise InvalidArchitecture("is wrong, as asked", field="nodes[0]", given="?")
            case "memory":
                raise MemoryError("out of memory, as asked")
            case "exhaust":
                exhaust_memory()
            case "exit":
                sys.stdout.write("about to leave by os._exit\n")
                sys.stdout.flush()
                os._exit(7)
            case "sys_exit":
                sys.exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                sys.stdout.write("about to read address zero\n")
                sys.stdout.flush()
                ctypes.string_at(0)
            case "hang":
                _sleep_for_ever()
            case "gil":
                self.hold_gil()
            case "nan":
                return {"fitness": float("nan")}
            case "nan_loss":
                return {"fitness": self.fitness, "val_loss": float("nan")}
            case "text":
                return {"fitness": "high"}  # type: ignore[dict-item]
            case "nothing":
                return None
            case "flood":
                for _ in range(4096):
                    sys.stdout.write("x" * 1023 + "\n")
                sys.stdout.write("the last line\n")
                sys.stdout.flush()
            case "orphan":
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
                self.journal("orphan", step, orphan=child.pid)
                _sleep_for_ever()
            case "unprintable":
                raise UnprintableError
            case "garbage":
                pipe = next(word for word in sys.argv if word.startswith("--pipe="))
                os.write(int(pipe.removeprefix("--pipe=")), b'\0\0\0\x0f{"type": "what"\xff\xff')
                _sleep_for_ever()
            case "surrogates":
                return Result({"fitness": self.fitness}, detail="\ud800")
            case _:
                raise ValueError(f"unknown fate {self.fate!r}")
        return result

    def hold_gil(self) -> None:
        """``PyDLL`` calls C without letting the GIL go."""
        ctypes.PyDLL(None).usleep(int(self.hold_seconds * 1e6))

    def journal(self, event: str, step: int, **fields: Any) -> None:
        path = os.environ.get(JOURNAL_ENV)
        if not path:
            return
        line = json.dumps(
            {
                "task_id": self.task.task_id,
                "search": self.task.search,
                "epoch": self.task.epoch,
                "attempt": self.task.attempt,
                "pid": os.getpid(),
                "event": event,
                "step": step,
                "resumed_from": self.resumed_from,
                "time": time.monotonic(),
                **fields,
            }
        )
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)


def exhaust_memory() -> None:
    """A real MemoryError, of an address space that is limited to a little more than is in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY_LEFT_BYTES, hard))
    try:
        bytearray(2 * _MEMORY_LEFT_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _sleep_for_ever() -> None:
    while True:
        time.sleep(3600)
