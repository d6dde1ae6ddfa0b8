"""Between messages and the domain values that client and master share."""

from __future__ import annotations

from typing import Any

from tenure.common import limits
from tenure.common.retry import RetryPolicy
from tenure.common.spec import Config, Requirements, TaskSpec
from tenure.common.states import TaskState
from tenure.common.traceparent import checked_traceparent
from tenure.proto import tenure_pb2, worker_pb2

_STATE_FROM_MESSAGE: dict[int, TaskState] = {tenure_pb2.TaskState.Value(state.value): state for state in TaskState}


def state_from_message(number: int) -> TaskState | None:
    """A state from its enum number; None for UNSPECIFIED and for one of a newer peer.

    The other way needs no function: messages take an enum value by its name.
    """
    return _STATE_FROM_MESSAGE.get(number)


def config_from_message(message: tenure_pb2.Config) -> Config:
    """A client API's config."""
    return Config(message.num_epochs, message.batch_size, message.learning_rate, message.dataset, dict(message.extra))


def config_to_message(config: Config) -> tenure_pb2.Config:
    """The inverse of :func:`config_from_message`."""
    return tenure_pb2.Config(
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        dataset=config.dataset,
        extra=dict(config.extra),
    )


def evaluation_config(config: Config) -> worker_pb2.EvaluationConfig:
    """The same as MorphML's EvaluationConfig. gpu_id stays 0: the worker chooses the device."""
    return worker_pb2.EvaluationConfig(
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        dataset=config.dataset,
        extra=dict(config.extra),
    )


def requirements_from_message(message: tenure_pb2.Requirements) -> Requirements:
    """What a worker must have."""
    return Requirements(message.gpus, dict(message.labels), message.memory_bytes)


def requirements_to_message(requirements: Requirements) -> tenure_pb2.Requirements:
    """The inverse of :func:`requirements_from_message`."""
    return tenure_pb2.Requirements(
        gpus=requirements.gpus, labels=dict(requirements.labels), memory_bytes=requirements.memory_bytes
    )


def spec_from_message(message: tenure_pb2.TaskSpec) -> TaskSpec:
    """A submitted task, not yet checked; absent budgets are the defaults."""
    return TaskSpec(
        architecture=message.architecture,
        config=config_from_message(message.config),
        key=message.key,
        priority=message.priority,
        max_attempts=message.max_attempts if message.HasField("max_attempts") else limits.ATTEMPTS_DEFAULT,
        max_losses=message.max_losses if message.HasField("max_losses") else limits.LOSSES_DEFAULT,
        max_out_of_memory=message.max_out_of_memory
        if message.HasField("max_out_of_memory")
        else limits.OUT_OF_MEMORY_DEFAULT,
        timeout_ms=message.timeout_ms,
        progress_deadline_ms=message.progress_deadline_ms,
        delay_ms=message.delay_ms,
        requirements=requirements_from_message(message.requirements),
        evaluator=message.evaluator,
        code=message.code,
        trace=checked_traceparent(message.trace),
    )


def retry_from_message(message: tenure_pb2.RetryPolicy) -> RetryPolicy:
    """A search's retry policy, not yet checked; InvalidInput for a jitter that doesn't exist."""
    plain = _given(message, ("base_ms", "max_ms", "multiplier", "jitter"))
    names = ("retryable", "max_attempts", "base_ms", "max_ms", "multiplier", "jitter")
    plain["rules"] = [{"error_class": rule.error_class, **_given(rule, names)} for rule in message.rules]
    return RetryPolicy.from_plain(plain)


def retry_to_message(policy: RetryPolicy) -> tenure_pb2.RetryPolicy:
    """The inverse of :func:`retry_from_message`."""
    return tenure_pb2.RetryPolicy(**policy.to_plain())


def _given(message: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(message, name) for name in names if message.HasField(name)}
