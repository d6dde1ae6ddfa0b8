"""Every line of a Tenure process is one JSON object, whoever wrote it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tenure.common.logs import json_text

PROLOGUE = """
import asyncio, logging, sys, threading, warnings
import structlog
from tenure.common.logs import bind_process, configure_logs
configure_logs("worker", "json", "info")
bind_process(worker="w1")
log = structlog.get_logger()
"""


def lines(program: str) -> list[dict[str, Any]]:
    """What a process that does this writes to stderr; anything that is no JSON object fails."""
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + program], capture_output=True, text=True, timeout=60, check=False
    )

    def constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    parsed = [json.loads(line, parse_constant=constant) for line in done.stderr.splitlines()]
    assert all(isinstance(line, dict) for line in parsed)
    assert all(line["component"] == "worker" and line["worker"] == "w1" and line["timestamp"] for line in parsed)
    return parsed


def test_what_is_logged_with_odd_values_is_json() -> None:
    (line,) = lines(
        "a = []; a.append(a)\n"
        "log.info('x.y', loss=float('nan'), worst=float('-inf'), path={1: {2}}, cycle=a, text='\\ud800\\n', task='t')\n"
    )
    assert (line["event"], line["level"], line["task"]) == ("x.y", "info", "t")
    assert (line["loss"], line["worst"], line["path"]) == ("nan", "-inf", {"1": [2]})


def test_lines_of_libraries_and_warnings_are_json() -> None:
    grpc, redis, warning = lines(
        "logging.getLogger('grpc._server').error('broke: %s', 'it')\n"
        "logging.getLogger('redis.client').info('not worth a line')\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.getLogger('redis.client').exception('in a command')\n"
        "warnings.warn('two\\nlines')\n"
    )
    assert (grpc["logger"], grpc["event"], grpc["level"]) == ("grpc._server", "broke: it", "error")
    assert redis["logger"] == "redis.client"
    assert redis["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert warning["logger"] == "py.warnings"
    assert "UserWarning: two\nlines" in warning["event"]


def test_exceptions_that_nobody_caught_are_json_without_the_values_of_variables() -> None:
    in_task, in_thread, ignored, crashed = lines(
        "class Bad:\n    def __del__(self):\n        raise KeyError('at the end')\n"
        "def work():\n    password = 'hunter2'\n    raise RuntimeError('in a thread')\n"
        "async def main():\n"
        "    broken = {'message': 'a task broke', 'exception': OSError('x')}\n"
        "    asyncio.get_running_loop().call_exception_handler(broken)\n"
        "asyncio.run(main())\n"
        "thread = threading.Thread(target=work, name='worker-7'); thread.start(); thread.join()\n"
        "bad = Bad(); del bad\n"
        "raise ValueError('at the top')\n"
    )
    assert (in_task["logger"], in_task["event"]) == ("asyncio", "a task broke")
    assert (in_thread["event"], in_thread["thread"]) == ("thread.crashed", "worker-7")
    assert "hunter2" not in json.dumps(in_thread)
    assert ignored["event"] == "exception.ignored"
    assert (crashed["event"], crashed["level"]) == ("process.crashed", "critical")
    assert crashed["exception"][0]["exc_value"] == "at the top"


def test_a_library_that_repeats_itself_gets_a_line_a_minute() -> None:
    """Also when it repeats itself more often than that, for as long as it likes: every five seconds of ten minutes."""
    *repeated, other = lines(
        "import time\n"
        "now = time.monotonic()\n"
        "time.monotonic = lambda: now\n"
        "for beat in range(120):\n"
        "    logging.getLogger('opentelemetry.exporter').error('refused at %s', beat * 5)\n"
        "    now += 5\n"
        "logging.getLogger('other').error('said')\n"
    )
    assert [line["event"] for line in repeated] == [f"refused at {second}" for second in range(0, 600, 60)]
    assert other["event"] == "said"


@pytest.mark.parametrize("depth", [3, 50])
def test_deep_values_are_cut_off(depth: int) -> None:
    value: Any = float("nan")
    for _ in range(depth):
        value = {"in": value}
    assert json.loads(json_text({"event": "x", "value": value}))["event"] == "x"
