"""What Redis says, as errors of ours."""

from __future__ import annotations

import re

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from tenure.common.errors import Overloaded, StoreUnavailable, TenureError, UnsuitableStore

# What a server says while it can't serve for a while. redis-py takes the first word off where it knows it by class.
PASSING_ERRORS = (ReadOnlyError, ClusterDownError, TryAgainError)
PASSING_WORDS = ("LOADING", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "BUSY", "MISCONF", "UNBLOCKED", "NOREPLICAS")


class Moved(StoreUnavailable):
    """Nothing was carried out: another node of the cluster holds the key."""


def translate(error: BaseException) -> TenureError:
    """A Redis error as one of ours."""
    if isinstance(error, TenureError):
        return error
    text = str(error)
    if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):
        return UnsuitableStore(
            f"refused the login: {text}",
            field="store",
            expected="put the right login into the URL: redis://USER:PASSWORD@HOST:PORT",
        )
    if isinstance(error, NoPermissionError):
        return UnsuitableStore(
            f"refused a command: {text}",
            field="store",
            expected="use a login that may run scripts, write all keys of the prefix, and ask INFO",
        )
    # Old versions of redis-py know a cluster's errors by class in their own cluster client only.
    if isinstance(error, MovedError) or text.startswith("MOVED "):
        return Moved("another node of the cluster holds this now")
    if isinstance(error, AskError) or text.startswith("ASK "):
        return StoreUnavailable(
            "a slot of the cluster is being moved key by key", expected="let no master run meanwhile"
        )
    if isinstance(error, MasterNotFoundError):
        return StoreUnavailable(_no_primary(text))
    if "DB index is out of range" in text:
        return UnsuitableStore("has no database of this number", field="store", expected="give a lower one in the URL")
    if "unknown command" in text and "SENTINEL" in text:
        return UnsuitableStore(
            "is no sentinel", field="store", expected="name sentinels (their port is 26379), or use redis://HOST:PORT"
        )
    if "used memory > 'maxmemory'" in text:
        return Overloaded("the store is at its memory limit", expected="raise maxmemory, or forget old tasks")
    passing = isinstance(error, PASSING_ERRORS) or text.startswith(PASSING_WORDS)
    if isinstance(error, ResponseError) and not passing:
        return TenureError(f"the store refused a script: {text[:500]}")
    return StoreUnavailable(f"the store does not answer: {text[:300] or type(error).__name__}")


def _no_primary(text: str) -> str:
    """redis-py's account of sentinels that name no primary, without the connection pools that it prints whole."""
    service = text.partition("'")[2].partition("'")[0]
    silent = dict.fromkeys(re.findall(r"host=([^,>]+),port=(\d+)", text))
    if silent:
        hosts = ", ".join(f"{host}:{port}" for host, port in silent)
        return f"no sentinel names a primary of {service!r}; these don't answer: {hosts}"
    return f"the sentinels know no living primary of a service {service!r}"
