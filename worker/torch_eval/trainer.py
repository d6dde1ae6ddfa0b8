"""The default evaluator: builds the network that a task describes, trains it on a named data set, and measures it.

A training that is resumed, on this worker or another, goes on to the same bits as if it had never been
interrupted; docs/training.md says what a checkpoint holds and where that promise ends.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any

import torch

from tenure.common.errors import CheckpointError
from tenure.common.estimate import estimate
from tenure.common.spec import check_config, content_key
from tenure.worker.evaluator import Context, EvaluationTask, Result, Stopped
from tenure.worker.torch_eval.builder import build_module, count_parameters
from tenure.worker.torch_eval.fitting import choose_micro_batches
from tenure.worker.torch_eval.memory import PeakMemory
from tenure.worker.torch_eval.numerics import (
    check_device,
    choose_threads,
    environment,
    reproducible,
    seed_everything,
)
from tenure.worker.torch_eval.options import Settings, resolve
from tenure.worker.torch_eval.parallel import lead
from tenure.worker.torch_eval.precision import compilation
from tenure.worker.torch_eval.split import Split, load_split
from tenure.worker.torch_eval.training import Training
from tenure.worker.torch_eval.weights import weights_sha256

STATE_FORMAT = 2
# Within long epochs: often enough for a progress deadline, too seldom to cost anything.
_REPORT_EVERY_SECONDS = 5.0


def evaluate(task: EvaluationTask, context: Context) -> Result:
    """Train and measure ``task``; resumes from the newest checkpoint, saves as it is worth it and when stopped.

    Returns:
        Finite numbers: ``fitness`` (= ``val_accuracy``), ``val_accuracy``, ``val_loss``, ``train_accuracy``,
        ``train_loss`` (running, with dropout and augmentation) of the last epoch; ``best_val_accuracy``,
        ``best_epoch``; ``stopped_early`` (0 or 1); ``params``, ``flops`` (of one row's forward pass), ``epochs``,
        ``train_rows``, ``val_rows``;
        ``samples_per_second`` of this run's training; ``resumed_from`` (epochs that were done before this run);
        ``peak_memory_bytes``. The detail is JSON: ``{"weights_sha256": …}`` of the trained network.

    Raises:
        Stopped: ``context.should_stop`` became true; where the training stands is saved.
        InvalidArchitecture: The architecture can't be built or trained. Never retried.
        InvalidConfig: A field, a key of ``extra`` or the data set is wrong. Never retried.
        InvalidSetting: This worker can't do what is asked (a precision, a compilation); another may.
        DivergedTraining: The loss is no longer finite. Never retried.
        DoesNotFit: There is less memory than the training would take. Counted as out of memory.
        CheckpointError: The checkpoint is of another task, data set or version; or storage can't be read. Nothing is
            started afresh in silence: another attempt may run on a worker that can go on.
    """
    return train(task, context)


def train(task: EvaluationTask, context: Context, *, micro_batches: int = 0) -> Result:
    """:func:`evaluate`, with a say in how much memory it takes.

    Args:
        task: What is to be evaluated.
        context: What the evaluator is given beside it.
        micro_batches: In how many parts each batch goes through the network. 0 = as the memory that is free and the
            task's ends out of memory ask for (``fitting``); where memory suffices, as ``config.extra.micro_batches``
            says. A resumed training that changes it goes on right, but not to the same last bits; the log says so.
    """
    check_config(task.config)
    asked = resolve(task.config)
    device = check_device(context.device)
    saved = context.checkpoint.load()
    settings = asked if saved is None else _settings_of(saved, task)
    split = load_split(settings.dataset, settings.dataset_extra, settings.val_fraction, settings.split_seed)
    recorded = 0 if saved is None else int(saved["environment"]["threads"])
    threads = choose_threads(settings.threads, recorded)
    parts = micro_batches or choose_micro_batches(task, context, settings, split, device, saved)
    compiling = compilation() if settings.compile == "on" else contextlib.nullcontext()
    with reproducible(device, threads, settings.deterministic == "on"), compiling:
        run = _Run(task, context, settings, split, device, threads)
        try:
            if saved is not None:
                run.resume(saved)
            run.divide_batches(parts)
            return run.carry_out()
        finally:
            run.close()


def _settings_of(saved: Mapping[str, Any], task: EvaluationTask) -> Settings:
    """The settings that the training began with; CheckpointError if the state isn't this task's."""
    if saved.get("format") != STATE_FORMAT:
        raise CheckpointError(
            "the state has an unknown format",
            field="state.format",
            given=repr(saved.get("format")),
            expected=f"this version of Tenure reads {STATE_FORMAT}, and none of other evaluators",
        )
    if saved["content"] != content_key(task.architecture, task.config):
        raise CheckpointError(
            "the state is of another architecture or configuration", field="state.content", given=saved["content"]
        )
    return Settings.from_state(saved["settings"])


class _Run:
    """One run of a task: a training, and what the context has to hear of it."""

    def __init__(
        self,
        task: EvaluationTask,
        context: Context,
        settings: Settings,
        split: Split,
        device: torch.device,
        threads: int,
    ) -> None:
        self._task = task
        self._context = context
        self._settings = settings
        self._split = split
        self._device = device
        # Each has at least two rows of a batch.
        devices = context.devices[: max(1, settings.batch_size // 2)]
        self._environment = environment(device, threads) | {"ranks": len(devices)}
        self._peak_memory = PeakMemory(device)
        seed_everything(settings.seed)
        module = build_module(
            task.architecture, split.input_shape, split.num_classes, max_parameters=context.max_parameters
        )
        self._params = count_parameters(module)
        self._flops = estimate(task.architecture, split.input_shape, split.num_classes).flops
        if len(devices) == 1:
            self._training = Training(settings, split, module, device)
        else:
            self._training = lead(
                task.architecture,
                settings,
                split,
                module,
                devices,
                threads=threads,
                max_parameters=context.max_parameters,
                work_dir=context.work_dir,
            )
            context.log("training.parallel", ranks=len(devices))
        self._resumed_from = 0
        self._saved_at = (0, 0)
        self._saved_time = self._reported_time = time.monotonic()
        self._trained_rows = 0
        self._trained_seconds = 0.0

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``saved`` was taken; says in the log what may change the last bits."""
        if saved["data"] != self._split.digest:
            raise CheckpointError(
                "the data set is not the one that this training began with",
                field="config.dataset",
                given=self._settings.dataset,
                expected="give every worker the same data and the same version of its library",
            )
        self._training.restore(saved)
        self._resumed_from = self._training.epochs_done
        self._saved_at = self._position()
        before = saved["environment"]
        changed = {
            name: f"{before.get(name)} → {now}"
            for name, now in self._environment.items()
            if before.get(name) != now and name != "tenure"
        }
        if changed:
            self._context.log("training.environment_changed", **changed)
        self._context.log("training.resumed", epochs=self._resumed_from, batches=self._training.batches_done)

    def divide_batches(self, parts: int) -> None:
        """Each into ``parts`` from here on; 0 = as it is."""
        before = self._training.micro_batches
        if parts and parts != before:
            self._context.log("training.micro_batches_changed", before=before, now=parts)
            self._training.micro_batches = parts

    def close(self) -> None:
        """End what the training started."""
        self._training.close()

    def carry_out(self) -> Result:
        """Train to the end."""
        training = self._training
        while not training.finished:
            self._train_epoch()
            loss_sum, correct = self._validate()
            training.finish_epoch(loss_sum, correct)
            self._report(training.metrics)
            if self._epoch_is_worth_saving():
                self._save()
        return self._result()

    def _train_epoch(self) -> None:
        started = time.monotonic()
        self._stop_if_asked()
        for rows in self._training.train_batches():
            self._trained_rows += rows
            now = time.monotonic()
            self._trained_seconds += now - started
            self._stop_if_asked()
            if self._report_is_due(now):
                batches = float(self._training.batches_done)
                self._report(self._training.running_metrics | {"batches": batches})
            if self._save_is_due(now):
                self._save()
            started = time.monotonic()

    def _validate(self) -> tuple[float, int]:
        loss_sum, correct = 0.0, 0
        for batch_loss, batch_correct, _ in self._training.validate_batches():
            self._stop_if_asked()
            loss_sum += batch_loss
            correct += batch_correct
        return loss_sum, correct

    def _stop_if_asked(self) -> None:
        if self._context.should_stop:
            if self._position() != self._saved_at:
                self._save(wait=True)
            raise Stopped

    def _save_is_due(self, now: float) -> bool:
        forced = 0 < self._settings.checkpoint_every_seconds <= now - self._saved_time
        return forced or self._context.checkpoint.due

    def _epoch_is_worth_saving(self) -> bool:
        """A new best is to be kept if it can be afforded; the rest is for resuming, as far as it is worth its cost."""
        training, every = self._training, self._settings.checkpoint_every_epochs
        checkpoint = self._context.checkpoint
        forced = every > 0 and (training.epochs_done % every == 0 or training.finished)
        is_best = training.best_epoch == training.epochs_done
        return forced or checkpoint.due or (is_best and checkpoint.affordable)

    def _save(self, *, wait: bool = False) -> None:
        """Of an epoch in progress there is no score: nothing was measured after its batches."""
        # A state whose loss isn't finite must not become the one to resume from.
        _ = self._training.running_metrics
        state = {
            "format": STATE_FORMAT,
            "content": content_key(self._task.architecture, self._task.config),
            "data": self._split.digest,
            "settings": self._settings.to_state(),
            "environment": self._environment,
            **self._training.to_state(),
        }
        score = self._training.metrics["val_accuracy"] if self._training.at_epochs_end else None
        self._context.checkpoint.save(state, step=self._training.epochs_done, score=score, wait=wait)
        self._saved_at = self._position()
        self._saved_time = time.monotonic()

    def _position(self) -> tuple[int, int]:
        return self._training.epochs_done, self._training.batches_done

    def _report_is_due(self, now: float) -> bool:
        every = self._settings.report_every_steps
        if every:
            return self._training.batches_done % every == 0
        return now - self._reported_time >= _REPORT_EVERY_SECONDS

    def _report(self, metrics: Mapping[str, float]) -> None:
        self._context.report(
            self._training.epochs_done,
            {**metrics, "samples_per_second": self._samples_per_second()},
            total_steps=self._settings.num_epochs,
        )
        self._reported_time = time.monotonic()

    def _samples_per_second(self) -> float:
        return self._trained_rows / self._trained_seconds if self._trained_seconds > 0 else 0.0

    def _result(self) -> Result:
        training = self._training
        metrics = {
            "fitness": training.metrics["val_accuracy"],
            **training.metrics,
            "best_val_accuracy": training.best_accuracy,
            "best_epoch": float(training.best_epoch),
            "stopped_early": float(training.stopped_early),
            "params": float(self._params),
            "flops": float(self._flops),
            "epochs": float(training.epochs_done),
            "train_rows": float(len(self._split.train.targets)),
            "val_rows": float(len(self._split.val.targets)),
            "samples_per_second": self._samples_per_second(),
            "resumed_from": float(self._resumed_from),
            "peak_memory_bytes": float(self._peak_memory.bytes),
        }
        return Result(metrics, detail=json.dumps({"weights_sha256": weights_sha256(training.module)}))
