"""Which failures are tried again, how often, and after which pause: a search's retry policy.

A policy is applied where an outcome is judged (``master/core/outcomes.py``); the script that writes the end is given
the numbers. The same checks run in the client, before anything is sent, and in the master.
"""

from __future__ import annotations

import enum
import fnmatch
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from tenure.common import limits
from tenure.common.checks import check_integer
from tenure.common.errors import InvalidInput

# The same architecture can't be built the next time either, nor is a payload whole then: no rule makes it worth a try.
DAMAGED_PAYLOAD = "PayloadDamaged"
NEVER_RETRYABLE = frozenset({"InvalidArchitecture", DAMAGED_PAYLOAD})


class Jitter(enum.StrEnum):
    """How much of a pause is random. ``full`` spreads a herd best; ``none`` is for tests and for people who count."""

    NONE = "none"
    FULL = "full"
    EQUAL = "equal"


@dataclass(frozen=True)
class RetryRule:
    """What holds for the errors of one class, or of several. What is None is as without the rule.

    Attributes:
        error_class: The class as attempt records show it (``ValueError``, ``torch.OutOfMemoryError``), or a glob
            (``torch.*``, ``*Timeout*``). Without a dot it is also compared with the last part of the name.
        retryable: True: tried again even if the evaluator said that this can't help. False: never.
        max_attempts: These errors have a budget of their own: they are counted apart, by the text of
            ``error_class``, and not among the task's attempts, losses or out-of-memory ends.
        base_ms, max_ms, multiplier, jitter: A backoff of its own; see :class:`RetryPolicy`.
    """

    error_class: str
    retryable: bool | None = None
    max_attempts: int | None = None
    base_ms: int | None = None
    max_ms: int | None = None
    multiplier: float | None = None
    jitter: Jitter | None = None

    def matches(self, error_class: str) -> bool:
        """Whether an error of this class is meant."""
        names = (error_class,) if "." in self.error_class else (error_class, error_class.rpartition(".")[2])
        return any(fnmatch.fnmatchcase(name, self.error_class) for name in names)


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff, and rules for classes of errors.

    Attributes:
        base_ms: The pause after the first failure.
        max_ms: The longest pause.
        multiplier: What each further failure multiplies the pause by.
        jitter: ``full``: anything from 0 to the pause. ``equal``: from half of it. ``none``: exactly it.
        rules: The first that matches wins. A lease that ran out unheard has no error class, so no rule.
    """

    base_ms: int = 1_000
    max_ms: int = 300_000
    multiplier: float = 2.0
    jitter: Jitter = Jitter.FULL
    rules: tuple[RetryRule, ...] = ()

    def rule_for(self, error_class: str) -> RetryRule | None:
        """The first rule that matches."""
        return next((rule for rule in self.rules if rule.matches(error_class)), None) if error_class else None

    def with_backoff_of(self, rule: RetryRule) -> RetryPolicy:
        """The policy with what the rule says of the backoff; without rules.

        A rule's own longest pause bounds the policy's base, and its own base lifts the policy's longest pause.
        """
        base_ms = self.base_ms if rule.base_ms is None else rule.base_ms
        max_ms = self.max_ms if rule.max_ms is None else rule.max_ms
        return RetryPolicy(
            base_ms=base_ms if rule.base_ms is not None else min(base_ms, max_ms),
            max_ms=max_ms if rule.max_ms is not None else max(base_ms, max_ms),
            multiplier=self.multiplier if rule.multiplier is None else rule.multiplier,
            jitter=self.jitter if rule.jitter is None else rule.jitter,
        )

    def to_plain(self) -> dict[str, Any]:
        """In terms of JSON, without what is absent; what the store keeps."""
        plain: dict[str, Any] = dict(_present(self))
        plain["rules"] = [dict(_present(rule)) for rule in self.rules]
        return plain

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> RetryPolicy:
        """The inverse of :meth:`to_plain`, not yet checked; an unknown field is refused, an absent one the default.

        Raises:
            InvalidInput: Names the field.
        """
        if not isinstance(plain, dict):
            raise InvalidInput("must be an object", field="retry", given=plain, expected='such as {"base_ms": 5000}')
        known = _known(plain, RetryPolicy, "retry")
        rules = known.pop("rules", ())
        if not isinstance(rules, list | tuple):
            raise InvalidInput("must be a list", field="retry.rules", given=rules, expected="a list of rules")
        return RetryPolicy(**_with_jitter(known, "retry"), rules=tuple(_rule(*each) for each in enumerate(rules)))


def is_never_retryable(error_class: str) -> bool:
    """Whether no policy can make this error worth another try."""
    return error_class.rpartition(".")[2] in NEVER_RETRYABLE


def check_policy(policy: RetryPolicy) -> RetryPolicy:
    """``policy`` if every field is right.

    Raises:
        InvalidInput: With the field (``retry.rules[2].max_attempts``), what was given, what would be right.
    """
    for name in ("base_ms", "max_ms", "multiplier", "jitter"):
        if getattr(policy, name) is None:
            raise InvalidInput("must have a value", field=f"retry.{name}", expected="leave it out for the default")
    _check_backoff(policy, "retry")
    if not isinstance(policy.rules, list | tuple) or not all(isinstance(rule, RetryRule) for rule in policy.rules):
        raise InvalidInput("must be a list of rules", field="retry.rules", given=repr(policy.rules))
    if len(policy.rules) > limits.RETRY_RULES_MAX:
        raise InvalidInput(
            f"{len(policy.rules)} rules", field="retry.rules", expected=f"at most {limits.RETRY_RULES_MAX} are allowed"
        )
    seen: dict[str, int] = {}
    for position, rule in enumerate(policy.rules):
        field = f"retry.rules[{position}]"
        _check_rule(rule, field)
        first = seen.setdefault(rule.error_class, position)
        if first != position:
            raise InvalidInput(
                f"is that of rule {first}, which always wins",
                field=f"{field}.error_class",
                given=rule.error_class,
                expected="one rule for each",
            )
    return policy


def _check_rule(rule: RetryRule, field: str) -> None:
    name = rule.error_class
    right = isinstance(name, str) and name.isprintable() and not any(char.isspace() for char in name)
    if not right or not 1 <= len(name.encode()) <= limits.ERROR_CLASS_BYTES_MAX:
        raise InvalidInput(
            "can't be the name of a class",
            field=f"{field}.error_class",
            given=name,
            expected=f"1 to {limits.ERROR_CLASS_BYTES_MAX} bytes such as ValueError, torch.* or *Timeout*",
        )
    if rule.retryable is not None and not isinstance(rule.retryable, bool):
        raise InvalidInput(
            "must be true or false",
            field=f"{field}.retryable",
            given=repr(rule.retryable),
            expected="true: always tried again; false: never",
        )
    if rule.retryable and is_never_retryable(rule.error_class):
        raise InvalidInput(
            f"is never retryable: what {rule.error_class} says holds the next time, too",
            field=f"{field}.retryable",
            given=True,
            expected="leave the rule out",
        )
    if rule.max_attempts is not None:
        check_integer(rule.max_attempts, f"{field}.max_attempts", 1, limits.BUDGET_MAX)
    _check_backoff(rule, field)


def _check_backoff(owner: RetryPolicy | RetryRule, field: str) -> None:
    for name in ("base_ms", "max_ms"):
        if getattr(owner, name) is not None:
            check_integer(getattr(owner, name), f"{field}.{name}", 0, limits.BACKOFF_MS_MAX)
    if owner.base_ms is not None and owner.max_ms is not None and owner.base_ms > owner.max_ms:
        raise InvalidInput(
            "is above the longest backoff",
            field=f"{field}.base_ms",
            given=owner.base_ms,
            expected=f"at most max_ms ({owner.max_ms})",
        )
    value = owner.multiplier
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not 1 <= value <= limits.BACKOFF_MULTIPLIER_MAX:
        raise InvalidInput(
            "out of range",
            field=f"{field}.multiplier",
            given=value,
            expected=f"a number from 1 to {limits.BACKOFF_MULTIPLIER_MAX:g}",
        )


def _present(owner: RetryPolicy | RetryRule) -> Iterator[tuple[str, Any]]:
    for field in fields(owner):
        value = getattr(owner, field.name)
        if field.name != "rules" and value is not None:
            yield field.name, str(value) if isinstance(value, Jitter) else value


def _rule(position: int, plain: Any) -> RetryRule:
    field = f"retry.rules[{position}]"
    if not isinstance(plain, dict) or "error_class" not in plain:
        raise InvalidInput("must be an object", field=field, given=plain, expected="give at least error_class")
    return RetryRule(**_with_jitter(_known(plain, RetryRule, field), field))


def _known(plain: dict[str, Any], kind: type[RetryPolicy | RetryRule], field: str) -> dict[str, Any]:
    names = [each.name for each in fields(kind)]
    for name, value in plain.items():
        if name not in names:
            raise InvalidInput(
                "unknown field", field=f"{field}.{name}", given=value, expected=f"one of {', '.join(names)}"
            )
    return dict(plain)


def _with_jitter(plain: dict[str, Any], field: str) -> dict[str, Any]:
    given = plain.get("jitter")
    if given is None:
        return plain
    if given not in list(Jitter):
        raise InvalidInput(
            "unknown jitter", field=f"{field}.jitter", given=given, expected=f"one of {', '.join(Jitter)}"
        )
    return {**plain, "jitter": Jitter(given)}
