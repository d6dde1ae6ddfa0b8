"""Retry policies: which rule wins, what is refused, and what the numbers that decide come to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tenure.common import limits
from tenure.common.errors import InvalidInput
from tenure.common.retry import Jitter, RetryPolicy, RetryRule, check_policy
from tenure.master.core.outcomes import judge_by, judge_outcome
from tenure.master.store.records import Evidence, Failure, FailureKind
from tenure.proto import worker_pb2
from tenure.proto.convert import retry_from_message, retry_to_message

RULES = (
    RetryRule("ValueError", retryable=False),
    RetryRule("torch.*", max_attempts=7, base_ms=0),
    RetryRule("*Timeout*", retryable=True, max_ms=50, jitter=Jitter.NONE),
    RetryRule("*", multiplier=3.0),
)
WHOLE = RetryPolicy(100, 1000, 2.0, Jitter.EQUAL, RULES)


def failed(error_class: str, *, retryable: bool = True) -> Failure:
    evidence = Evidence(error_class=error_class)
    return Failure("t", "k", "w", FailureKind.FAILURE, retryable, evidence, RetryPolicy(7, 70))


def judged(error_class: str, *, retryable: bool = True) -> Failure:
    return judge_by(failed(error_class, retryable=retryable), "id", json.dumps(WHOLE.to_plain()))


@pytest.mark.parametrize(
    ("pattern", "error_class", "fits"),
    [
        ("ValueError", "ValueError", True),
        ("ValueError", "mine.ValueError", True),
        ("mine.ValueError", "ValueError", False),
        ("torch.*", "torch.OutOfMemoryError", True),
        ("torch.*", "torch.cuda.Error", True),
        ("torch.*", "nottorch.Error", False),
        ("*Timeout*", "TimeoutExpired", True),
        ("*Timeout*", "timeout", False),
        ("valueerror", "ValueError", False),
    ],
)
def test_what_a_rule_matches(pattern: str, error_class: str, fits: bool) -> None:
    assert RetryRule(pattern).matches(error_class) is fits


def test_the_first_rule_that_matches_wins() -> None:
    assert [WHOLE.rule_for(name) for name in ("ValueError", "torch.Timeout", "KeyError", "")] == [
        RULES[0],
        RULES[1],
        RULES[3],
        None,
    ]


def test_a_search_without_a_policy_leaves_the_master_s() -> None:
    assert judge_by(failed("ValueError"), "", "") == failed("ValueError")


class TestJudged:
    def test_a_rule_can_forbid_a_retry(self) -> None:
        end = judged("ValueError")
        assert (end.retryable, end.policy, end.rule, end.rule_budget) == (False, "id", "", 0)

    def test_a_rule_has_a_budget_and_a_backoff_of_its_own(self) -> None:
        end = judged("torch.OutOfMemoryError")
        assert (end.rule, end.rule_budget) == ("torch.*", 7)
        assert (end.retry.base_ms, end.retry.max_ms, end.retry.jitter) == (0, 1000, Jitter.EQUAL)

    def test_a_rule_can_overrule_the_evaluator(self) -> None:
        assert judged("PoolTimeout", retryable=False).retryable
        assert not judged("KeyError", retryable=False).retryable

    def test_a_longest_pause_of_a_rule_bounds_the_policy_s_base(self) -> None:
        assert judged("PoolTimeout").retry == RetryPolicy(50, 50, 2.0, Jitter.NONE)

    @pytest.mark.parametrize("error_class", ["InvalidArchitecture", "tenure.common.errors.InvalidArchitecture"])
    def test_no_rule_makes_a_network_that_can_not_be_built_worth_a_try(self, error_class: str) -> None:
        anything = RetryPolicy(rules=(RetryRule("*", retryable=True),))
        assert not judge_by(failed(error_class), "id", json.dumps(anything.to_plain())).retryable
        outcome = worker_pb2.Outcome(kind=worker_pb2.OUTCOME_FAILURE, error_class=error_class, retryable=True)
        end = judge_outcome(outcome, "w", RetryPolicy())
        assert isinstance(end, Failure)
        assert not end.retryable


@pytest.mark.parametrize("policy", [RetryPolicy(), WHOLE, RetryPolicy(0, 0, 1.0, Jitter.NONE)])
def test_nothing_is_lost_on_the_wire_or_in_the_store(policy: RetryPolicy) -> None:
    assert check_policy(policy) is policy
    assert RetryPolicy.from_plain(policy.to_plain()) == policy
    assert retry_from_message(retry_to_message(policy)) == policy


@pytest.mark.parametrize(
    ("plain", "field", "given"),
    [
        ({"base_ms": -1}, "retry.base_ms", "-1"),
        ({"base_ms": 1.5}, "retry.base_ms", "1.5"),
        ({"base_ms": True}, "retry.base_ms", "True"),
        ({"base_ms": 11, "max_ms": 10}, "retry.base_ms", "11"),
        ({"max_ms": limits.BACKOFF_MS_MAX + 1}, "retry.max_ms", str(limits.BACKOFF_MS_MAX + 1)),
        ({"multiplier": 0.5}, "retry.multiplier", "0.5"),
        ({"multiplier": float("nan")}, "retry.multiplier", "nan"),
        ({"multiplier": "2"}, "retry.multiplier", "2"),
        ({"jitter": "some"}, "retry.jitter", "some"),
        ({"pause": 1}, "retry.pause", "1"),
        ({"base_ms": "5"}, "retry.base_ms", "'5'"),
        ({"base_ms": None}, "retry.base_ms", ""),
        ({"rules": {}}, "retry.rules", "{}"),
        ({"rules": None}, "retry.rules", ""),
        ({"rules": [{"error_class": "a", "retryable": "no"}]}, "retry.rules[0].retryable", "'no'"),
        ({"rules": [{"error_class": "a", "retryable": 1}]}, "retry.rules[0].retryable", "1"),
        ({"rules": [{"retryable": False}]}, "retry.rules[0]", "{'retryable': False}"),
        ({"rules": [{"error_class": "A"}, {"error_class": "A"}]}, "retry.rules[1].error_class", "A"),
        ({"rules": [{"error_class": ""}]}, "retry.rules[0].error_class", ""),
        ({"rules": [{"error_class": "two words"}]}, "retry.rules[0].error_class", "two words"),
        ({"rules": [{"error_class": "A", "max_attempts": 0}]}, "retry.rules[0].max_attempts", "0"),
        ({"rules": [{"error_class": "A", "often": 3}]}, "retry.rules[0].often", "3"),
        ({"rules": [{"error_class": "InvalidArchitecture", "retryable": True}]}, "retry.rules[0].retryable", "True"),
        ({"rules": [{"error_class": f"E{n}"} for n in range(33)]}, "retry.rules", ""),
    ],
)
def test_what_can_not_be_is_refused_by_name(plain: dict[str, Any], field: str, given: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_policy(RetryPolicy.from_plain(plain))
    assert (caught.value.field, caught.value.given) == (field, given)
    assert caught.value.expected


def test_errors_of_torch_can_be_meant_together() -> None:
    from tenure.worker.executor.evaluation import _class_of

    foreign = type("OutOfMemoryError", (RuntimeError,), {"__module__": "torch"})
    assert RetryRule("torch.*").matches(_class_of(foreign()))
    assert not RetryRule("torch.*").matches(_class_of(ValueError()))
