"""``tenure tasks logs``: what an evaluation prints, as text that can't drive a terminal."""

from __future__ import annotations

import base64
import codecs
import json
import re
import sys
from typing import Annotated

import typer

from tenure.client.cli.options import TIMEOUT_SECONDS, MasterOption, OutputOption, TimeoutOption, connect
from tenure.client.cli.output import OutputFormat, plain, print_note, printable
from tenure.client.logs import LogEnd, LogItem, LogNote, LogOutput, LogRun
from tenure.common.exits import ExitCode
from tenure.common.states import TaskState

# Colours and cursor movements: ESC [ … letter, and the title of a window.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
# A part of one at the end of what has come so far.
_ESCAPE_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,200})?\Z")


def logs(
    task_id: Annotated[str, typer.Argument(metavar="TASK", help="The task's id.", show_default=False)],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the task has ended, wherever it runs.")
    ] = False,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Print what a task's evaluation prints, on stdout and stderr alike.

    Of a task that runs: the last of it as it is now, and with --follow whatever comes, until the task has ended.
    Of one that has ended: the last of the output that is kept. What the evaluation printed goes to stdout, everything
    about it to stderr: which run it is of, and how the task has ended. What was printed too fast is left out, with a
    line that says how much; the whole output of each run is in the worker's work directory.

    With --output json each item is a line of JSON, with the bytes in base64.

    Exit code 1 if a task that was followed ended without a result, 4 if there is no such task.

    \b
    Examples:
      tenure tasks logs 0-01jdq0c4m8f5y5r2b1y9x3v7kz
      tenure tasks logs --follow 0-01jdq0c4m8f5y5r2b1y9x3v7kz
      tenure tasks logs -f 0-01jdq0c4m8f5y5r2b1y9x3v7kz >output.txt && echo it succeeded
    """
    show = _print_json if output is OutputFormat.JSON else _Printer().show
    with connect(master, timeout) as client:
        for item in client.logs(task_id, follow=follow):
            show(item)
            sys.stdout.flush()
            if isinstance(item, LogEnd) and follow and item.state is not TaskState.SUCCEEDED:
                raise typer.Exit(ExitCode.NO)


class _Printer:
    """Bytes that come in pieces, as text: whole characters, lines for carriage returns, no control characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self._column = False

    def show(self, item: LogItem) -> None:
        """Print one item."""
        match item:
            case LogOutput():
                self._show_output(item)
            case LogRun():
                attempt = f", attempt {item.attempt}" if item.attempt else ""
                self._remark(f"--- epoch {item.epoch} on {item.worker_id}{attempt}")
            case LogNote():
                self._remark(f"--- {item.text}")
            case LogEnd():
                self._remark(f"--- {_ending(item)}")

    def _show_output(self, item: LogOutput) -> None:
        if item.recorded:
            self._remark("--- the last of its output, from the task's record")
        if item.left_out_bytes:
            self._finish_line()
            self._write(f"… {item.left_out_bytes:,} bytes left out\n")
        text = self._pending + self._decoder.decode(item.data)
        begun = _ESCAPE_BEGUN.search(text)
        self._pending = text[begun.start() :] if begun else ""
        if begun:
            text = text[: begun.start()]
        if text.endswith("\r") and not self._pending:
            # Half of a line's end, maybe.
            text, self._pending = text[:-1], "\r"
        self._write(printable(_ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")))

    def _remark(self, text: str) -> None:
        """A line on stderr, in its place among the lines on stdout."""
        self._finish_line()
        sys.stdout.flush()
        print_note(printable(text))

    def _finish_line(self) -> None:
        self._write(printable(self._pending.replace("\r", "\n") + self._decoder.decode(b"", final=True)))
        if self._column:
            self._write("\n")
        self._start_over()

    def _start_over(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self._column = False

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            self._column = not text.endswith("\n")


def _ending(end: LogEnd) -> str:
    text = f"the task is {end.state.value}"
    if end.failure is not None and end.state is not TaskState.SUCCEEDED:
        text += f"; {end.failure.error_class}: {end.failure.message}".rstrip(": ")
    if end.exit_signal or end.exit_code:
        what = f"signal {end.exit_signal}" if end.exit_signal else f"exit code {end.exit_code}"
        text += f"; its last executor ended with {what}"
    return text


def _print_json(item: LogItem) -> None:
    kind = type(item).__name__.removeprefix("Log").lower()
    if isinstance(item, LogOutput):
        fields = {
            "epoch": item.epoch,
            "data_base64": base64.b64encode(item.data).decode(),
            "left_out_bytes": item.left_out_bytes,
            "recorded": item.recorded,
        }
    else:
        fields = plain(item)
    sys.stdout.write(json.dumps({"kind": kind, **fields}, ensure_ascii=False) + "\n")
