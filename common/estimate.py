"""What training a network will take, before anything is built: parameters, FLOPs, and memory at its peak.

By arithmetic over a plan alone, so clients and masters can ask, too. docs/architectures.md has the formulae and how
far off they may be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

from tenure.common.errors import InvalidInput
from tenure.common.graph import parse_graph
from tenure.common.operations import Conv2d, Dense
from tenure.common.saved_values import FLOAT_BYTES, Footprint, footprint
from tenure.common.shapes import NodePlan, Plan, make_plan

# What an optimizer remembers of each parameter, in numbers as large as the parameter.
OPTIMIZER_SLOTS = {"sgd": 1, "adam": 2, "adamw": 2}
# Bytes of a number in the values between layers, under autocast or without.
PRECISION_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# torch's own bookkeeping, workspaces of kernels, the allocator's rounding.
_OVERHEAD_RATIO = 0.05
_TARGET_BYTES = 8
# Rows held out are measured in batches of twice the size.
_MEASURED_BATCHES = 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of one network, for one input shape.

    Attributes:
        parameters: Numbers that training can change, unused nodes included.
        flops: Of one sample's forward pass, a multiplication and an addition counting as two; convolutions and fully
            connected layers only. A training step takes about three times as many a sample.
        sample_bytes: Of one sample's input.
        activation_bytes: What is kept of one sample for the backward pass.
        peak_bytes: What there is of one sample at the worst moment of a training step, gradients included.
        inference_bytes: The same without gradients.
        weight_bytes, gradient_bytes, optimizer_bytes: Whatever the batch.
    """

    parameters: int
    flops: int
    sample_bytes: int
    activation_bytes: int
    peak_bytes: int
    inference_bytes: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int

    @property
    def fixed_bytes(self) -> int:
        """Whatever the batch: weights, gradients and what the optimizer remembers."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes

    def training_bytes(self, batch_size: int, micro_batches: int = 1) -> int:
        """Memory at the peak of a training whose batches go through the network in ``micro_batches`` parts.

        Without the data set, and without what a process needs before it trains anything.
        """
        rows = -(-batch_size // micro_batches)
        step = self.gradient_bytes
        measured = self.inference_bytes * rows * _MEASURED_BATCHES
        batch = batch_size * (self.sample_bytes + _TARGET_BYTES)
        peak = self.fixed_bytes + batch + max(self.peak_bytes * rows, step, measured)
        return math.ceil(peak * (1 + _OVERHEAD_RATIO))

    def micro_batches_for(self, batch_size: int, limit_bytes: int, at_least: int = 1) -> int | None:
        """The fewest parts, ``at_least`` times a power of two, with which a batch fits into a limit.

        None if it doesn't fit even two rows by two: batch normalisation can't take one.
        """
        most = max(1, batch_size // 2)
        parts = min(at_least, most)
        while self.training_bytes(batch_size, parts) > limit_bytes:
            if parts >= most:
                return None
            parts = min(2 * parts, most)
        return parts


def estimate(
    architecture: str,
    input_shape: Sequence[SupportsIndex],
    num_classes: SupportsIndex,
    *,
    optimizer: str = "adam",
    precision: str = "float32",
) -> Estimate:
    """Estimate a graph's cost.

    Args:
        architecture: MorphML graph JSON.
        input_shape: Of one sample: ``(channels, height, width)``, or ``(features,)``.
        num_classes: How many logits the network gives.
        optimizer: A key of :data:`OPTIMIZER_SLOTS`.
        precision: A key of :data:`PRECISION_BYTES`; anything but float32 is autocast.

    Raises:
        InvalidArchitecture: It can't be built for this input.
        InvalidInput: An unknown optimizer or precision.
    """
    return estimate_plan(
        make_plan(parse_graph(architecture), input_shape, num_classes), optimizer=optimizer, precision=precision
    )


def estimate_plan(plan: Plan, *, optimizer: str = "adam", precision: str = "float32") -> Estimate:
    """:func:`estimate` of a plan; raises InvalidInput as it does."""
    _check_known("optimizer", optimizer, OPTIMIZER_SLOTS)
    _check_known("precision", precision, PRECISION_BYTES)
    low = PRECISION_BYTES[precision]
    training = footprint(plan, training=True, low_bytes=low)
    # Nodes that don't lead to the output never get a gradient, and so no state of an optimizer.
    trained = sum(plan.nodes[index].parameters for index in plan.graph.leading) + _head_parameters(plan)
    cast = plan.parameters * low if low < FLOAT_BYTES else 0
    return Estimate(
        parameters=plan.parameters,
        flops=sum(node_flops(plan.nodes[index]) for index in plan.graph.leading) + _head_flops(plan),
        sample_bytes=math.prod(plan.input_shape) * FLOAT_BYTES,
        activation_bytes=training.saved_bytes,
        peak_bytes=training.peak_bytes,
        inference_bytes=footprint(plan, training=False, low_bytes=low).peak_bytes,
        weight_bytes=plan.parameters * FLOAT_BYTES + _buffer_bytes(plan, training) + cast,
        gradient_bytes=trained * FLOAT_BYTES,
        optimizer_bytes=trained * FLOAT_BYTES * OPTIMIZER_SLOTS[optimizer],
    )


def node_flops(placed: NodePlan) -> int:
    """Of one node's forward pass over one sample."""
    match placed.node.layer:
        case Conv2d() as layer:
            window = placed.input_shape[0] * math.prod(layer.kernel_size)
            return 2 * window * math.prod(placed.output_shape)
        case Dense() as layer:
            return 2 * math.prod(placed.input_shape) * layer.units
    return 0


def _head_parameters(plan: Plan) -> int:
    return (plan.features + 1) * plan.num_classes * plan.head


def _head_flops(plan: Plan) -> int:
    return 2 * plan.features * plan.num_classes * plan.head


def _buffer_bytes(plan: Plan, training: Footprint) -> int:
    # Batch norm's running statistics are as many numbers as its parameters.
    norms = sum(placed.parameters for placed in plan.nodes if placed.node.operation == "batchnorm")
    return norms * FLOAT_BYTES + training.fixed_bytes


def _check_known(name: str, given: str, known: dict[str, int]) -> None:
    if given not in known:
        raise InvalidInput("is unknown", field=name, given=given, expected=f"one of {', '.join(known)}")


def show_bytes(count: int) -> str:
    """``count`` for people: three digits and a binary unit."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{count} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"
