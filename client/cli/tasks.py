"""``tenure tasks``: submit, list, show, cancel, requeue; ``logs`` is in logs.py."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.client.cli.logs import logs
from tenure.client.cli.options import (
    TIMEOUT_SECONDS,
    CodeOption,
    EvaluatorOption,
    MasterOption,
    OutputOption,
    SearchOption,
    TaskIdsArgument,
    TimeoutOption,
    connect,
)
from tenure.client.cli.output import OutputFormat, ago, print_json, print_json_array, print_records, print_table
from tenure.common.errors import InvalidInput
from tenure.common.exits import ExitCode
from tenure.common.states import TaskState

if TYPE_CHECKING:
    from tenure.client import TaskRecord, TaskVerdict

app = typer.Typer(no_args_is_help=True)

StatesOption = Annotated[
    list[TaskState] | None,
    typer.Option(
        "--state", metavar="STATE", help="Only tasks in this state; may be given several times.", show_default=False
    ),
]


@app.command()
def submit(
    search: SearchOption,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines; - reads stdin.", show_default=False)],
    evaluator: EvaluatorOption = None,
    code: CodeOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the submitted tasks have ended.")] = False,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Submit the tasks in a file of JSON lines.

    A line is an object with "architecture" (MorphML's graph) and, if wanted, "config", "key", "priority",
    "max_attempts", "max_losses", "timeout_seconds", "progress_deadline_seconds", "delay_seconds" and
    "requirements". All lines are checked before any is sent: the file is read twice, stdin is kept in a
    temporary file meanwhile.

    Submitting the same file again changes nothing: a task is known by its key or, without one, by its content and
    by how often the same content stands above it in the file.

    With --evaluator, and --code for what it is in, the search's tasks are evaluated by a function of your own from now
    on: the code is uploaded once and shipped to workers that were started with --accept-code. Without a key of
    its own the same task with other code is another task; those that were submitted before keep theirs.

    Exit code 1 with --wait if any of the tasks ended without a result.

    \b
    Examples:
      tenure tasks submit --search first tasks.jsonl
      generate-tasks | tenure tasks submit --search first - --output json
      tenure tasks submit --search first tasks.jsonl --wait && echo all succeeded
      tenure tasks submit --search mine --evaluator my_package.train:evaluate --code ./my_package tasks.jsonl
    """
    from tenure.client.cli.submission import named_search, submit_file, wait_for_tasks

    with connect(master, timeout) as client:
        handles = submit_file(named_search(client, search, evaluator, code), file)
        created = sum(handle.created for handle in handles)
        if output is OutputFormat.JSON:
            tasks = [{"task_id": h.task_id, "key": h.key, "created": h.created} for h in handles]
            known = len(handles) - created
            print_json(
                {"search": search, "submitted": len(handles), "created": created, "known": known, "tasks": tasks}
            )
        else:
            known_note = f", {len(handles) - created} already known" if created < len(handles) else ""
            sys.stdout.write(f"submitted {len(handles)} tasks to search {search}: {created} new{known_note}\n")
        if wait and wait_for_tasks(client.search(search), handles):
            raise typer.Exit(ExitCode.NO)


