"""Holds Ctrl-C and hang-ups back while something is on its way that must not be left half done."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and hang-ups back: between stopping and starting nobody else knows the command line."""
    held: list[int] = []

    def hold(number: int, frame: object) -> None:
        held.append(number)
        sys.stderr.write("will stop after this step\n")

    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        _interrupt()


@contextlib.contextmanager
def finishing(what: str) -> Iterator[None]:
    """Let the first Ctrl-C or hang-up stop only afterwards, so that what was begun is back; the next one stops at once,
    if it isn't held back (:func:`undisturbed`).
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt
        sys.stderr.write(f"finishing {what}, which is on its way, then will stop; Ctrl-C again leaves it\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        _interrupt()


def _interrupt() -> None:
    """What Ctrl-C does now that it is held back no more."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, None)
