"""Holds Ctrl-C and hang-ups back while something is on its way that must not be left half done."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def all_alike() -> Iterator[None]:
    """Have SIGTERM and hang-ups do what Ctrl-C does: whoever is stopped by them has something to say, too."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with _handling(interrupt):
        yield


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and hang-ups back: between stopping and starting nobody else knows the command line."""
    held: list[int] = []

    def hold(number: int, frame: object) -> None:
        held.append(number)
        sys.stderr.write("will stop after this step\n")

    with _handling(hold):
        yield
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

    with _handling(ask):
        yield
    if asked:
        _interrupt()


@contextlib.contextmanager
def _handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and hang-ups come here; what whoever started us had us ignore (``nohup``) stays ignored.
    In another thread than the main one, which is where they come, nothing changes."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in heeded if in_main_thread}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _interrupt() -> None:
    """What Ctrl-C does now that it is held back no more."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, None)
