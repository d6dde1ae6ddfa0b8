#!/usr/bin/env python3
"""Write docs/cli.md from the command tree of ``tenure``; ``--check`` tells whether it is up to date.

.venv/bin/python scripts/generate_cli_docs.py            # write
.venv/bin/python scripts/generate_cli_docs.py --check    # exit code 1 and a diff if it is stale
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from tenure.client.cli.app import app
from tenure.common.exits import EXIT_CODE_MEANING

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"

HEAD = """# Command line

<!-- Made by scripts/generate_cli_docs.py from the commands themselves; CI checks that it is up to date. -->

`tenure` does everything that an author of searches or an operator needs. Results go to stdout, errors and progress to
stderr; an error is one line, `error: field: what is wrong (given: …); what would be right`.

From Python: [client.md](client.md).

- `--master H:P[,H:P…]`, or `TENURE_MASTER`, names the masters to ask (default 127.0.0.1:50051); the next is tried when
  one doesn't answer. `--timeout` says for how long.
- `--output json` prints one JSON document: an object for one thing, an array for a list. Field names are those of
  `proto/tenure.proto`; times `*_unix_ms` are Unix time in milliseconds.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, _exit_codes()]
    parts += (_section(names, command) for names, command in _commands(typer.main.get_command(app), ("tenure",)))
    return "\n".join(parts)


def _exit_codes() -> str:
    rows = "\n".join(f"| {code.value} | {code.name} | {meaning} |" for code, meaning in EXIT_CODE_MEANING.items())
    return f"## Exit codes\n\n| code | name | meaning |\n| ---: | --- | --- |\n{rows}\n"


def _commands(command: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, in the order of the help."""
    for name, child in getattr(command, "commands", {}).items():
        if getattr(child, "commands", None):
            yield from _commands(child, (*names, name))
        else:
            yield (*names, name), child


def _section(names: tuple[str, ...], command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join([*names, "[OPTIONS]", *(_metavar(argument) for argument in arguments)])
    parts = [f"## {' '.join(names)}\n", f"```text\n{usage}\n```\n", *_help(command.help or "")]
    rows = [(_metavar(argument), argument.help) for argument in arguments]
    rows += [(_spelling(option), _meaning(option)) for option in options if option.name != "help"]
    table = "\n".join(f"| {_cell(f'`{name}`')} | {_cell(meaning or '')} |" for name, meaning in rows)
    if table:
        parts.append(f"| | |\n| --- | --- |\n{table}\n")
    return "\n".join(parts)


def _help(text: str) -> Iterator[str]:
    """Paragraphs; what stands behind a ``\\b`` (the examples) as a block."""
    for paragraph in text.strip().split("\n\n"):
        if not paragraph.startswith("\b"):
            yield f"{paragraph}\n"
            continue
        title, *lines = paragraph.removeprefix("\b\n").split("\n")
        yield f"{title}\n"
        yield "```console\n" + "\n".join(f"$ {line.strip()}" for line in lines) + "\n```\n"


def _metavar(parameter: Any) -> str:
    return parameter.metavar or parameter.name.upper()


def _spelling(option: Any) -> str:
    spelled = ", ".join([*option.opts, *option.secondary_opts])
    # What takes a value has a metavar; a flag has none.
    return f"{spelled} {option.metavar}" if option.metavar else spelled


def _meaning(option: Any) -> str:
    text = str(option.help or "")
    if option.required:
        return f"{text} Required."
    default = option.default
    if isinstance(option.show_default, str):
        return f"{text} Default: {option.show_default}."
    if option.show_default and default is not None and option.metavar:
        return f"{text} Default: {getattr(default, 'value', default)}."
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if the page is stale")
    arguments = parser.parse_args()
    fresh = page()
    if not arguments.check:
        PAGE.write_text(fresh)
        return 0
    kept = PAGE.read_text() if PAGE.exists() else ""
    if kept == fresh:
        return 0
    diff = difflib.unified_diff(kept.splitlines(True), fresh.splitlines(True), "docs/cli.md", "the commands")
    sys.stdout.writelines(diff)
    sys.stdout.write("\ndocs/cli.md is stale: run scripts/generate_cli_docs.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
