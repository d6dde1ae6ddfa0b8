"""Trace contexts as the text that W3C calls traceparent: ``00-<trace id>-<span id>-<flags>``.

Tenure keeps and passes them as this text, also where nothing is traced: whoever does goes on from it.
"""

from __future__ import annotations

import hashlib
import re

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")


def checked_traceparent(text: str) -> str:
    """``text`` if it is one, else '': what is wrong with a trace is no reason to refuse work."""
    return text if _TRACEPARENT.fullmatch(text) else ""


def with_span_id(traceparent: str, span_id: str) -> str:
    """The context of another span of the same trace; '' of ''."""
    return f"{traceparent[:36]}{span_id}{traceparent[52:]}" if traceparent else ""


def span_id_of(token: str, what: str) -> str:
    """The id of a span of the lease with this token: its ``lease``, its ``run``, its ``evaluate``.

    It follows from the token, so that every process that learns how the span ended can tell it: the master that
    settles the lease, also one that was started since, or the supervisor of an executor that was killed. And so spans
    of a process that is dead have their parent.
    """
    return hashlib.sha256(f"{what} {token}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def lease_traceparent(traceparent: str, token: str, what: str) -> str:
    """The context of that span, in the same trace; '' without a trace."""
    return with_span_id(traceparent, span_id_of(token, what)) if traceparent else ""


def log_fields(traceparent: str) -> dict[str, str]:
    """``trace_id`` and ``span_id`` for a log line; none without a trace."""
    if (match := _TRACEPARENT.fullmatch(traceparent)) is None:
        return {}
    return {"trace_id": match[1], "span_id": match[2]}
