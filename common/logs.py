"""Log setup of every Tenure process: one JSON object a line on stderr, or coloured lines for people.

Events are named ``noun.verb`` and the same words as transitions and metrics; the fields ``search``, ``task``,
``worker`` and ``epoch`` always mean the same. Bind them once per task with ``structlog.contextvars``.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog

LogFormat = Literal["json", "console", "auto"]
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logs(component: str, log_format: LogFormat = "auto", level: str = "info", **bound: Any) -> None:
    """Set up structlog and the standard library's logging for this process.

    Args:
        component: ``master``, ``worker``, ``executor``, ``cli``.
        log_format: ``auto`` is ``console`` on a terminal, else ``json``.
        level: ``debug``, ``info``, ``warning`` or ``error``.
        bound: Fields of every line, such as ``worker``.
    """
    if log_format == "auto":
        log_format = "console" if sys.stderr.isatty() else "json"
    renderer: Any = structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.dict_tracebacks if log_format == "json" else structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(component=component, **bound)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s", force=True)
