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
from tenure.worker.out_of_memory import ON_OUT_OF_MEMORY

NUM_EPOCHS_DEFAULT = 10
BATCH_SIZE_DEFAULT = 64
LEARNING_RATE_DEFAULT = 1e-3
DATASET_DEFAULT = "digits"

# Keys under this prefix are handed to the user's data set function, without the prefix.
DATASET_PREFIX = "dataset."

_SWITCH = ("on", "off")
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
    Option("nesterov", "off", "Nesterov's momentum, of `sgd`.", choices=_SWITCH),
    Option("beta1", 0.9, "Of `adam` and `adamw`: how long the gradient's mean remembers.", most=0.9999),
    Option("beta2", 0.999, "Of `adam` and `adamw`: how long its square's mean remembers.", most=0.999999),
    Option("weight_decay", 0.0, "As the optimizer understands it."),
    Option(
        "schedule",
        "none",
        "The learning rate: constant, down a cosine to 0, or times `gamma` every `step_size` epochs.",
        choices=("none", "cosine", "step"),
    ),
    Option("step_size", 0, "Of `schedule=step`, in epochs; 0 = a third of all epochs.", most=1_000_000),
    Option("gamma", 0.1, "Of `schedule=step`.", most=1.0),
    Option(
        "warmup_epochs",
        0,
        "The learning rate first rises in a line, batch by batch; the schedule has the epochs that are left.",
        most=1_000_000,
    ),
    Option("label_smoothing", 0.0, "Of the training loss; the validation loss is plain cross entropy.", most=0.999),
    Option("gradient_clip", 0.0, "Largest norm of all gradients together; 0 = no limit."),
    Option("augment", "none", "`shift`: images move by up to an eighth of their size.", choices=("none", "shift")),
    Option("val_fraction", 0.2, "The share of rows that is held out.", most=1.0, exclusive=True),
    Option("split_seed", 0, "Which rows are held out; 0 = the fixed split, see below.", most=2**32 - 1),
    Option(
        "early_stopping_epochs",
        0,
        "Ends the training after so many epochs without a better `val_accuracy`; 0 = never.",
        most=1_000_000,
    ),
    Option("early_stopping_delta", 0.0, "Better means: by more than this.", most=1.0),
    Option(
        "precision",
        "float32",
        "What the network computes in; weights and optimizer stay float32. `float16` needs CUDA.",
        choices=("float32", "bfloat16", "float16"),
    ),
    Option("compile", "off", "`torch.compile`: minutes first, then faster epochs.", choices=_SWITCH),
    Option("deterministic", "on", "`off` lets go of bit-exact resume, for speed on a GPU; see below.", choices=_SWITCH),
    Option(
        "micro_batches",
        1,
        "Each batch goes through the network in so many parts, for less memory; the gradients add up to the whole's.",
        least=1,
        most=1024,
    ),
    Option(
        "on_out_of_memory",
        "accumulate",
        "What follows when memory runs out: smaller parts, a slot with more memory, or the task's end; see below.",
        choices=ON_OUT_OF_MEMORY,
    ),
    Option(
        "loader_workers",
        0,
        "Processes that read and augment batches ahead; 0 = none, the training does it itself.",
        most=64,
    ),
    Option(
        "report_every_steps",
        0,
        "Progress within an epoch after every so many batches; 0 = every 5 seconds.",
        most=1_000_000_000,
    ),
    Option(
        "checkpoint_every_epochs",
        0,
        "A checkpoint after every so many epochs, and after the last, whatever it costs; 0 = as it is worth it.",
        most=1_000_000,
    ),
    Option(
        "checkpoint_every_seconds",
        0.0,
        "A checkpoint so long after the last one, within epochs too, whatever it costs; 0 = as it is worth it.",
    ),
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
    nesterov: str
    beta1: float
    beta2: float
    weight_decay: float
    schedule: str
    step_size: int
    gamma: float
    warmup_epochs: int
    label_smoothing: float
    gradient_clip: float
    augment: str
    val_fraction: float
    split_seed: int
    early_stopping_epochs: int
    early_stopping_delta: float
    precision: str
    compile: str
    deterministic: str
    micro_batches: int
    on_out_of_memory: str
    loader_workers: int
    report_every_steps: int
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
    settings = Settings(
        num_epochs=config.num_epochs or NUM_EPOCHS_DEFAULT,
        batch_size=config.batch_size or BATCH_SIZE_DEFAULT,
        learning_rate=float(config.learning_rate) or LEARNING_RATE_DEFAULT,
        dataset=config.dataset or DATASET_DEFAULT,
        dataset_extra=dataset_extra,
        **values,
    )
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    """What each may be depends on another."""
    if settings.warmup_epochs >= settings.num_epochs:
        raise InvalidConfig(
            "leaves no epoch behind the warm-up",
            field="config.extra.warmup_epochs",
            given=settings.warmup_epochs,
            expected=f"less than num_epochs, {settings.num_epochs}",
        )
    if settings.nesterov == "on" and (settings.optimizer != "sgd" or settings.momentum == 0):
        raise InvalidConfig(
            "needs momentum",
            field="config.extra.nesterov",
            given=settings.nesterov,
            expected="with optimizer=sgd and a momentum above 0",
        )


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"
