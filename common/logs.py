"""Log setup of every Tenure process: one JSON object a line on stderr, or coloured lines for people.

Events are named ``noun.verb`` and the same words as transitions and metrics; the fields ``search``, ``task``,
``worker``, ``epoch`` and ``attempt`` always mean the same, and so do ``trace_id`` and ``span_id`` where the task is
traced. What doesn't change while a run lasts is bound once, with ``structlog.contextvars``.

Lines that others write come out likewise: those of libraries that use :mod:`logging` (gRPC, redis), with the field
``logger`` and their text as event; warnings of Python (``logger`` is ``py.warnings``); exceptions that nobody caught.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import time
from typing import Any, Literal

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["json", "console", "auto"]
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

# A collector of traces that is down is worth a line now and then.
_SELDOM = "opentelemetry"
_SELDOM_SECONDS = 60.0

log = structlog.get_logger()

# Of every line of this process, whichever thread writes it.
_process_fields: dict[str, Any] = {}


def configure_logs(component: str, log_format: LogFormat = "auto", level: str = "info", **bound: Any) -> None:
    """Set up structlog, the standard library's logging and warnings, and for JSON what becomes of uncaught exceptions.

    Args:
        component: ``master``, ``worker``, ``cli``.
        log_format: ``auto`` is ``console`` on a terminal, else ``json``.
        level: ``debug``, ``info``, ``warning`` or ``error``.
        bound: Fields of every line, such as ``worker``.
    """
    if log_format == "auto":
        log_format = "console" if sys.stderr.isatty() else "json"
    in_json = log_format == "json"
    # Without the values of variables: they may be secrets, and are long.
    in_plain = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_process_fields,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        in_plain if in_json else structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.processors.JSONRenderer(json_text) if in_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[*common, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _process_fields.clear()
    bind_process(component=component, **bound)
    _take_library_lines(common, renderer)
    if in_json:
        _take_uncaught()


def bind_process(**fields: Any) -> None:
    """Fields of every line of this process from now on, in all its threads."""
    _process_fields.update(fields)


def json_text(fields: EventDict, **_: Any) -> str:
    """One line of JSON, whatever the fields are: what JSON has no word for is written as its ``repr``."""
    try:
        return json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(_plain(fields), allow_nan=False)


def _plain(value: Any, depth: int = 6) -> Any:
    """``value`` in what JSON knows: not NaN, no cycles, texts as keys."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if depth and isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): _plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth - 1) for item in value]
    return repr(value)


def _add_process_fields(logger: WrappedLogger, method: str, fields: EventDict) -> EventDict:
    return {**_process_fields, **fields}


def _add_logger(logger: WrappedLogger, method: str, fields: EventDict) -> EventDict:
    return {**fields, "logger": fields["_record"].name}


class _Seldom(logging.Filter):
    """Lets through one line a minute of a library that would repeat itself."""

    def __init__(self) -> None:
        super().__init__()
        self._next_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Called by logging for each line."""
        if record.name.partition(".")[0] != _SELDOM:
            return True
        now = time.monotonic()
        if now < self._next_at:
            return False
        self._next_at = now + _SELDOM_SECONDS
        return True


def _take_library_lines(common: list[Processor], renderer: Any) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Seldom())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_add_logger, *common],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)


def _take_uncaught() -> None:
    def in_main(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("process.crashed", error=repr(error), exc_info=(kind, error, trace))

    def in_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and not issubclass(arguments.exc_type, SystemExit):
            name = arguments.thread.name if arguments.thread is not None else ""
            error = arguments.exc_value
            log.error(
                "thread.crashed",
                thread=name,
                error=repr(error),
                exc_info=(arguments.exc_type, error, arguments.exc_traceback),
            )

    def unraisable(arguments: Any) -> None:
        error = arguments.exc_value
        exc_info = (arguments.exc_type, error, arguments.exc_traceback) if error is not None else None
        log.error("exception.ignored", where=repr(arguments.object), error=repr(error), exc_info=exc_info)

    sys.excepthook = in_main
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable
