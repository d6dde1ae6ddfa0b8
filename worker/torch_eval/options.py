"""What a training is told to do: the defaults, and every key of ``config.extra``.

``OPTIONS`` is the table behind parsing, error messages and docs/training.md (a test compares them).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NoReturn

from tenure.common.errors import CheckpointError, InvalidConfig
from tenure.common.spec import Config

NUM_EPOCHS_DEFAULT = 10
BATCH_SIZE_DEFAULT = 64
LEARNING_RATE_DEFAULT = 1e-3
DATASET_DEFAULT = "digits"

# Keys under this prefix are handed to the user's data set function, without the prefix.
DATASET_PREFIX = "dataset."

_INTEGER = re.compile(r"[+-]?\d{1,18}")


@dataclass(frozen=True)
class Option:
    """One key of ``config.extra``. Its value arrives as text.

    Attributes:
        name: The key.
        default: When the key is absent; its type is the option's.
        meaning: One sentence for the documentation.
        least: Smallest number allowed.
        most: Largest number allowed.
        exclusive: Whether ``least`` and ``most`` themselves are not allowed.
        choices: Allowed texts.
    """

    name: str
    default: int | float | str
    meaning: str
    least: float = 0
    most: float = math.inf
    exclusive: bool = False
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        if self.choices:
            return " | ".join(self.choices)
        kind = "integer" if isinstance(self.default, int) else "number"
        if self.exclusive:
            return f"{kind} above {self.least:g}, below {self.most:g}"
        if self.most == math.inf:
            return f"{kind}, at least {self.least:g}"
        return f"{kind} from {self.least:g} to {_plain(self.most)}"

    def parse(self, text: str) -> int | float | str:
        """The value in ``text``; InvalidConfig if it isn't one."""
        value: int | float
        if self.choices:
            return text if text in self.choices else self._refuse(text)
        if isinstance(self.default, int):
            if not _INTEGER.fullmatch(text):
                self._refuse(text)
            value = int(text)
        else:
            try:
                value = float(text)
            except ValueError:
                self._refuse(text)
        inside = self.least < value < self.most if self.exclusive else self.least <= value <= self.most
        if not inside or not math.isfinite(value):
            self._refuse(text)
        return value

    def _refuse(self, text: str) -> NoReturn:
        raise InvalidConfig(
            "has a value that is not allowed",
            field=f"config.extra.{self.name}",
            given=repr(text),
            expected=self.allowed,
        )


OPTIONS: tuple[Option, ...] = (
    Option("seed", 0, "Initial weights, data order, dropout and augmentation follow from it.", most=2**32 - 1),
    Option("optimizer", "adam", "Which of torch's optimizers.", choices=("sgd", "adam", "adamw")),
    Option("momentum", 0.9, "Of `sgd`; the others ignore it.", most=0.9999),
    Option("weight_decay", 0.0, "As the optimizer understands it."),
    Option(
        "schedule",
        "none",
        "The learning rate: constant, down a cosine to 0, or times `gamma` every `step_size` epochs.",
        choices=("none", "cosine", "step"),
    ),
    Option("step_size", 0, "Of `schedule=step`, in epochs; 0 = a third of all epochs.", most=1_000_000),
    Option("gamma", 0.1, "Of `schedule=step`.", most=1.0),
    Option("label_smoothing", 0.0, "Of the training loss; the validation loss is plain cross entropy.", most=0.999),
    Option("gradient_clip", 0.0, "Largest norm of all gradients together; 0 = no limit."),
    Option("augment", "none", "`shift`: images move by up to an eighth of their size.", choices=("none", "shift")),
    Option("val_fraction", 0.2, "The share of rows that is held out.", most=1.0, exclusive=True),
    Option("checkpoint_every_epochs", 1, "0 = only when stopped, and by `checkpoint_every_seconds`.", most=1_000_000),
    Option("checkpoint_every_seconds", 600.0, "Within long epochs, since the last checkpoint; 0 = never within one."),
    Option("threads", 0, "CPU threads of torch; 0 = what the worker sets, see below.", most=1024),
)
_BY_NAME = {option.name: option for option in OPTIONS}


@dataclass(frozen=True)
class Settings:
    """An EvaluationConfig with every default filled in. The fields from ``seed`` on are :data:`OPTIONS`."""

    num_epochs: int
    batch_size: int
    learning_rate: float
    dataset: str
    seed: int
    optimizer: str
    momentum: float
    weight_decay: float
    schedule: str
    step_size: int
    gamma: float
    label_smoothing: float
    gradient_clip: float
    augment: str
    val_fraction: float
    checkpoint_every_epochs: int
    checkpoint_every_seconds: float
    threads: int
    dataset_extra: Mapping[str, str] = field(default_factory=dict)

    def to_state(self) -> dict[str, Any]:
        """For a checkpoint: a training goes on with the defaults it began with."""
        return asdict(self)

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Settings:
        """What :meth:`to_state` gave.

        Raises:
            CheckpointError: It was given by a version with other settings.
        """
        names = {one.name for one in fields(Settings)}
        if set(state) != names:
            raise CheckpointError(
                "holds the settings of another version of Tenure",
                field="state.settings",
                given=", ".join(sorted(names.symmetric_difference(state))),
                expected="let a worker of the version that began this training finish it",
            )
        return Settings(**state)


def resolve(config: Config) -> Settings:
    """``config``, whose own fields are checked, with defaults filled in and ``extra`` understood.

    Raises:
        InvalidConfig: An unknown key (a misspelt one must not train something else in silence) or a wrong value.
    """
    values: dict[str, Any] = {option.name: option.default for option in OPTIONS}
    dataset_extra = {}
    for key, text in config.extra.items():
        if key.startswith(DATASET_PREFIX):
            dataset_extra[key.removeprefix(DATASET_PREFIX)] = text
        elif key in _BY_NAME:
            values[key] = _BY_NAME[key].parse(text)
        else:
            raise InvalidConfig(
                "unknown key",
                field=f"config.extra.{key}",
                given=repr(text),
                expected=f"known are {', '.join(sorted(_BY_NAME))}, and {DATASET_PREFIX}* for your own data set",
            )
    return Settings(
        num_epochs=config.num_epochs or NUM_EPOCHS_DEFAULT,
        batch_size=config.batch_size or BATCH_SIZE_DEFAULT,
        learning_rate=float(config.learning_rate) or LEARNING_RATE_DEFAULT,
        dataset=config.dataset or DATASET_DEFAULT,
        dataset_extra=dataset_extra,
        **values,
    )


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"
