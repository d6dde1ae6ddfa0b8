"""``tenure searches``: list, show, set, pause, resume, cancel, wait."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tenure.client.cli.compute import compute_pairs
from tenure.client.cli.options import (
    TIMEOUT_SECONDS,
    CodeOption,
    EvaluatorOption,
    MasterOption,
    OutputOption,
    SearchArgument,
    TimeoutOption,
    connect,
)
from tenure.client.cli.output import (
    OutputFormat,
    ago,
    clock,
    print_json,
    print_json_array,
    print_pairs,
    print_table,
    span,
)
from tenure.common.errors import InvalidInput
from tenure.common.exits import ExitCode
from tenure.common.retry import RetryPolicy
from tenure.common.states import TaskState

if TYPE_CHECKING:
    from tenure.client import SearchStatus

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_(
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """List the searches with their numbers of tasks.

    \b
    Examples:
      tenure searches list
      tenure searches list --output json | jq -r '.[] | select(.status == "active") | .name'
    """
    with connect(master, timeout) as client:
        searches = client.searches()
    if output is OutputFormat.JSON:
        print_json_array(searches)
        return
    columns = ("SEARCH", "STATUS", ">PRIORITY", ">WEIGHT", *(f">{state.value}" for state in TaskState), ">BEST")
    print_table(columns, (_row(search) for search in searches), empty="no searches")


@app.command()
def show(
    name: SearchArgument,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Show a search: settings, numbers of tasks, the best result so far.

    \b
    Examples:
      tenure searches show first
      tenure searches show first --output json | jq .best_fitness
    """
    with connect(master, timeout) as client:
        _print(client.search(name).status(), output)


