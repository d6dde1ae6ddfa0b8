"""The default evaluator: builds the network that a task describes, trains it on a named data set, and measures it.

A training that is resumed, on this worker or another, goes on to the same bits as if it had never been
interrupted; docs/training.md says what a checkpoint holds and where that promise ends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from tenure.common.errors import CheckpointError
from tenure.common.spec import check_config, content_key
from tenure.worker.evaluator import Context, EvaluationTask, Stopped
from tenure.worker.torch_eval.builder import build_module, count_parameters
from tenure.worker.torch_eval.numerics import (
    check_device,
    choose_threads,
    environment,
    reproducible,
    seed_everything,
)
from tenure.worker.torch_eval.options import Settings, resolve
from tenure.worker.torch_eval.split import Split, load_split
from tenure.worker.torch_eval.training import Training

STATE_FORMAT = 1
# Within long epochs: often enough for a progress deadline, too seldom to cost anything.
_REPORT_EVERY_SECONDS = 5.0


def evaluate(task: EvaluationTask, context: Context) -> Mapping[str, float]:
    """Train and measure ``task``; resumes from the newest checkpoint, saves one after each epoch and when stopped.

    Returns:
        Finite numbers: ``fitness`` (= ``val_accuracy``), ``val_accuracy``, ``val_loss``, ``train_accuracy``,
        ``train_loss`` (running, with dropout and augmentation) of the last epoch; ``best_val_accuracy``,
        ``best_epoch``; ``params``, ``epochs``, ``train_rows``, ``val_rows``; ``samples_per_second`` of this run's
        training; ``resumed_from`` (epochs that were done before this run); ``peak_memory_bytes`` on CUDA.

    Raises:
        Stopped: ``context.should_stop`` became true; where the training stands is saved.
        InvalidArchitecture: The architecture can't be built or trained. Never retried.
        InvalidConfig: A field, a key of ``extra`` or the data set is wrong. Never retried.
        DivergedTraining: The loss is no longer finite. Never retried.
        CheckpointError: The checkpoint is of another task, data set or version; or storage can't be read. Nothing is
            started afresh in silence: another attempt may run on a worker that can go on.
    """
    check_config(task.config)
    asked = resolve(task.config)
    device = check_device(context.device)
    saved = context.checkpoint.load()
    settings = asked if saved is None else _settings_of(saved, task)
    split = load_split(settings.dataset, settings.dataset_extra, settings.val_fraction)
    recorded = 0 if saved is None else int(saved["environment"]["threads"])
    threads = choose_threads(settings.threads, recorded)
    with reproducible(device, threads):
        run = _Run(task, context, settings, split, device, threads)
        if saved is not None:
            run.resume(saved)
        return run.carry_out()


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
        self._environment = environment(device, threads)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seed_everything(settings.seed)
        module = build_module(
            task.architecture, split.input_shape, split.num_classes, max_parameters=context.max_parameters
        )
        self._params = count_parameters(module)
        self._training = Training(settings, split, module, device)
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

    def carry_out(self) -> Mapping[str, float]:
        """Train to the end."""
        training = self._training
        while not training.finished:
            self._train_epoch()
            loss_sum, correct = self._validate()
            training.finish_epoch(loss_sum, correct)
            self._report(training.metrics)
            every = self._settings.checkpoint_every_epochs
            if every and (training.epochs_done % every == 0 or training.finished):
                self._save(score=training.metrics["val_accuracy"])
        return self._result()

    def _train_epoch(self) -> None:
        started = time.monotonic()
        self._stop_if_asked()
        for rows in self._training.train_batches():
            self._trained_rows += rows
            now = time.monotonic()
            self._trained_seconds += now - started
            self._stop_if_asked()
            if now - self._reported_time >= _REPORT_EVERY_SECONDS:
                self._report(self._training.running_metrics)
            if 0 < self._settings.checkpoint_every_seconds <= now - self._saved_time:
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
                self._save()
            raise Stopped

    def _save(self, score: float | None = None) -> None:
        """Of the epoch in progress there is no score: nothing was measured after its batches."""
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
        self._context.checkpoint.save(state, step=self._training.epochs_done, score=score)
        self._saved_at = self._position()
        self._saved_time = time.monotonic()

    def _position(self) -> tuple[int, int]:
        return self._training.epochs_done, self._training.batches_done

    def _report(self, metrics: Mapping[str, float]) -> None:
        self._context.report(
            self._training.epochs_done,
            {**metrics, "samples_per_second": self._samples_per_second()},
            total_steps=self._settings.num_epochs,
        )
        self._reported_time = time.monotonic()

    def _samples_per_second(self) -> float:
        return self._trained_rows / self._trained_seconds if self._trained_seconds > 0 else 0.0

    def _result(self) -> dict[str, float]:
        training = self._training
        result = {
            "fitness": training.metrics["val_accuracy"],
            **training.metrics,
            "best_val_accuracy": training.best_accuracy,
            "best_epoch": float(training.best_epoch),
            "params": float(self._params),
            "epochs": float(training.epochs_done),
            "train_rows": float(len(self._split.train_targets)),
            "val_rows": float(len(self._split.val_targets)),
            "samples_per_second": self._samples_per_second(),
            "resumed_from": float(self._resumed_from),
        }
        if self._device.type == "cuda":
            result["peak_memory_bytes"] = float(torch.cuda.max_memory_allocated(self._device))
        return result
