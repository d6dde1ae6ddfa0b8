"""What commands print: tables for people, JSON for programs, errors and progress on stderr."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

# Wide enough that nothing is cut or wrapped where nobody looks: in pipes and files.
_PIPE_WIDTH = 10_000


class OutputFormat(enum.StrEnum):
    """``--output``."""

    TABLE = "table"
    JSON = "json"


def print_json(value: Any) -> None:
    """``value`` (records, mappings, sequences) as one JSON document."""
    sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def print_json_array(values: Iterable[Any]) -> None:
    """Records as one JSON array, written as they come: any number of them."""
    sys.stdout.write("[")
    for position, value in enumerate(values):
        sys.stdout.write((",\n" if position else "\n") + json.dumps(plain(value), ensure_ascii=False))
    sys.stdout.write("\n]\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """A table; columns whose name starts with ``>`` stand to the right. ``empty`` is said when there is no row."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*row)
    console = stdout_console()
    if table.row_count:
        console.print(table)
    else:
        console.print(empty)


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, aligned; pairs without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        sys.stdout.write(f"{name:<{width}}  {printable(value)}\n")


def printable(text: str) -> str:
    """``text`` without control characters but line ends and tabs: what evaluations print must not drive terminals."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def print_error(text: str) -> None:
    """``error: …`` on stderr."""
    sys.stderr.write(f"error: {printable(text)}\n")


def print_records(
    records: Iterator[Any],
    limit: int,
    output: OutputFormat,
    columns: Sequence[str],
    row: Callable[[Any], Sequence[str]],
    *,
    empty: str,
) -> None:
    """The first ``limit`` records as JSON or as a table, and a word on stderr if there are more."""
    shown = itertools.islice(records, limit)
    if output is OutputFormat.JSON:
        print_json_array(shown)
    else:
        print_table(columns, (row(record) for record in shown), empty=empty)
    if next(records, None) is not None:
        print_note(f"only the first {limit} are listed; --limit lists more")


def print_note(text: str) -> None:
    """A line on stderr that is no error."""
    sys.stderr.write(f"{text}\n")


def stdout_console() -> Any:
    """A rich console that never cuts what goes into a pipe."""
    from rich.console import Console

    # markup off: ids and messages may hold brackets.
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)


def plain(value: Any) -> Any:
    """``value`` in terms of JSON: records become objects, states their names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def clock(unix_ms: int) -> str:
    """A point in time for people, UTC; empty for 0."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if unix_ms else ""


def ago(unix_ms: int) -> str:
    """How long ago, by this machine's clock; empty for 0."""
    return span(max(0.0, time.time() * 1000 - unix_ms)) + " ago" if unix_ms else ""


def span(milliseconds: float) -> str:
    """A length of time with at most two units: ``850 ms``, ``12.3 s``, ``4 m 10 s``, ``3 h 5 m``, ``2 d 7 h``."""
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if minutes < 60:
        return f"{minutes} m {int(seconds % 60)} s"
    if hours < 24:
        return f"{hours} h {minutes % 60} m"
    return f"{days} d {hours % 24} h"
