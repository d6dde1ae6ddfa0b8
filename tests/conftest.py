"""What holds for every test."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

import pytest
import structlog

# What a script starts in the background ignores Ctrl-C, and so does all that is started from there: tests that send it
# would wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """How many processes ``-n auto`` means: tests that wait for real processes leave time on every core."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Code under test may set up logs for its process; pytest closes the streams that they then write to."""
    root, client = logging.getLogger(), logging.getLogger("tenure.client")
    handlers, level, client_level = root.handlers[:], root.level, client.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)
    client.setLevel(client_level)