@app.command("list")
def list_(
    search: SearchOption,
    state: StatesOption = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Most tasks to list.")] = 100,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """List the tasks of a search.

    \b
    Examples:
      tenure tasks list --search first
      tenure tasks list --search first --state FAILED
      tenure tasks list --search first --state QUEUED --state LEASED --limit 1000 --output json
    """
    with connect(master, timeout) as client:
        print_records(iter(client.tasks(search, state or ())), limit, output, _COLUMNS, _row, empty="no tasks")


@app.command()
def show(
    task_id: Annotated[str, typer.Argument(metavar="TASK", help="The task's id.", show_default=False)],
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Show a task: its state, result or failure, and how each of its leases ended.

    Exit signals and the last lines that an evaluation printed are there; --output json has the architecture, too.

    \b
    Examples:
      tenure tasks show 0-01jdq0c4m8f5y5r2b1y9x3v7kz
      tenure tasks show 0-01jdq0c4m8f5y5r2b1y9x3v7kz --output json | jq -r .architecture
    """
    from tenure.client.cli.task_page import print_task

    with connect(master, timeout) as client:
        record = client.task(task_id)
    if output is OutputFormat.JSON:
        print_json(record)
    else:
        print_task(record)


app.command()(logs)


@app.command()
def cancel(
    task_ids: TaskIdsArgument,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Cancel tasks: at once those that nobody holds; a worker that holds one is told to stop.

    Cancelling twice changes nothing. Exit code 1 if a task had ended before otherwise, 4 if one is unknown.

    \b
    Examples:
      tenure tasks cancel 0-01jdq0c4m8f5y5r2b1y9x3v7kz
      tenure tasks list --search first --state QUEUED --output json | jq -r '.[].task_id' | tenure tasks cancel -
    """
    with connect(master, timeout) as client:
        _report(client.cancel_tasks(ids_of(task_ids)), output)


@app.command()
def requeue(
    task_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TASK…]", help="Ids, or - to read them from stdin.", show_default=False),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option("--search", metavar="NAME", help="All FAILED tasks of this search instead.", show_default=False),
    ] = None,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Put FAILED or CANCELLED tasks back into the queue, with fresh budgets and their last checkpoint.

    A SUCCEEDED task, too, if the store can't read its result any more.

    Exit code 1 if a task is in another state, 4 if one is unknown.

    \b
    Examples:
      tenure tasks requeue 0-01jdq0c4m8f5y5r2b1y9x3v7kz
      tenure tasks requeue --search first
    """
    if bool(task_ids) == (search is not None):
        raise InvalidInput("name tasks, or one search", field="requeue", expected="TASK… or --search NAME")
    with connect(master, timeout) as client:
        if search is not None:
            failed = [record.task_id for record in client.tasks(search, [TaskState.FAILED])]
            _report(client.requeue_tasks(failed), output)
        else:
            _report(client.requeue_tasks(ids_of(task_ids or [])), output)


_COLUMNS = ("TASK", "KEY", "STATE", ">ATTEMPTS", ">LOSSES", "WORKER", ">PROGRESS", ">FITNESS", "SUBMITTED")
_KEY_CHARS = 24


def _row(record: TaskRecord) -> tuple[str, ...]:
    key = record.key if len(record.key) <= _KEY_CHARS else record.key[: _KEY_CHARS - 1] + "…"
    state = record.state.value + (" (cancel requested)" if record.cancel_requested else "")
    progress = ""
    if record.progress is not None and record.state is TaskState.LEASED:
        total = record.progress.total_steps
        progress = f"{record.progress.step}/{total}" if total else str(record.progress.step)
    fitness = record.metrics.get("fitness")
    return (
        record.task_id,
        key,
        state,
        f"{record.attempts}/{record.max_attempts}",
        f"{record.losses}/{record.max_losses}",
        record.worker_id,
        progress,
        "" if fitness is None else f"{fitness:.4f}",
        ago(record.submitted_unix_ms),
    )


def ids_of(arguments: Iterable[str]) -> Iterator[str]:
    """The task ids of a command line; ``-`` reads them from stdin."""
    from tenure.common.ids import check_id

    for argument in arguments:
        if argument == "-":
            yield from (check_id(line.strip(), "task_id") for line in sys.stdin if line.strip())
        else:
            yield check_id(argument, "task_id")


def _report(verdicts: list[TaskVerdict], output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_json_array(verdicts)
    else:
        rows = ((v.task_id, v.verdict, v.state.value if v.state else "") for v in verdicts)
        print_table(("TASK", "VERDICT", "STATE"), rows, empty="no tasks")
    said = {verdict.verdict for verdict in verdicts}
    if "unknown" in said:
        raise typer.Exit(ExitCode.NOT_FOUND)
    if "wrong_state" in said:
        raise typer.Exit(ExitCode.NO)
