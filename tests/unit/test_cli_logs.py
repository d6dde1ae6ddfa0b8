"""What evaluations print, as ``tenure tasks logs`` shows it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenure.client.cli.logs import _Printer
from tenure.client.logs import LogEnd, LogNote, LogOutput, LogRun
from tenure.client.records import Failure
from tenure.common.states import TaskState


def shown(capsys: pytest.CaptureFixture[str], *items: object) -> tuple[str, str]:
    printer = _Printer()
    for item in items:
        printer.show(item)  # type: ignore[arg-type]
    captured = capsys.readouterr()
    return captured.out, captured.err


def output(data: bytes, left_out_bytes: int = 0, recorded: bool = False) -> LogOutput:
    return LogOutput(1, data, left_out_bytes, recorded)


END = LogEnd(TaskState.SUCCEEDED, None, 0, 0)


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([b"plain\n"], "plain\n"),
        ([b"no end"], "no end\n"),
        ([b"caf\xc3", b"\xa9\n"], "café\n"),
        ([b"caf\xc3"], "caf\ufffd\n"),
        ([b"\x1b[1;31mred\x1b[0m\n"], "red\n"),
        ([b"\x1b[1;3", b"1mred\x1b", b"[0m\n"], "red\n"),
        ([b"\x1b]0;a title\x07text\n"], "text\n"),
        ([b"10%\r20%\r30%\n"], "10%\n20%\n30%\n"),
        ([b"dos\r", b"\nlines\r\n"], "dos\nlines\n"),
        ([b"bell\x07 null\x00\n"], "bell\ufffd null\ufffd\n"),
        ([b"\x9b31m\xff\n"], "\ufffd31m\ufffd\n"),
    ],
)
def test_output_becomes_harmless_text(pieces: list[bytes], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, *map(output, pieces), END)[0] == text


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_it_does_not_matter_where_it_is_cut(capsys: pytest.CaptureFixture[str], data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[first:last] for first, last in pairwise(edges)]
    whole, _ = shown(capsys, output(data), END)
    assert shown(capsys, *map(output, pieces), END)[0] == whole
    assert all(char.isprintable() or char in "\n\t\ufffd" for char in whole)


def test_remarks_stand_on_stderr_and_what_is_left_out_among_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    failure = Failure("RuntimeError", "no\x1b[31m", True)
    out, err = shown(
        capsys,
        LogRun(1, "w1", 1),
        output(b"half a li"),
        output(b"ne\n", left_out_bytes=12345),
        LogRun(2, "w2", 0),
        LogNote("why"),
        output(b"recorded", recorded=True),
        LogEnd(TaskState.FAILED, failure, 9, 0),
    )
    assert out == "half a li\n… 12,345 bytes left out\nne\nrecorded\n"
    assert err.splitlines() == [
        "--- epoch 1 on w1, attempt 1",
        "--- epoch 2 on w2",
        "--- why",
        "--- the last of its output, from the task's record",
        "--- the task is FAILED; RuntimeError: no\ufffd[31m; its last executor ended with signal 9",
    ]
