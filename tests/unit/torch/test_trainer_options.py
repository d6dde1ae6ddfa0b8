"""The keys of ``config.extra``: parsing, and the documentation's table."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from tenure.common.errors import CheckpointError, InvalidConfig
from tenure.common.spec import Config
from tenure.worker.torch_eval.options import (
    BATCH_SIZE_DEFAULT,
    DATASET_DEFAULT,
    LEARNING_RATE_DEFAULT,
    NUM_EPOCHS_DEFAULT,
    OPTIONS,
    Settings,
    resolve,
)

pytestmark = pytest.mark.torch

DOCUMENT = Path(__file__).parents[3] / "docs" / "training.md"


def test_absent_fields_mean_the_defaults() -> None:
    settings = resolve(Config())
    assert (settings.num_epochs, settings.batch_size, settings.learning_rate, settings.dataset) == (
        *(NUM_EPOCHS_DEFAULT, BATCH_SIZE_DEFAULT, LEARNING_RATE_DEFAULT, DATASET_DEFAULT),
    )
    for option in OPTIONS:
        assert getattr(settings, option.name) == option.default
        assert option.choices or option.least <= float(option.default) <= option.most


def test_what_is_given_counts() -> None:
    config = Config(5, 32, 0.5, "mnist-5k", {"seed": "7", "momentum": "0.5", "schedule": "step", "dataset.path": "/x"})
    settings = resolve(config)
    assert (settings.num_epochs, settings.batch_size, settings.learning_rate) == (5, 32, 0.5)
    assert (settings.seed, settings.momentum, settings.schedule) == (7, 0.5, "step")
    assert settings.dataset_extra == {"path": "/x"}
    assert type(settings.seed) is int
    assert type(settings.momentum) is float


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_refuses_what_it_does_not_allow(option: object) -> None:
    from tenure.worker.torch_eval.options import Option

    assert isinstance(option, Option)
    wrong = ["", "much", "-1", "nan", "inf", "1e999", "٣" if isinstance(option.default, str) else "0x1"]
    if isinstance(option.default, int):
        wrong += ["1.5", "1e3", "9" * 40]
    if option.exclusive:
        wrong += ["0", "1"]
    for text in wrong:
        with pytest.raises(InvalidConfig) as caught:
            resolve(Config(extra={option.name: text}))
        assert caught.value.field == f"config.extra.{option.name}"
        assert caught.value.expected == option.allowed


def test_an_unknown_key_is_refused_with_those_known() -> None:
    with pytest.raises(InvalidConfig) as caught:
        resolve(Config(extra={"learning-rate": "1"}))
    assert caught.value.field == "config.extra.learning-rate"
    assert all(option.name in caught.value.expected for option in OPTIONS)


def test_settings_survive_a_checkpoint() -> None:
    settings = resolve(Config(extra={"seed": "7", "dataset.path": "/x"}))
    assert Settings.from_state(settings.to_state()) == settings
    with pytest.raises(CheckpointError, match="turbo"):
        Settings.from_state(settings.to_state() | {"turbo": 1})


def test_the_documentation_has_this_table() -> None:
    rows = ["| key | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for option in OPTIONS:
        allowed = option.allowed.replace(" | ", ", ")
        rows.append(f"| `{option.name}` | {_shown(option.default)} | {allowed} | {option.meaning} |")
    assert "\n".join(rows) in DOCUMENT.read_text(), "docs/training.md should hold:\n" + "\n".join(rows)


def test_the_documentation_has_these_defaults() -> None:
    text = DOCUMENT.read_text()
    defaults = {
        "num_epochs": NUM_EPOCHS_DEFAULT,
        "batch_size": BATCH_SIZE_DEFAULT,
        "learning_rate": LEARNING_RATE_DEFAULT,
        "dataset": DATASET_DEFAULT,
    }
    for name, default in defaults.items():
        assert f"| `{name}` | {default} |" in text


def _shown(default: float | str) -> str:
    return f"{default:g}" if isinstance(default, int | float) else default
