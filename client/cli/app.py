"""The command tree of ``tenure``."""

from __future__ import annotations

import inspect

import typer

from tenure.client.cli import architecture, dead, searches, tasks, workers
from tenure.client.cli.demo import demo
from tenure.client.cli.fsck import fsck
from tenure.client.cli.master import master
from tenure.client.cli.stats import stats
from tenure.client.cli.version import version
from tenure.client.cli.worker import worker
from tenure.common.exits import exit_code_help

_HELP = f"""A fault-tolerant, persistent task broker for long-running machine-learning searches.

--master (or TENURE_MASTER) and --output json are options of every command that asks a master. Results go to stdout,
errors and progress to stderr.

\b
Examples:
  tenure demo
  tenure master
  tenure worker --master 127.0.0.1:50051
  tenure tasks submit --search first tasks.jsonl --wait

\b
Exit codes:
{exit_code_help()}
"""

_GROUPS = {
    "architecture": (
        architecture.app,
        "Check an architecture and estimate its cost, without a master.",
        "tenure architecture check network.json --input 1,28,28 --classes 10",
    ),
    "tasks": (
        tasks.app,
        "Submit, list, show, follow, cancel and requeue tasks.",
        "tenure tasks submit --search first tasks.jsonl\n  tenure tasks list --search first --state FAILED",
    ),
    "dead": (
        dead.app,
        "List, show and requeue dead letters: tasks that ended FAILED, with the evidence.",
        "tenure dead list --search first --error-class 'torch.*'\n  tenure dead requeue --search first --yes",
    ),
    "searches": (
        searches.app,
        "List, set, pause, resume, cancel and await searches.",
        "tenure searches list\n  tenure searches wait first",
    ),
    "workers": (
        workers.app,
        "List, drain, cordon and uncordon workers.",
        "tenure workers list\n  tenure workers drain gpu-box-7",
    ),
}

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    # An error of Tenure is one line; a traceback means a fault and is shown as Python shows it.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(master)
app.command()(worker)
for _name, (_group, _summary, _examples) in _GROUPS.items():
    app.add_typer(_group, name=_name, help=f"{_summary}\n\n\b\nExamples:\n  {_examples}")
app.command()(stats)
app.command()(fsck)
app.command()(version)


def _flowed(text: str) -> str:
    """A help text whose paragraphs are one line each, so that they wrap at the terminal's width, not at the source's.

    Paragraphs behind a ``\\b`` (examples, tables) keep their lines.
    """
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(part if part.startswith("\b") else " ".join(part.split("\n")) for part in paragraphs)


def _flow_help(tree: typer.Typer) -> None:
    for command in tree.registered_commands:
        assert command.callback is not None
        command.help = _flowed(command.callback.__doc__ or "")
    for group in tree.registered_groups:
        if group.typer_instance is not None:
            _flow_help(group.typer_instance)


app.info.help = _flowed(_HELP)
_flow_help(app)
