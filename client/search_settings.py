"""The settings of a search, checked, as the message that sets them."""

from __future__ import annotations

from typing import Literal

from tenure.client.specs import check_range
from tenure.common import limits
from tenure.common.errors import InvalidInput
from tenure.common.retry import RetryPolicy, check_policy
from tenure.proto import tenure_pb2
from tenure.proto.convert import retry_to_message

_MAX_LEASED_MAX = 10**9


def put_request(
    name: str,
    *,
    priority: int | None,
    weight: float | None,
    max_leased: int | None,
    architecture_format: str | None,
    retry: RetryPolicy | Literal["default"] | None,
) -> tenure_pb2.PutSearchRequest:
    """The settings of :meth:`tenure.client.Search.put` but the evaluator; InvalidInput if one is out of range."""
    check_range("priority", priority, limits.PRIORITY_MIN, limits.PRIORITY_MAX)
    check_range("weight", weight, limits.WEIGHT_MIN, limits.WEIGHT_MAX)
    check_range("max_leased", max_leased, 0, _MAX_LEASED_MAX)
    return tenure_pb2.PutSearchRequest(
        name=name,
        priority=priority,
        weight=weight,
        max_leased=max_leased,
        architecture_format=architecture_format,
        retry=_retry_message(retry),
        default_retry=retry == "default",
    )


def _retry_message(retry: RetryPolicy | Literal["default"] | None) -> tenure_pb2.RetryPolicy | None:
    if retry is None or retry == "default":
        return None
    if not isinstance(retry, RetryPolicy):
        raise InvalidInput("is no policy", field="retry", given=retry, expected="a RetryPolicy, or 'default'")
    return retry_to_message(check_policy(retry))
