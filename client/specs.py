"""Task specifications: from what authors write, checked, to the message that is sent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from tenure.common import limits
from tenure.common.errors import InvalidArchitecture, InvalidConfig, InvalidInput
from tenure.common.spec import Config, Requirements, TaskSpec, check_spec, content_key
from tenure.proto import tenure_pb2
from tenure.proto.convert import config_to_message, requirements_to_message

_CONFIG_FIELDS = tuple(field.name for field in fields(Config))
_REQUIREMENT_FIELDS = tuple(field.name for field in fields(Requirements))
_DURATIONS = ("timeout_seconds", "progress_deadline_seconds", "delay_seconds")
SPEC_FIELDS = (
    "key",
    "architecture",
    "config",
    "priority",
    "max_attempts",
    "max_losses",
    "max_out_of_memory",
    *_DURATIONS,
    "requirements",
)


def task_spec(
    architecture: Any,
    config: Mapping[str, Any] | Config | None = None,
    *,
    key: str = "",
    priority: int = 0,
    max_attempts: int = limits.ATTEMPTS_DEFAULT,
    max_losses: int = limits.LOSSES_DEFAULT,
    max_out_of_memory: int = limits.OUT_OF_MEMORY_DEFAULT,
    timeout_seconds: float = 0,
    progress_deadline_seconds: float = 0,
    delay_seconds: float = 0,
    requirements: Mapping[str, Any] | Requirements | None = None,
) -> TaskSpec:
    """One task as it can be submitted; nothing is checked yet but the shapes of the arguments.

    Args:
        architecture: A dict (MorphML's graph, for searches of format ``graph``); a str is taken as JSON text.
        config: Training configuration: a ``Config`` or a dict of its fields. What is absent is the worker's
            default.
        key: Names the task within its search: submitting it again gives the task that exists. Empty: the
            content's own key, so that the same architecture with the same config is trained once.
        priority: -100 to 100, higher first, within the search.
        max_attempts: Failures of the evaluation before the task is FAILED.
        max_losses: Vanished workers or executors before it is FAILED.
        max_out_of_memory: Runs that ended out of memory before it is FAILED.
        timeout_seconds: Longest one run may take, from its start on the worker: of each lease, not of all
            together. A run that takes longer is stopped and counted as an attempt. 0 = no limit.
        progress_deadline_seconds: Longest it may go without a progress report; 0 = no limit.
        delay_seconds: Not before this long from now.
        requirements: What a worker must have: ``{"gpus": 1, "labels": {"site": "north"}}``; ``memory_bytes`` is what
            its slot must have, of its smallest GPU's memory or the host's.

    Raises:
        InvalidInput: An argument of the wrong type, or a config field that doesn't exist.
    """
    if not isinstance(key, str):
        raise InvalidInput("must be text", field="key", given=key, expected="leave it out for the content's own key")
    return TaskSpec(
        architecture=_architecture_text(architecture),
        config=_config(config),
        key=key,
        priority=priority,
        max_attempts=max_attempts,
        max_losses=max_losses,
        max_out_of_memory=max_out_of_memory,
        timeout_ms=_milliseconds(timeout_seconds, "timeout_seconds"),
        progress_deadline_ms=_milliseconds(progress_deadline_seconds, "progress_deadline_seconds"),
        delay_ms=_milliseconds(delay_seconds, "delay_seconds"),
        requirements=_requirements(requirements),
    )


def spec_from_mapping(mapping: Mapping[str, Any]) -> TaskSpec:
    """:func:`task_spec` from a dict of its arguments; a field it doesn't have is refused."""
    if not isinstance(mapping, Mapping):
        raise InvalidInput(
            "must be an object", field="task", given=mapping, expected="give {'architecture': …, 'config': …}"
        )
    for name in mapping:
        if name not in SPEC_FIELDS:
            raise InvalidInput(
                "unknown field",
                field=str(name),
                given=mapping[name],
                expected=f"one of {', '.join(SPEC_FIELDS)}",
            )
    if "architecture" not in mapping:
        raise InvalidArchitecture("is missing", field="architecture", expected="give a graph")
    return task_spec(**mapping)


def checked(spec: TaskSpec, architecture_format: str) -> TaskSpec:
    """``spec`` with its key filled in, if every field is right; else InvalidInput.

    The key is computed before anything is sent, so that a request that is sent twice is the same request.
    """
    check_spec(spec, architecture_format)
    if spec.key:
        return spec
    return replace(spec, key=content_key(spec.architecture, spec.config, spec.evaluator, spec.code))


def checked_item(
    task: TaskSpec | Mapping[str, Any],
    architecture_format: str,
    position: int,
    complete: Callable[[TaskSpec], TaskSpec],
) -> TaskSpec:
    """:func:`checked` for one of many, a spec or a mapping, with what its search adds; its error names the position
    (``tasks[3].key``).
    """
    try:
        spec = task if isinstance(task, TaskSpec) else spec_from_mapping(task)
        return checked(complete(spec), architecture_format)
    except InvalidInput as error:
        raise error.within(f"tasks[{position}]") from None


def check_range(field: str, value: float | None, least: float, most: float) -> None:
    """InvalidInput unless ``value`` is None or in the range, ends included."""
    if value is not None and not least <= value <= most:
        raise InvalidInput("out of range", field=field, given=value, expected=f"{least:g} to {most:g}")


def to_message(spec: TaskSpec) -> Any:
    """``tenure.v1.TaskSpec``."""
    return tenure_pb2.TaskSpec(
        key=spec.key,
        architecture=spec.architecture,
        config=config_to_message(spec.config),
        priority=spec.priority,
        max_attempts=spec.max_attempts,
        max_losses=spec.max_losses,
        max_out_of_memory=spec.max_out_of_memory,
        timeout_ms=spec.timeout_ms,
        progress_deadline_ms=spec.progress_deadline_ms,
        delay_ms=spec.delay_ms,
        requirements=requirements_to_message(spec.requirements),
        evaluator=spec.evaluator,
        code=spec.code,
        trace=spec.trace,
    )


def _architecture_text(architecture: Any) -> str:
    if isinstance(architecture, str):
        return architecture
    try:
        return json.dumps(architecture, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArchitecture(
            f"can't be written as JSON: {error}",
            field="architecture",
            given=architecture,
            expected="use dicts, lists, texts, finite numbers, booleans and None only",
        ) from None


def _config(config: Mapping[str, Any] | Config | None) -> Config:
    if isinstance(config, Config):
        return config
    given = _known_fields(config, "config", _CONFIG_FIELDS, InvalidConfig)
    return Config(**{**given, "extra": _texts(given.get("extra"), "config.extra", InvalidConfig)})


def _requirements(requirements: Mapping[str, Any] | Requirements | None) -> Requirements:
    if isinstance(requirements, Requirements):
        return requirements
    given = _known_fields(requirements, "requirements", _REQUIREMENT_FIELDS, InvalidInput)
    return Requirements(**{**given, "labels": _texts(given.get("labels"), "requirements.labels", InvalidInput)})


def _known_fields(mapping: Any, field: str, names: tuple[str, ...], error: type[InvalidInput]) -> Mapping[str, Any]:
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise error("must be an object", field=field, given=mapping, expected=f"fields: {', '.join(names)}")
    for name, value in mapping.items():
        if name not in names:
            raise error("unknown field", field=f"{field}.{name}", given=value, expected=f"one of {', '.join(names)}")
    return mapping


def _texts(mapping: Any, field: str, error: type[InvalidInput]) -> dict[str, str]:
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise error("must map texts to texts", field=field, given=mapping)
    return dict(mapping)


def _milliseconds(seconds: Any, field: str) -> int:
    most = limits.DURATION_MS_MAX / 1000
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= most:
        raise InvalidInput("must be a number of seconds", field=field, given=seconds, expected=f"from 0 to {most:.0f}")
    # Rounded up, so that a tiny limit doesn't become "no limit"; first to what a float can tell.
    return math.ceil(round(seconds * 1000, 3))
