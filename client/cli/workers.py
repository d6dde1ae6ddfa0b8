"""``tenure workers``: list, show, drain, cordon, uncordon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.client.cli.options import (
    TIMEOUT_SECONDS,
    MasterOption,
    OutputOption,
    TimeoutOption,
    WorkerArgument,
    connect,
)
from tenure.client.cli.output import OutputFormat, print_json, print_json_array, print_table, span
from tenure.client.cli.progress import Counter
from tenure.client.cli.worker_page import print_worker, slots_cordoned, slots_held
from tenure.common.errors import WrongState

if TYPE_CHECKING:
    from tenure.client import Client, WorkerRecord

app = typer.Typer(no_args_is_help=True)

WaitOption = Annotated[bool, typer.Option("--wait", help="Until it holds nothing any more.")]
_LOOK_SECONDS = 0.5


@app.command("list")
def list_(
    include_gone: Annotated[bool, typer.Option("--all", help="With workers that are gone.")] = False,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """List the workers, what they have and how busy they are.

    Slots are busy by the leases in the store. CPU, memory and GPU of a worker that is not heard any more are left out:
    show has what it said last.

    \b
    Examples:
      tenure workers list
      tenure workers list --all --output json | jq -r '.[] | select(.status == "silent") | .worker_id'
    """
    with connect(master, timeout) as client:
        _print(client.workers(include_gone=include_gone), output)


@app.command()
def show(
    worker_id: WorkerArgument,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Show a worker: its slots, its GPUs, and what is wrong with them.

    ECC counts corrected and uncorrected memory errors since the GPU's driver was loaded, XIDS the driver's errors since
    the worker started. A cordoned slot takes tasks again after uncordon, or when the worker starts anew.

    \b
    Examples:
      tenure workers show gpu-box-7
      tenure workers show gpu-box-7 --output json | jq '.gpus[] | {gpu, temperature_celsius, last_xid}'
    """
    with connect(master, timeout) as client:
        worker = client.worker(worker_id)
    if output is OutputFormat.JSON:
        print_json(worker)
    else:
        print_worker(worker)


@app.command()
def drain(
    worker_id: WorkerArgument,
    wait: WaitOption = False,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Have a worker hand back what it holds, with checkpoints, and give it nothing more.

    Burns no attempts. The worker stays up and idle: uncordon gives it tasks again. To end its process, send it SIGTERM.

    \b
    Examples:
      tenure workers drain gpu-box-7
      tenure workers drain gpu-box-7 --wait && ssh gpu-box-7 sudo reboot
    """
    with connect(master, timeout) as client:
        worker = client.drain_worker(worker_id)
        _print_one(_when_idle(client, worker) if wait else worker, output)


@app.command()
def cordon(
    worker_id: WorkerArgument,
    wait: WaitOption = False,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Give a worker nothing more; it finishes what it holds.

    \b
    Examples:
      tenure workers cordon gpu-box-7
      tenure workers cordon gpu-box-7 --wait
    """
    with connect(master, timeout) as client:
        worker = client.cordon_worker(worker_id)
        _print_one(_when_idle(client, worker) if wait else worker, output)


@app.command()
def uncordon(
    worker_id: WorkerArgument,
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Give a cordoned or drained worker tasks again, and slots that it has cordoned itself for a GPU's errors.

    \b
    Examples:
      tenure workers uncordon gpu-box-7
    """
    with connect(master, timeout) as client:
        _print_one(client.uncordon_worker(worker_id), output)


def _when_idle(client: Client, worker: WorkerRecord) -> WorkerRecord:
    """The worker once it holds nothing, by the store. Of one that is dead the leases run out first."""
    mode, held = worker.mode, worker.leases
    with Counter(f"{worker.worker_id}: handed back or finished", held) as counter:
        while worker.leases:
            time.sleep(_LOOK_SECONDS)
            found = [one for one in client.workers(include_gone=True) if one.worker_id == worker.worker_id]
            if not found or found[0].mode != mode:
                raise WrongState(
                    f"somebody has ended the wait: the worker is {found[0].mode if found else 'no longer registered'}",
                    field="WORKER",
                    given=worker.worker_id,
                    expected=f"it was {mode}",
                )
            worker = found[0]
            held = max(held, worker.leases)
            counter.advance_to(held - worker.leases, total=held)
    return worker


_COLUMNS = (
    "WORKER",
    "STATUS",
    "MODE",
    ">SLOTS",
    ">GPUS",
    ">CPU",
    ">MEMORY",
    ">GPU",
    ">DONE",
    ">FAILED",
    "LAST SEEN",
    "VIA",
)


def _print(workers: list[WorkerRecord], output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_json_array(workers)
    else:
        print_table(_COLUMNS, (_row(worker) for worker in workers), empty="no workers")


def _print_one(worker: WorkerRecord, output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_json(worker)
    else:
        _print([worker], output)


def _row(worker: WorkerRecord) -> tuple[str, ...]:
    return (
        worker.worker_id,
        worker.status,
        worker.mode,
        f"{slots_held(worker)}/{worker.slots}" + (f", {ill} cordoned" if (ill := slots_cordoned(worker)) else ""),
        str(worker.num_gpus),
        _now(worker, worker.cpu_percent),
        _now(worker, worker.memory_percent),
        _now(worker, worker.gpu_percent) if worker.num_gpus else "",
        str(worker.tasks_completed),
        str(worker.tasks_failed),
        f"{span(worker.last_seen_ms_ago)} ago",
        worker.dispatch,
    )


def _now(worker: WorkerRecord, percent: float) -> str:
    """A figure of its last heartbeat, while that is of late."""
    return f"{percent:.0f} %" if worker.status == "live" else ""
