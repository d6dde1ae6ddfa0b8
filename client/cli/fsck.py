"""``tenure fsck``: through a master, or on a store that no master serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tenure.client.broker_records import FsckReport
from tenure.client.cli.options import TIMEOUT_SECONDS, MasterOption, OutputOption, TimeoutOption, connect
from tenure.client.cli.output import OutputFormat, print_json, print_note, print_pairs
from tenure.common.exits import ExitCode


def fsck(
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="URL|embedded",
            help="Check this store itself, without a master.",
            show_default=False,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Of the embedded store.", show_default=False),
    ] = None,
    key_prefix: Annotated[
        str, typer.Option("--key-prefix", metavar="TEXT", help="With --store: first part of every key.")
    ] = "tenure",
    shards: Annotated[
        int,
        typer.Option("--shards", metavar="N", min=0, help="With --store: its number of shards, if it was chosen."),
    ] = 0,
    repair_aof: Annotated[
        bool,
        typer.Option(
            "--repair-aof",
            help="Cut the embedded store's damaged file at its first damaged record (a copy is kept), then check.",
        ),
    ] = False,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Prove that the store's indexes and tasks agree. Changes nothing but what --repair-aof does.

    Exit code 1 if they don't; each violation is one sentence.

    \b
    Examples:
      tenure fsck
      tenure fsck --store redis://store-1:6379/0
      tenure fsck --store embedded --data-dir /var/lib/tenure/master
      tenure fsck --repair-aof --data-dir /var/lib/tenure/master
    """
    if repair_aof:
        if store not in (None, "embedded"):
            raise typer.BadParameter("only the embedded store's file can be repaired", param_hint="--repair-aof")
        store = "embedded"
        print_note(_repair(data_dir))
    if store is None:
        with connect(master, timeout) as client:
            report = client.fsck()
    else:
        report = _check_store(store, data_dir, key_prefix, shards)
    if output is OutputFormat.JSON:
        print_json(report)
    else:
        print_pairs(
            [
                ("tasks checked", str(report.tasks_checked)),
                ("violations", str(len(report.violations))),
                *(("violation", violation) for violation in report.violations),
            ]
        )
    if report.violations:
        raise typer.Exit(ExitCode.NO)


def _repair(data_dir: Path | None) -> str:
    from tenure.common import paths
    from tenure.master.store.repair import repair_append_only_file

    return repair_append_only_file(data_dir or paths.master_data_dir())


def _check_store(url: str, data_dir: Path | None, key_prefix: str, shards: int) -> FsckReport:
    import asyncio

    from tenure.common import paths
    from tenure.common.logs import configure_logs
    from tenure.master.store import StoreOptions, open_store

    configure_logs("cli", "console", "error")
    options = StoreOptions(url=url, data_dir=data_dir or paths.master_data_dir(), prefix=key_prefix, shards=shards)

    async def check() -> FsckReport:
        opened = await open_store(options)
        try:
            checked, violations = await opened.fsck.run()
        finally:
            await opened.close()
        return FsckReport(checked, tuple(violations))

    return asyncio.run(check())
