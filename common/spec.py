"""What a task asks for, checked. The same checks run in the client (before anything is sent) and in the master."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tenure.common import ids, limits
from tenure.common.checks import check_integer
from tenure.common.code import check_program
from tenure.common.errors import InvalidConfig, InvalidInput
from tenure.common.graph import check_graph, parse_json

# Data sets that the built-in evaluator knows by name; any `module:function` is the user's own.
NAMED_DATASETS = ("digits", "mnist-5k")
ARCHITECTURE_FORMATS = ("graph", "json")
REFERENCE = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


@dataclass(frozen=True)
class Config:
    """An EvaluationConfig. Zero or empty means "the worker's default", as an absent proto3 field does."""

    num_epochs: int = 0
    batch_size: int = 0
    learning_rate: float = 0.0
    dataset: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Requirements:
    """What a worker must have to be given the task. ``memory_bytes``: of the slot, its smallest GPU's or the host's."""

    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0


@dataclass(frozen=True)
class TaskSpec:
    """One task as it is submitted. ``architecture`` is JSON text.

    An empty ``key`` means the content's own key (:func:`content_key`). ``evaluator`` (``module:function``) and ``code``
    (the digest of the archive that it is in; empty: it is installed on the workers) are what evaluates the task; empty
    means the search's, and without one the worker's own. ``trace``: W3C traceparent of the span that submits it.
    """

    architecture: str
    config: Config = Config()
    key: str = ""
    priority: int = 0
    max_attempts: int = limits.ATTEMPTS_DEFAULT
    max_losses: int = limits.LOSSES_DEFAULT
    max_out_of_memory: int = limits.OUT_OF_MEMORY_DEFAULT
    timeout_ms: int = 0
    progress_deadline_ms: int = 0
    delay_ms: int = 0
    requirements: Requirements = Requirements()
    evaluator: str = ""
    code: str = ""
    trace: str = ""


def content_key(architecture: str, config: Config, evaluator: str = "", code: str = "") -> str:
    """The key of a task that names none: equal content in one search is one task.

    Key order and blanks in the JSON don't matter. The same architecture evaluated by other code is another task.
    """
    content = [
        json.loads(architecture),
        config.num_epochs,
        config.batch_size,
        config.learning_rate,
        config.dataset,
        sorted(config.extra.items()),
    ]
    if evaluator:
        content += [evaluator, code]
    canonical = json.dumps(
        content,
        sort_keys=True,
        separators=(",", ":"),
    )
    return "content:" + hashlib.sha256(canonical.encode()).hexdigest()


def check_spec(spec: TaskSpec, architecture_format: str = "graph") -> TaskSpec:
    """``spec`` if every field is right.

    Raises:
        InvalidInput: With the field, what was given, what would be right. InvalidArchitecture and InvalidConfig are
            its subclasses for those two fields.
    """
    check_architecture(spec.architecture, architecture_format)
    return check_settings(spec, architecture_format)


def check_settings(spec: TaskSpec, architecture_format: str = "graph") -> TaskSpec:
    """``spec`` if everything but its architecture is right; else InvalidInput as :func:`check_spec`."""
    if spec.key:
        ids.check_text(spec.key, "key", limits.KEY_BYTES_MAX)
    check_config(spec.config, architecture_format)
    check_integer(spec.priority, "priority", limits.PRIORITY_MIN, limits.PRIORITY_MAX)
    check_integer(spec.max_attempts, "max_attempts", 1, limits.BUDGET_MAX)
    check_integer(spec.max_losses, "max_losses", 1, limits.BUDGET_MAX)
    check_integer(spec.max_out_of_memory, "max_out_of_memory", 1, limits.BUDGET_MAX)
    for name in ("timeout_ms", "progress_deadline_ms", "delay_ms"):
        check_integer(getattr(spec, name), name, 0, limits.DURATION_MS_MAX)
    check_requirements(spec.requirements)
    check_program(spec.evaluator, spec.code)
    return spec


def check_architecture(text: str, architecture_format: str = "graph") -> Any:
    """The parsed architecture. ``graph``: MorphML's graph JSON, checked whole but for shapes; ``json``: any JSON."""
    if architecture_format not in ARCHITECTURE_FORMATS:
        raise InvalidInput(
            "unknown format",
            field="architecture_format",
            given=architecture_format,
            expected=f"one of {', '.join(ARCHITECTURE_FORMATS)}",
        )
    parsed = parse_json(text)
    if architecture_format == "graph":
        check_graph(parsed)
    return parsed


def check_config(config: Config, architecture_format: str = "graph") -> Config:
    """``config`` if every field is right; else InvalidConfig."""
    check_integer(config.num_epochs, "config.num_epochs", 0, limits.EPOCHS_MAX, InvalidConfig)
    check_integer(config.batch_size, "config.batch_size", 0, limits.BATCH_SIZE_MAX, InvalidConfig)
    rate = config.learning_rate
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not math.isfinite(rate) or rate < 0:
        raise InvalidConfig(
            "must be a finite number of at least 0",
            field="config.learning_rate",
            given=rate,
            expected="for example 0.001; 0 means the worker's default",
        )
    if not isinstance(config.dataset, str):
        raise InvalidConfig("must be text", field="config.dataset", given=config.dataset)
    named = config.dataset in ("", *NAMED_DATASETS) or REFERENCE.match(config.dataset)
    if architecture_format == "graph" and not named:
        raise InvalidConfig(
            "unknown data set",
            field="config.dataset",
            given=config.dataset,
            expected=f"one of {', '.join(NAMED_DATASETS)}, or your own as module:function",
        )
    _check_mapping(
        config.extra,
        "config.extra",
        limits.CONFIG_EXTRA_ENTRIES_MAX,
        limits.CONFIG_EXTRA_BYTES_MAX,
        InvalidConfig,
    )
    return config


def check_requirements(requirements: Requirements) -> Requirements:
    """``requirements`` if every field is right; else InvalidInput."""
    check_integer(requirements.gpus, "requirements.gpus", 0, limits.SLOTS_MAX)
    check_integer(requirements.memory_bytes, "requirements.memory_bytes", 0, limits.SLOT_MEMORY_BYTES_MAX)
    _check_mapping(requirements.labels, "requirements.labels", limits.LABELS_MAX, limits.LABEL_BYTES_MAX, InvalidInput)
    return requirements


def _check_mapping(
    mapping: Mapping[str, str], name: str, entries_max: int, bytes_max: int, error: type[InvalidInput]
) -> None:
    if len(mapping) > entries_max:
        raise error(f"has {len(mapping)} entries", field=name, expected=f"at most {entries_max} are allowed")
    for key, value in mapping.items():
        if not isinstance(key, str) or not isinstance(value, str) or not key:
            raise error("must map texts to texts", field=f"{name}.{key}", given=value)
        if len(key.encode()) + len(value.encode()) > bytes_max:
            raise error("is too long", field=f"{name}.{key}", expected=f"at most {bytes_max} bytes are allowed")
