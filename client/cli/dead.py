"""``tenure dead``: list, show, requeue dead letters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.client.cli.dead_letters import Wanted, find, parse_wanted, why_dead
from tenure.client.cli.options import TIMEOUT_SECONDS, MasterOption, OutputOption, TimeoutOption, connect
from tenure.client.cli.output import (
    OutputFormat,
    ago,
    print_json,
    print_json_array,
    print_note,
    print_pairs,
    print_records,
    printable,
)
from tenure.common.errors import InvalidInput, WrongState
from tenure.common.exits import ExitCode
from tenure.common.states import TaskState

if TYPE_CHECKING:
    from tenure.client import Client, TaskRecord, TaskVerdict

app = typer.Typer(no_args_is_help=True)

SearchOption = Annotated[
    str | None, typer.Option("--search", metavar="NAME", help="Only of this search.", show_default=False)
]
ErrorClassOption = Annotated[
    str | None,
    typer.Option(
        "--error-class",
        metavar="CLASS",
        help="Only with this class of last failure; may be a glob ('torch.*').",
        show_default=False,
    ),
]
WorkerOption = Annotated[
    str | None, typer.Option("--worker", metavar="WORKER", help="Only last held by this worker.", show_default=False)
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Only ended since: 30m, 2h, 7d ago, or an ISO date.", show_default=False
    ),
]


@app.command("list")
def list_(
    search: SearchOption = None,
    error_class: ErrorClassOption = None,
    worker: WorkerOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Most to list.")] = 100,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """List dead letters: tasks that ended FAILED, in the order in which they were submitted.

    JSON has no architectures, configurations and attempts here; `tenure dead show` has them.

    \b
    Examples:
      tenure dead list
      tenure dead list --search first --error-class 'torch.*' --since 2h
      tenure dead list --worker gpu-box-7 --limit 1000 --output json | jq -r '.[].task_id'
    """
    wanted = parse_wanted(search, error_class, worker, since)
    with connect(master, timeout) as client:
        print_records(find(client, wanted), limit, output, _COLUMNS, _row, empty="no dead letters")


@app.command()
def show(
    task_id: Annotated[str, typer.Argument(metavar="TASK", help="The task's id.", show_default=False)],
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Show a dead letter: why it died, how each of its leases ended, and what a requeue would go on from.

    Each lease has its worker, epoch, times, exit signal, error and last lines of output.

    \b
    Examples:
      tenure dead show 0-01jdq0c4m8f5y5r2b1y9x3v7kz
    """
    from tenure.client.cli.task_page import print_task

    with connect(master, timeout) as client:
        record = client.task(task_id)
    if record.state is not TaskState.FAILED:
        raise WrongState(
            f"is no dead letter: it is {record.state}",
            field="TASK",
            given=task_id,
            expected="`tenure tasks show` shows any task",
        )
    if output is OutputFormat.JSON:
        print_json(record)
        return
    from_step = f"the checkpoint of step {record.checkpoint.step}" if record.checkpoint else "nothing: it has none"
    print_pairs([("died because", why_dead(record)), ("requeued, it starts from", from_step)])
    sys.stdout.write("\n")
    print_task(record)


@app.command()
def requeue(
    task_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TASK…]", help="Ids, or - to read them from stdin.", show_default=False),
    ] = None,
    search: SearchOption = None,
    error_class: ErrorClassOption = None,
    worker: WorkerOption = None,
    since: SinceOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every dead letter of every search.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Most to requeue.", show_default="no limit")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask before requeueing all that match.")] = False,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Put dead letters back into the queue, with fresh budgets and their last checkpoint.

    Name tasks, or say by options which are meant; these are asked about first, unless --yes is given. Requeueing twice
    changes nothing. Exit code 1 if a task is in another state, 4 if one is unknown.

    \b
    Examples:
      tenure dead requeue 0-01jdq0c4m8f5y5r2b1y9x3v7kz
      tenure dead requeue --search first --error-class 'torch.*' --dry-run
      tenure dead requeue --worker gpu-box-7 --since 2h --yes
    """
    from tenure.client.cli.tasks import ids_of

    wanted = parse_wanted(search, error_class, worker, since)
    if bool(task_ids) + (not wanted.anything) + every != 1:
        raise InvalidInput(
            "say which, in one way", field="requeue", expected="TASK…, or options such as --search NAME, or --all"
        )
    with connect(master, timeout) as client:
        ids = ids_of(task_ids) if task_ids else (record.task_id for record in find(client, wanted))
        ids = islice(ids, limit)
        if dry_run:
            _print_dry_run(ids, output)
            return
        if not task_ids and not yes:
            _ask(wanted)
        _report(_requeue(client, ids), output)


def _ask(wanted: Wanted) -> None:
    if not sys.stdin.isatty():
        raise InvalidInput("nobody can be asked", field="requeue", expected="give --yes, or --dry-run to see which")
    typer.confirm(f"Requeue the dead letters {wanted}?", abort=True, err=True)


def _requeue(client: Client, ids: Iterator[str]) -> Iterator[TaskVerdict]:
    """In batches, as they are found: none is waited for, and what is done is done should this be stopped."""
    from tenure.client.calls import batches
    from tenure.client.cli.progress import Counter

    done = 0
    with Counter("requeueing", 0) as counter:
        for batch in batches(ids):
            yield from client.requeue_tasks(batch)
            done += len(batch)
            counter.advance_to(done, total=done)


def _print_dry_run(ids: Iterator[str], output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_json_array({"task_id": task_id, "verdict": "would_requeue"} for task_id in ids)
        return
    count = 0
    for count, task_id in enumerate(ids, start=1):  # noqa: B007 - the last count is the number of all
        sys.stdout.write(f"{task_id}\n")
    print_note(f"{count} would be requeued; nothing was changed")


def _report(verdicts: Iterator[TaskVerdict], output: OutputFormat) -> None:
    said: dict[str, int] = {}

    def counted() -> Iterator[TaskVerdict]:
        for verdict in verdicts:
            said[verdict.verdict] = said.get(verdict.verdict, 0) + 1
            yield verdict

    if output is OutputFormat.JSON:
        print_json_array(counted())
    else:
        for verdict in counted():
            if verdict.verdict != "ok":
                print_note(f"{verdict.task_id}: {verdict.verdict}" + (f", {verdict.state}" if verdict.state else ""))
        sys.stdout.write(f"requeued {said.get('ok', 0)} of {sum(said.values())}\n")
    if "unknown" in said:
        raise typer.Exit(ExitCode.NOT_FOUND)
    if "wrong_state" in said:
        raise typer.Exit(ExitCode.NO)


_COLUMNS = ("TASK", "SEARCH", "ERROR", "MESSAGE", ">ATTEMPTS", ">LOSSES", ">OOM", "LAST WORKER", "ENDED")
_MESSAGE_CHARS = 48


def _row(record: TaskRecord) -> tuple[str, ...]:
    message = printable(" ".join(record.failure.message.split())) if record.failure else ""
    return (
        record.task_id,
        record.search,
        record.failure.error_class if record.failure else "",
        message if len(message) <= _MESSAGE_CHARS else message[: _MESSAGE_CHARS - 1] + "…",
        f"{record.attempts}/{record.max_attempts}",
        f"{record.losses}/{record.max_losses}",
        f"{record.out_of_memory}/{record.max_out_of_memory}",
        record.worker_id,
        ago(record.ended_unix_ms),
    )