@app.command("set")
def set_(
    name: SearchArgument,
    priority: Annotated[
        int | None,
        typer.Option("--priority", metavar="N", help="-100 to 100; higher is served first.", show_default=False),
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option("--weight", metavar="X", help="0.01 to 100; share among equal priorities.", show_default=False),
    ] = None,
    max_leased: Annotated[
        int | None,
        typer.Option(
            "--max-leased",
            metavar="N",
            help="No task is given out while so many are leased; 0 = no limit.",
            show_default=False,
        ),
    ] = None,
    architecture_format: Annotated[
        str | None,
        typer.Option(
            "--architecture-format",
            metavar="graph|json",
            help="graph: MorphML's, checked at submit; json: any, for evaluators of your own.",
            show_default=False,
        ),
    ] = None,
    retry: Annotated[
        str | None,
        typer.Option(
            "--retry",
            metavar="JSON|default",
            help="Retry policy, replacing the one before; default: the master's settings.",
            show_default=False,
        ),
    ] = None,
    evaluator: EvaluatorOption = None,
    code: CodeOption = None,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Create a search, or change its settings; what is not given stays as it is.

    A retry policy is an object with "base_ms", "max_ms", "multiplier", "jitter" (none, full, equal) and "rules", of
    which the first that matches an error's class wins: "error_class" (a name or a glob) and, if wanted, "retryable",
    "max_attempts" (a budget of its own) and a backoff of its own. InvalidArchitecture and PayloadDamaged are never
    retried.

    An evaluator of your own, and the code that it is in, hold for tasks submitted from now on. Workers run it that were
    started with --accept-code.

    \b
    Examples:
      tenure searches set first --weight 2
      tenure searches set mine --evaluator my_package.train:evaluate --code ./my_package
      tenure searches set mine --evaluator default
      tenure searches set urgent --priority 10 --max-leased 8
      tenure searches set mine --architecture-format json
      tenure searches set first --retry '{"base_ms": 5000, "rules": [{"error_class": "torch.*", "retryable": false}]}'
      tenure searches set first --retry default
    """
    with connect(master, timeout) as client:
        status = client.search(name).put(
            priority=priority,
            weight=weight,
            max_leased=max_leased,
            architecture_format=architecture_format,
            retry=_retry(retry),
            evaluator=evaluator,
            code=code,
        )
        _print(status, output)


@app.command()
def pause(
    name: SearchArgument,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Give out no more tasks of a search until it is resumed; those that run, run on.

    \b
    Examples:
      tenure searches pause first
    """
    with connect(master, timeout) as client:
        _print(client.search(name).pause(), output)


@app.command()
def resume(
    name: SearchArgument,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Let a paused or cancelled search go on.

    \b
    Examples:
      tenure searches resume first
    """
    with connect(master, timeout) as client:
        _print(client.search(name).resume(), output)


@app.command()
def cancel(
    name: SearchArgument,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Cancel every task of a search that has not ended; it takes no new ones until it is resumed.

    \b
    Examples:
      tenure searches cancel first
    """
    with connect(master, timeout) as client:
        _print(client.search(name).cancel_search(), output)


@app.command()
def wait(
    name: SearchArgument,
    wait_seconds: Annotated[
        float | None,
        typer.Option(
            "--wait-seconds", metavar="SECONDS", min=0, help="Give up waiting after this long.", show_default="never"
        ),
    ] = None,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Wait until no task of a search is open, with progress on stderr.

    Once the search was found, masters may come and go meanwhile, for any length of time. Exit code 0 if no task is
    FAILED then, 1 if any is, 6 if the wait was given up.

    \b
    Examples:
      tenure searches wait first
      tenure searches wait first --wait-seconds 3600 --output json | jq .tasks
    """
    from tenure.client.cli.progress import Counter

    with connect(master, timeout) as client:
        search = client.search(name)
        status = search.status()
        with Counter(f"waiting for {name}", status.total) as counter:

            def progress(now: SearchStatus) -> None:
                failed = now.tasks[TaskState.FAILED]
                note = f"({now.tasks[TaskState.LEASED]} running{f', {failed} failed' if failed else ''})"
                counter.advance_to(now.total - now.open, total=now.total, note=note)

            status = search.wait(wait_seconds, progress)
    _print(status, output)
    if status.tasks[TaskState.FAILED]:
        raise typer.Exit(ExitCode.NO)


def _retry(text: str | None) -> RetryPolicy | Literal["default"] | None:
    if text is None:
        return None
    if text == "default":
        return "default"
    try:
        return RetryPolicy.from_plain(json.loads(text))
    except ValueError as error:
        expected = 'an object such as {"base_ms": 5000}, or default'
        raise InvalidInput(f"is not JSON: {error}", field="retry", given=text, expected=expected) from None


def _row(search: SearchStatus) -> tuple[str, ...]:
    return (
        search.name,
        search.status,
        str(search.priority),
        f"{search.weight:g}",
        *(str(search.tasks[state]) for state in TaskState),
        "" if search.best_fitness is None else f"{search.best_fitness:.4f}",
    )


def _print(search: SearchStatus, output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_json(search)
        return
    best = "" if search.best_fitness is None else f"{search.best_fitness:.6g}, task {search.best_task_id}"
    numbers = ", ".join(f"{number} {state.value}" for state, number in search.tasks.items() if number)
    print_pairs(
        [
            ("search", search.name),
            ("status", search.status),
            ("tasks", numbers or "none"),
            ("best fitness", best),
            ("priority", str(search.priority)),
            ("weight", f"{search.weight:g}"),
            ("max leased", str(search.max_leased) if search.max_leased else "no limit"),
            ("architectures", search.architecture_format),
            ("evaluator", search.evaluator),
            ("code", search.code),
            ("retry", json.dumps(search.retry.to_plain()) if search.retry else ""),
            *compute_pairs(search.compute),
            ("created", f"{clock(search.created_unix_ms)} ({ago(search.created_unix_ms)})"),
            ("oldest queued", span(search.oldest_queued_ms) if search.oldest_queued_ms else ""),
            ("last ended", ago(search.last_ended_unix_ms)),
        ]
    )
    sys.stdout.flush()
