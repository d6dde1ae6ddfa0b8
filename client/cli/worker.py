"""``tenure worker``: its options are the fields of WorkerSettings; only what is given is passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def worker(
    master: Annotated[
        str | None,
        typer.Option(
            "--master",
            envvar="TENURE_MASTER",
            metavar="H:P[,H:P…]",
            help="Masters of one store. Default: 127.0.0.1:50051.",
            show_default=False,
        ),
    ] = None,
    worker_id: Annotated[
        str | None,
        typer.Option("--worker-id", metavar="ID", help="Default: made of the host's name, kept in the work directory."),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option("--slots", metavar="N", help="Tasks at once. Default: one for each GPU, one without GPUs."),
    ] = None,
    gpus_per_slot: Annotated[
        int | None,
        typer.Option("--gpus-per-slot", metavar="N", help="For tasks that require several GPUs. Default: 1."),
    ] = None,
    slot_gpus: Annotated[
        str | None,
        typer.Option("--slot-gpus", metavar="GPU[,GPU…][/…]", help="The GPUs of each slot by name: 0,1/2,3."),
    ] = None,
    cpu_ranks_per_slot: Annotated[
        int | None,
        typer.Option(
            "--cpu-ranks-per-slot", metavar="N", help="Without GPUs: the CPU stands for N of them. Default: for none."
        ),
    ] = None,
    xids_ignored: Annotated[
        str | None,
        typer.Option("--xids-ignored", metavar="XID[,XID…]", help="GPU errors that cordon no slot, beside the usual."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="H:P", help="Where WorkerService listens. Default: 127.0.0.1:50052."),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option("--advertise", metavar="H:P", help="What a pushing master is told to call. Default: --listen."),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="H:P", help="/metrics, /healthz, /readyz. Default: 127.0.0.1:9152."),
    ] = None,
    evaluator: Annotated[
        str | None,
        typer.Option(
            "--evaluator",
            metavar="MODULE:FUNCTION",
            help="What evaluates a task. Default: tenure.worker.torch_eval:evaluate. For searches in seconds: "
            "tenure.worker.replay:nasbench201.",
        ),
    ] = None,
    accept_code: Annotated[
        bool | None,
        typer.Option(
            "--accept-code/--no-accept-code",
            help="Let tasks name their evaluator, and bring its code: whoever may submit runs anything as this user."
            " Default: no.",
            show_default=False,
        ),
    ] = None,
    python_path: Annotated[
        str | None,
        typer.Option("--python-path", metavar="DIR[:DIR…]", help="Where the evaluator's modules are."),
    ] = None,
    work_dir: Annotated[
        Path | None,
        typer.Option("--work-dir", metavar="DIR", help="Spool and scratch. Default: ~/.local/share/tenure/workers/ID."),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            "--checkpoints",
            metavar="URL",
            help="Where checkpoints go, for all workers of a search. Default: ~/.local/share/tenure/checkpoints.",
        ),
    ] = None,
    checkpoint_overhead: Annotated[
        float | None,
        typer.Option(
            "--checkpoint-overhead",
            metavar="SHARE",
            help="Of a training's time, at most, for checkpoints by themselves; 0: none. Default: 0.01.",
        ),
    ] = None,
    dispatch: Annotated[
        str | None,
        typer.Option(
            "--dispatch",
            metavar="pull|push",
            help="pull (the default) for Tenure, push for MorphML masters.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar="NAME=VALUE[,…]", help="What tasks may require."),
    ] = None,
    drain_grace_seconds: Annotated[
        float | None,
        typer.Option("--drain-grace-seconds", metavar="S", help="From SIGTERM until it gives up. Default: 60."),
    ] = None,
    preemption_grace_seconds: Annotated[
        float | None,
        typer.Option("--preemption-grace-seconds", metavar="S", help="The same from a preemption notice. Default: 25."),
    ] = None,
    preemption_file: Annotated[
        Path | None,
        typer.Option("--preemption-file", metavar="FILE", help="Its appearance is a preemption notice."),
    ] = None,
    preemption_url: Annotated[
        str | None,
        typer.Option("--preemption-url", metavar="URL", help="Asked; 200 and --preemption-match is a notice."),
    ] = None,
    preemption_headers: Annotated[
        str | None,
        typer.Option("--preemption-headers", metavar="NAME: VALUE[,…]", help="Sent to the URL."),
    ] = None,
    preemption_match: Annotated[
        str | None,
        typer.Option("--preemption-match", metavar="REGEX", help="What a notice contains. Default: anything."),
    ] = None,
    preemption_token_url: Annotated[
        str | None,
        typer.Option("--preemption-token-url", metavar="URL", help="Where AWS's IMDSv2 gives tokens."),
    ] = None,
    preemption_poll_seconds: Annotated[
        float | None,
        typer.Option("--preemption-poll-seconds", metavar="S", help="How often to look. Default: 5."),
    ] = None,
    stop_grace_seconds: Annotated[
        float | None,
        typer.Option("--stop-grace-seconds", metavar="S", help="For an evaluation that is told to stop. Default: 5."),
    ] = None,
    start_timeout_seconds: Annotated[
        float | None,
        typer.Option("--start-timeout-seconds", metavar="S", help="To import the evaluator in. Default: 300."),
    ] = None,
    tasks_per_executor: Annotated[
        int | None,
        typer.Option("--tasks-per-executor", metavar="N", help="Then it is replaced. Default: never."),
    ] = None,
    executor_leak_max: Annotated[
        str | None,
        typer.Option(
            "--executor-leak-max",
            metavar="SIZE|PERCENT",
            help="Host memory that runs may leave behind before it is replaced. Default: 10% of the machine's.",
        ),
    ] = None,
    executor_memory_max: Annotated[
        str | None,
        typer.Option(
            "--executor-memory-max",
            metavar="SIZE|PERCENT",
            help="Host memory that a run may have; more is out of memory. Default: 0, any.",
        ),
    ] = None,
    max_parameters: Annotated[
        int | None,
        typer.Option("--max-parameters", metavar="N", help="Largest model. Default: no cap."),
    ] = None,
    compression: Annotated[
        str | None, typer.Option("--compression", metavar="none|gzip", help="Of what is sent. Default: none.")
    ] = None,
    rpc_timeout_seconds: Annotated[
        float | None,
        typer.Option("--rpc-timeout-seconds", metavar="S", help="Of a call to the master. Default: 10."),
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
    """Run a worker until SIGTERM or Ctrl-C.

    The first SIGTERM drains it: evaluations save a checkpoint, their tasks go back without burning an attempt. A
    second one kills. SIGUSR1, a file or a URL is a preemption notice (docs/operations.md): the same, with exit code 8.
    Every option can also be given as TENURE_WORKER_SLOTS, TENURE_WORKER_WORK_DIR, … in the
    environment.

    \b
    Examples:
      tenure worker --master 10.0.0.5:50051
      tenure worker --slots 2 --checkpoints s3://bucket/checkpoints --labels gpu=a100,zone=east
      tenure worker --gpus-per-slot 4
      tenure worker --slot-gpus 0,1/2,3 --executor-leak-max 4GiB
      tenure worker --evaluator my_package.evaluation:evaluate --python-path src
      tenure worker --accept-code
      tenure worker --preemption-file /run/tenure/preempted
    """
    given = dict(locals())
    from tenure.worker.main import run
    from tenure.worker.settings import load_settings

    raise typer.Exit(run(load_settings(**given)))
