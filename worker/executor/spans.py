"""What an executor tells of its evaluations in traces (docs/traces.md); nothing while they are off.

``evaluate`` is the current span of the evaluator's thread: spans that an evaluator begins are below it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tenure.common import tracing
from tenure.common.errors import InvalidSetting
from tenure.common.traceparent import checked_traceparent
from tenure.common.tracing import Span
from tenure.worker.pipe import Message
from tenure.worker.span_frames import pipe_exporter

_NS_PER_SECOND = 1_000_000_000


def start_tracing(send: Callable[[Message], None]) -> None:
    """The worker traces: so does this executor, through it."""
    try:
        tracing.start("tenure-executor", "on", shared=True, exporter=pipe_exporter(send))
    except (InvalidSetting, ImportError) as error:
        # Another path than its supervisor's. Evaluations are worth more than their spans.
        sys.stderr.write(f"tenure: this executor does not trace: {error}\n")


def begin_evaluation(trace: Mapping[str, str], **attributes: Any) -> Span:
    """The span ``evaluate``, from what the supervisor says of the run's trace."""
    parent = checked_traceparent(trace.get("parent", ""))
    return tracing.begin("evaluate", parent=parent, span_id=trace.get("span_id", "") if parent else "", **attributes)


def tell_checkpoint(what: str, lease: str, seconds: float, error: str = "", **attributes: Any) -> None:
    """``checkpoint.load`` or ``checkpoint.save``, which took so long until now.

    Below the lease, not the evaluation: whose span is never told if it is killed together with its worker.
    """
    end_ns = time.time_ns()
    start_ns = end_ns - round(seconds * _NS_PER_SECOND)
    tracing.told(f"checkpoint.{what}", parent=lease, start_ns=start_ns, end_ns=end_ns, error=error, **attributes)
