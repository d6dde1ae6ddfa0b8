"""``tenure architecture``: what an architecture is and what it will cost, before anything is submitted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.client.cli.options import OutputOption
from tenure.client.cli.output import OutputFormat, print_json, print_pairs, print_table
from tenure.common.errors import InvalidInput
from tenure.common.exits import ExitCode

if TYPE_CHECKING:
    from tenure.common.estimate import Estimate
    from tenure.common.shapes import Plan, Shape

app = typer.Typer(no_args_is_help=True)

_BATCH_SIZES = (16, 64, 256, 1024)
# What the estimate calls what is an option here.
_OPTION_OF = {
    "num_classes": "--classes",
    "input_shape": "--input",
    "optimizer": "--optimizer",
    "precision": "--precision",
}


@app.callback()
def _group() -> None:
    # Without a callback typer would make a group of one command that command.
    pass


@app.command()
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Graph JSON; - reads stdin.", show_default=False)],
    input_shape: Annotated[
        str, typer.Option("--input", metavar="C,H,W|N", help="Shape of one sample.", show_default=False)
    ],
    classes: Annotated[int, typer.Option("--classes", metavar="N", help="Classes of the data set.")] = 10,
    optimizer: Annotated[
        str, typer.Option("--optimizer", metavar="NAME", help="As in config.extra: sgd, adam or adamw.")
    ] = "adam",
    precision: Annotated[
        str, typer.Option("--precision", metavar="NAME", help="As in config.extra: float32, bfloat16 or float16.")
    ] = "float32",
    batch_size: Annotated[
        list[int] | None,
        typer.Option("--batch-size", metavar="N", min=1, help="May be given several times.", show_default=False),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="SIZE", help="Does it fit into so much (8GiB)?", show_default=False),
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Say what a worker would build of a graph, and what training it would take.

    Asks no master and needs no torch: shapes, parameters, FLOPs of a forward pass, and memory at the peak of training,
    all by arithmetic (docs/architectures.md has the formulae). A graph that can't be built is refused with the node and
    the reason, as a worker would.

    Exit code 1 if a batch doesn't fit into --memory, in however small parts.

    \b
    Examples:
      tenure architecture check network.json --input 1,28,28 --classes 10
      tenure architecture check network.json --input 784 --batch-size 256 --memory 2GiB
      jq .architecture task.json | tenure architecture check - --input 3,32,32 --output json
    """
    from tenure.common.estimate import estimate_plan
    from tenure.common.graph import parse_graph
    from tenure.common.shapes import make_plan

    graph = parse_graph(_read(file))
    try:
        plan = make_plan(graph, _shape(input_shape), classes)
        cost = estimate_plan(plan, optimizer=optimizer, precision=precision)
    except InvalidInput as error:
        error.field = _OPTION_OF.get(error.field, error.field)
        raise
    limit = _size(memory) if memory else 0
    batches = [_batch(cost, size, limit) for size in batch_size or _BATCH_SIZES]
    if output is OutputFormat.JSON:
        print_json({**_totals(plan, cost), "nodes": list(_nodes(plan)), "batches": batches})
    else:
        _print(plan, cost, batches, limit)
    if any(batch.get("fits") is False for batch in batches):
        raise typer.Exit(ExitCode.NO)


def _read(file: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return raw.decode()
    except OSError as error:
        raise InvalidInput(f"can't be read: {error.strerror}", field="FILE", given=file) from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"is not UTF-8 (byte {error.start})", field="FILE", given=file) from None


def _shape(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in (1, 3) or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise InvalidInput(
            "is not a shape", field="--input", given=text, expected="channels,height,width of images, or features"
        )
    return tuple(map(int, parts))


def _size(text: str) -> int:
    from tenure.common.errors import InvalidSetting
    from tenure.worker.setting_texts import parse_memory

    expected = "bytes with a unit, for example 8GiB"
    try:
        count, _ = parse_memory(text, "--memory")
    except InvalidSetting as error:
        raise InvalidInput(error.message, field="--memory", given=text, expected=expected) from None
    if count <= 0:
        raise InvalidInput("is no amount of memory", field="--memory", given=text, expected=expected)
    return count


def _totals(plan: Plan, cost: Estimate) -> dict[str, Any]:
    return {
        "input_shape": plan.input_shape,
        "num_classes": plan.num_classes,
        "output": plan.graph.nodes[plan.graph.output].id,
        "head": plan.head,
        "parameters": cost.parameters,
        "flops": cost.flops,
        "weight_bytes": cost.weight_bytes,
        "gradient_bytes": cost.gradient_bytes,
        "optimizer_bytes": cost.optimizer_bytes,
        "activation_bytes_per_sample": cost.activation_bytes,
    }


def _nodes(plan: Plan) -> Iterator[dict[str, Any]]:
    from tenure.common.estimate import node_flops

    leading = set(plan.graph.leading)
    for placed in plan.nodes:
        yield {
            "id": placed.node.id,
            "operation": placed.node.operation,
            "input_shape": placed.input_shape,
            "output_shape": placed.output_shape,
            "parameters": placed.parameters,
            "flops": node_flops(placed),
            "used": placed.node.index in leading,
        }


def _batch(cost: Estimate, batch_size: int, limit: int) -> dict[str, Any]:
    batch: dict[str, Any] = {"batch_size": batch_size, "training_bytes": cost.training_bytes(batch_size)}
    if limit:
        parts = cost.micro_batches_for(batch_size, limit)
        batch |= {"fits": parts is not None, "micro_batches": parts}
    return batch


def _print(plan: Plan, cost: Estimate, batches: list[dict[str, Any]], limit: int) -> None:
    from tenure.common.estimate import show_bytes

    rows = (
        (
            node["id"],
            node["operation"],
            _shown(node["input_shape"]),
            _shown(node["output_shape"]),
            f"{node['parameters']:,}" if node["parameters"] else "",
            f"{node['flops']:,}" if node["flops"] else "",
            "" if node["used"] else "never run",
        )
        for node in _nodes(plan)
    )
    print_table(("NODE", "OPERATION", "GETS", "GIVES", ">PARAMETERS", ">FLOPS", ""), rows, empty="no nodes")
    output = plan.graph.nodes[plan.graph.output].id
    head = f", then a head of {plan.features:,} to {plan.num_classes}" if plan.head else ""
    sys.stdout.write("\n")
    print_pairs(
        [
            ("output", f"{output}{head}"),
            ("parameters", f"{cost.parameters:,}"),
            ("FLOPs", f"{cost.flops:,} of one sample forward; about three times as many in training"),
            ("weights", show_bytes(cost.weight_bytes)),
            ("gradients", show_bytes(cost.gradient_bytes)),
            ("optimizer", show_bytes(cost.optimizer_bytes)),
            ("kept", f"{show_bytes(cost.activation_bytes)} of each sample for its gradients"),
        ]
    )
    sys.stdout.write("\n")
    columns = (">BATCH", ">TRAINING TAKES", *((f"IN {show_bytes(limit)}",) if limit else ()))
    print_table(columns, (_batch_row(batch, limit) for batch in batches), empty="")


def _batch_row(batch: dict[str, Any], limit: int) -> tuple[str, ...]:
    from tenure.common.estimate import show_bytes

    row = (str(batch["batch_size"]), show_bytes(batch["training_bytes"]))
    if not limit:
        return row
    parts = batch["micro_batches"]
    return (*row, "doesn't fit" if parts is None else "fits" if parts == 1 else f"fits in {parts} parts")


def _shown(shape: Shape) -> str:
    return "×".join(map(str, shape))
