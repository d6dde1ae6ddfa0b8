"""``tenure master``: its options are the fields of MasterSettings; only what is given is passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def master(
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="H:P", help="Where workers and clients connect. Default: 127.0.0.1:50051."),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="H:P", help="/metrics, /healthz, /readyz. Default: 127.0.0.1:9151."),
    ] = None,
    console: Annotated[
        str | None,
        typer.Option(
            "--console",
            metavar="H:P|off",
            help="The web console; has no authentication, so leave it on loopback. Default: 127.0.0.1:9150.",
        ),
    ] = None,
    console_names: Annotated[
        str | None,
        typer.Option(
            "--console-names", metavar="NAME,…", help="Host names by which browsers call it, besides addresses."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="URL|embedded",
            help="redis://, rediss://, unix://, redis+sentinel://HOST:PORT,…/SERVICE or redis+cluster://HOST:PORT,… "
            "URL; embedded (the default) starts a Valkey of its own.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="The embedded store's. Default: ~/.local/share/tenure/master."),
    ] = None,
    durability: Annotated[
        str | None,
        typer.Option(
            "--durability",
            metavar="strict|relaxed",
            help="What is acknowledged is on disk, or within a second. Default: strict where the store can.",
        ),
    ] = None,
    store_replicas: Annotated[
        int | None,
        typer.Option(
            "--store-replicas",
            metavar="N",
            help="Replicas that must have a write before it is acknowledged. Default: 0.",
        ),
    ] = None,
    key_prefix: Annotated[
        str | None, typer.Option("--key-prefix", metavar="TEXT", help="First part of every key. Default: tenure.")
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards", metavar="N", help="Hash tags that searches are spread over; fixed. Default: 1, on a cluster 16."
        ),
    ] = None,
    store_memory_max_bytes: Annotated[
        int | None,
        typer.Option("--store-memory-max-bytes", metavar="N", help="Limit of the embedded store. Default: none."),
    ] = None,
    lease_ttl_seconds: Annotated[
        float | None,
        typer.Option("--lease-ttl-seconds", metavar="S", help="How long a silent worker keeps its tasks. Default: 30."),
    ] = None,
    heartbeat_seconds: Annotated[
        float | None, typer.Option("--heartbeat-seconds", metavar="S", help="How often workers renew. Default: 10.")
    ] = None,
    grace_seconds: Annotated[
        float | None,
        typer.Option("--grace-seconds", metavar="S", help="For a worker whose stream broke. Default: 2."),
    ] = None,
    tick_seconds: Annotated[
        float | None, typer.Option("--tick-seconds", metavar="S", help="Of the lease clock. Default: 0.5.")
    ] = None,
    retention_tasks: Annotated[
        int | None,
        typer.Option("--retention-tasks", metavar="N", help="Ended tasks kept a search and state. Default: 1000000."),
    ] = None,
    retention_days: Annotated[
        float | None, typer.Option("--retention-days", metavar="D", help="How long they are kept. Default: 90.")
    ] = None,
    retry_base_seconds: Annotated[
        float | None,
        typer.Option("--retry-base-seconds", metavar="S", help="Backoff after a first failure. Default: 1."),
    ] = None,
    retry_max_seconds: Annotated[
        float | None, typer.Option("--retry-max-seconds", metavar="S", help="The longest backoff. Default: 300.")
    ] = None,
    compression: Annotated[
        str | None, typer.Option("--compression", metavar="none|gzip", help="Of what is sent. Default: none.")
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option("--log-format", metavar="auto|json|console", help="Default: console on a terminal, else JSON."),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option("--log-level", metavar="debug|info|warning|error", help="Default: info."),
    ] = None,
    traces: Annotated[
        str | None,
        typer.Option(
            "--traces",
            metavar="auto|on|off",
            help="To OpenTelemetry. Default: auto, on where OTEL_EXPORTER_OTLP_ENDPOINT is set (docs/traces.md).",
        ),
    ] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option("--ready-file", metavar="FILE", help="Written once it serves: JSON with its addresses and pid."),
    ] = None,
) -> None:
    """Run a master until SIGTERM or Ctrl-C.

    It keeps nothing itself: everything is in the store, so it may be killed and started again at any time. Several
    masters may serve one store URL at once; one embedded data directory takes one master. Every option can also be
    given as TENURE_MASTER_LISTEN, TENURE_MASTER_DATA_DIR, … in the environment.

    \b
    Examples:
      tenure master
      tenure master --listen 0.0.0.0:50051 --data-dir /var/lib/tenure/master
      tenure master --store redis://store-1:6379/0 --durability strict --log-format json
      tenure master --store redis+sentinel://s-1:26379,s-2:26379,s-3:26379/tenure --store-replicas 1
    """
    given = dict(locals())
    from tenure.master.main import run
    from tenure.master.settings import load_settings

    raise typer.Exit(run(load_settings(**given)))
