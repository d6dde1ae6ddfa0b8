"""Options that many commands share, and the client they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tenure.client.cli.output import OutputFormat

if TYPE_CHECKING:
    from tenure.client import Client

TIMEOUT_SECONDS = 30.0

MasterOption = Annotated[
    str | None,
    typer.Option(
        "--master",
        envvar="TENURE_MASTER",
        metavar="H:P[,H:P…]",
        help="Masters to ask; the next is tried when one doesn't answer. Default: 127.0.0.1:50051.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    OutputFormat,
    typer.Option("--output", metavar="table|json", help="For people, or one JSON document on stdout for programs."),
]
TimeoutOption = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", help="How long to look for a master that answers."),
]
SearchOption = Annotated[str, typer.Option("--search", metavar="NAME", help="The search.")]
EvaluatorOption = Annotated[
    str | None,
    typer.Option(
        "--evaluator",
        metavar="MODULE:FUNCTION",
        help="What evaluates the search's tasks from now on; default: the workers' own.",
        show_default=False,
    ),
]
CodeOption = Annotated[
    str | None,
    typer.Option(
        "--code",
        metavar="PATH",
        help="What the evaluator is in, shipped to the workers: a directory, a module or a wheel.",
        show_default=False,
    ),
]
SearchArgument = Annotated[str, typer.Argument(metavar="NAME", help="The search.", show_default=False)]
WorkerArgument = Annotated[str, typer.Argument(metavar="WORKER", help="The worker's id.", show_default=False)]
TaskIdsArgument = Annotated[
    list[str], typer.Argument(metavar="TASK…", help="Ids, or - to read them from stdin.", show_default=False)
]


def connect(master: str | None, timeout: float) -> Client:
    """A client for one command."""
    from tenure.client import Client

    return Client(master, timeout_seconds=timeout)
