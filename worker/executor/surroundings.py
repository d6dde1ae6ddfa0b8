"""What an evaluation may change of its process and the next one would find: put back between two runs.

The working directory, the environment, and the standard streams: an evaluation that replaces, closes or redirects them,
or changes them for what it calls, does so for itself. What it sets in libraries (generators, torch's defaults) is its
own affair; the built-in evaluator sets all of these itself.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

_STREAMS = {"stdout": 1, "stderr": 2}


class Surroundings:
    """Make it when the evaluator is imported; call :meth:`flush` at the end of a run and :meth:`restore` after it."""

    def __init__(self) -> None:
        self._directory = os.getcwd()
        self._environment = dict(os.environ)
        # Copies that a run doesn't know of: whatever it does with 1 and 2, the way to the supervisor stays open.
        self._descriptors = {name: os.dup(number) for name, number in _STREAMS.items()}
        self._streams: dict[str, TextIO] = {name: getattr(sys, name) for name in _STREAMS}

    def flush(self) -> None:
        """Have in the pipe what was printed, by whichever stream."""
        for name, ours in self._streams.items():
            for stream in (getattr(sys, name), ours):
                # User code may have closed it, or put something there that is no stream.
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    stream.flush()

    def restore(self) -> None:
        """As it was before the run. A directory that is gone meanwhile is left where the process is."""
        if dict(os.environ) != self._environment:
            for name in os.environ.keys() - self._environment.keys():
                del os.environ[name]
            os.environ.update(self._environment)
        with contextlib.suppress(OSError):
            os.chdir(self._directory)
        for name, number in _STREAMS.items():
            os.dup2(self._descriptors[name], number)
            if self._streams[name].closed:
                self._streams[name] = _text_stream(number, self._streams[name])
                setattr(sys, f"__{name}__", self._streams[name])
            setattr(sys, name, self._streams[name])


def _text_stream(number: int, like: TextIO) -> TextIO:
    errors = like.errors or "backslashreplace"
    return io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(number, "w", closefd=False)),
        encoding=like.encoding,
        errors=errors,
        line_buffering=True,
    )
