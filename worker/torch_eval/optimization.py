"""How a network learns: the optimizer, and its learning rate over time."""

from __future__ import annotations

import math

import torch
from torch import nn

from tenure.worker.torch_eval.options import Settings


def make_optimizer(parameters: list[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """The optimizer that ``settings`` name, over ``parameters``."""
    rate, decay, betas = settings.learning_rate, settings.weight_decay, (settings.beta1, settings.beta2)
    match settings.optimizer:
        case "sgd":
            nesterov = settings.nesterov == "on"
            return torch.optim.SGD(
                parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, nesterov=nesterov
            )
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, betas=betas, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, betas=betas, weight_decay=decay)
    raise AssertionError(f"no optimizer {settings.optimizer}")


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """For the steps that follow."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def learning_rate(settings: Settings, epoch: int, batch: int, batch_count: int) -> float:
    """Of one batch. It follows from where the batch stands alone: there is no schedule's state to save or to lose.

    Args:
        settings: ``learning_rate``, ``schedule`` with ``step_size`` and ``gamma``, ``warmup_epochs``.
        epoch: From 0.
        batch: Of this epoch, from 0.
        batch_count: Batches in each epoch.
    """
    if epoch < settings.warmup_epochs:
        done = epoch * batch_count + batch + 1
        return settings.learning_rate * done / (settings.warmup_epochs * batch_count)
    epoch -= settings.warmup_epochs
    epochs = settings.num_epochs - settings.warmup_epochs
    match settings.schedule:
        case "none":
            return settings.learning_rate
        case "cosine":
            return settings.learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
        case "step":
            size = settings.step_size or max(1, epochs // 3)
            return settings.learning_rate * settings.gamma ** (epoch // size)
    raise AssertionError(f"no schedule {settings.schedule}")
