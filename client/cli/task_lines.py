"""Tasks from a file of JSON lines, for ``tenure tasks submit``.

A line is ``{"architecture": {…}, "config": {…}, "key": "…", …}`` with the fields of :func:`tenure.client.task_spec`.
Every line is one request: equal lines without a key are distinct tasks. Their keys are the content's, with ``#1``,
``#2``, … for its repetitions within the file, so that submitting the same file again changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from tenure.client.specs import checked, spec_from_mapping
from tenure.common import limits
from tenure.common.errors import InvalidInput
from tenure.common.spec import TaskSpec, content_key

# The largest architecture and a lot beside it. A longer line is refused without being read whole.
LINE_BYTES_MAX = limits.ARCHITECTURE_BYTES_MAX + 4 * 1024 * 1024


@dataclass(frozen=True)
class BadLine:
    """A line that can't be right, and why."""

    number: int
    error: InvalidInput


def read_tasks(
    stream: BinaryIO, architecture_format: str, complete: Callable[[TaskSpec], TaskSpec] = lambda spec: spec
) -> Iterator[TaskSpec | BadLine]:
    """The tasks of a file from its current position, in order, with what their search adds; blank lines are skipped.

    Only keys are remembered: a file may be larger than the memory.
    """
    keys = _Keys()
    for number, line in _lines(stream):
        try:
            spec = checked(complete(_parse(line)), architecture_format)
            yield keys.settle(spec, number)
        except InvalidInput as error:
            yield BadLine(number, at_line(number, error))


def at_line(number: int, error: InvalidInput) -> InvalidInput:
    """The same error, naming the line."""
    field = f"line {number}: {error.field}" if error.field else f"line {number}"
    return type(error)(error.message, field=field, given=error.given or None, expected=error.expected)


class _Keys:
    """Keeps the keys of one file apart: 16 bytes of digest for each line."""

    def __init__(self) -> None:
        self._repetitions: dict[bytes, int] = {}
        self._given: dict[str, tuple[int, bytes]] = {}

    def settle(self, spec: TaskSpec, number: int) -> TaskSpec:
        content = content_key(spec.architecture, spec.config, spec.evaluator, spec.code)
        digest = hashlib.blake2b(content.encode(), digest_size=16).digest()
        if spec.key == content:
            repetition = self._repetitions.get(digest, 0)
            self._repetitions[digest] = repetition + 1
            return replace(spec, key=f"{content}#{repetition}") if repetition else spec
        line, known = self._given.setdefault(spec.key, (number, digest))
        if known != digest:
            raise InvalidInput(
                f"was given to another task in line {line}",
                field="key",
                given=spec.key,
                expected="a key names one task of its search",
            )
        return spec


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := stream.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            # The rest of it is no line of its own.
            while not line.endswith(b"\n") and (line := stream.readline(LINE_BYTES_MAX)):
                pass
            yield number, b""
        elif line.strip():
            yield number, line


def _parse(line: bytes) -> TaskSpec:
    if not line:
        raise InvalidInput("is too long", expected=f"at most {LINE_BYTES_MAX} bytes are allowed")
    try:
        parsed: Any = json.loads(line.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"is not UTF-8 (byte {error.start})", expected="write the file as UTF-8") from None
    except RecursionError:
        raise InvalidInput(
            "is nested too deeply",
            expected=f"an architecture has at most {limits.ARCHITECTURE_DEPTH_MAX} levels",
        ) from None
    except ValueError as error:
        raise InvalidInput(
            f"is not JSON: {error}",
            given=line.decode("utf-8").strip(),
            expected='give one object, for example {"architecture": {"nodes": […]}, "config": {"num_epochs": 5}}',
        ) from None
    if not isinstance(parsed, dict):
        raise InvalidInput("must be an object", given=parsed, expected='for example {"architecture": {"nodes": […]}}')
    return spec_from_mapping(parsed)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice in one object")
    return result
