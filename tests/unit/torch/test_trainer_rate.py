"""The learning rate of each batch, beside what torch's own schedules make of it."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tenure.common.errors import InvalidConfig  # noqa: E402
from tenure.common.spec import Config  # noqa: E402
from tenure.worker.torch_eval.optimization import learning_rate, make_optimizer  # noqa: E402
from tenure.worker.torch_eval.options import Settings, resolve  # noqa: E402

pytestmark = pytest.mark.torch

BATCHES = 5


def settings(epochs: int = 12, **extra: str) -> Settings:
    return resolve(Config(num_epochs=epochs, learning_rate=0.4, extra=extra))


def rates(given: Settings) -> list[float]:
    return [
        learning_rate(given, epoch, batch, BATCHES) for epoch in range(given.num_epochs) for batch in range(BATCHES)
    ]


def torchs(make: Any, epochs: int) -> list[float]:
    """Of a schedule that steps once an epoch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    schedule = make(optimizer)
    seen = []
    for _ in range(epochs):
        seen += [optimizer.param_groups[0]["lr"]] * BATCHES
        optimizer.step()
        schedule.step()
    return seen


def test_cosine_and_step_are_torchs() -> None:
    schedules = torch.optim.lr_scheduler
    cosine = torchs(lambda optimizer: schedules.CosineAnnealingLR(optimizer, T_max=12), 12)
    assert rates(settings(schedule="cosine")) == pytest.approx(cosine)
    step = torchs(lambda optimizer: schedules.StepLR(optimizer, step_size=5, gamma=0.3), 12)
    assert rates(settings(schedule="step", step_size="5", gamma="0.3")) == pytest.approx(step)
    third = torchs(lambda optimizer: schedules.StepLR(optimizer, step_size=4, gamma=0.1), 12)
    assert rates(settings(schedule="step")) == pytest.approx(third)
    assert set(rates(settings())) == {0.4}


@pytest.mark.parametrize("schedule", ["none", "cosine", "step"])
def test_warm_up_rises_in_a_line_and_the_schedule_has_the_rest(schedule: str) -> None:
    warm = rates(settings(12, schedule=schedule, warmup_epochs="3"))
    assert warm[: 3 * BATCHES] == pytest.approx([0.4 * (n + 1) / 15 for n in range(15)])
    assert warm[3 * BATCHES :] == rates(settings(9, schedule=schedule))


def test_optimizers_are_told_what_was_asked() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    sgd = make_optimizer(parameters, settings(optimizer="sgd", nesterov="on", momentum="0.7", weight_decay="0.1"))
    assert (sgd.defaults["nesterov"], sgd.defaults["momentum"], sgd.defaults["weight_decay"]) == (True, 0.7, 0.1)
    for name in ("adam", "adamw"):
        adam = make_optimizer(parameters, settings(optimizer=name, beta1="0.8", beta2="0.95", weight_decay="0.1"))
        assert type(adam).__name__.lower() == name
        assert (adam.defaults["betas"], adam.defaults["weight_decay"]) == ((0.8, 0.95), 0.1)


@pytest.mark.parametrize(
    ("extra", "field", "told"),
    [
        ({"warmup_epochs": "12"}, "warmup_epochs", "less than num_epochs, 12"),
        ({"nesterov": "on"}, "nesterov", "with optimizer=sgd"),
        ({"nesterov": "on", "optimizer": "sgd", "momentum": "0"}, "nesterov", "a momentum above 0"),
    ],
)
def test_what_does_not_go_together_is_refused(extra: dict[str, str], field: str, told: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        settings(**extra)
    assert caught.value.field == f"config.extra.{field}"
    assert told in (caught.value.expected or "")
