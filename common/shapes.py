"""Shapes, windows and parameter counts of a whole graph, by arithmetic alone.

Whatever an input's shape makes impossible is refused here, before torch allocates anything.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

from tenure.common import limits
from tenure.common.errors import InvalidArchitecture
from tenure.common.graph import Graph, Node
from tenure.common.operations import BatchNorm, Conv2d, Dense, Flatten, Padding, Pair, Pool

Shape = tuple[int, ...]
"""Without the batch: ``(channels, height, width)`` of an image, or ``(features,)``."""


@dataclass(frozen=True, slots=True)
class Axis:
    """How a window moves along the height or the width.

    Attributes:
        size: Of the window.
        stride: Never more than the padded input: there a longer one leaves one window too.
        before: Padded cells in front (above, on the left).
        behind: Padded cells at the end.
        padded: The input's cells with the padded ones.
        windows: How many there are: the size of what comes out.
    """

    size: int
    stride: int
    before: int
    behind: int
    padded: int
    windows: int


@dataclass(frozen=True, slots=True)
class Window:
    """Where a convolution or a pool looks."""

    height: Axis
    width: Axis


@dataclass(frozen=True, slots=True)
class Merge:
    """How the values of several predecessors are brought together, to be concatenated.

    Attributes:
        pool_to: The height and width to which images of another size are brought by adaptive average pooling.
        flatten: Whether everything is flattened: something flat meets images.
    """

    pool_to: Pair | None
    flatten: bool


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node in its place. ``window`` is None but for convolutions and pools."""

    node: Node
    merge: Merge
    input_shape: Shape
    output_shape: Shape
    window: Window | None
    parameters: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph for one input shape.

    Attributes:
        graph: The graph.
        input_shape: Of one sample.
        nodes: In the order of the graph's nodes.
        features: The width of the network's output, flattened.
        head: Whether a Linear brings it to ``num_classes``.
        parameters: Of everything that is built, the head included.
    """

    graph: Graph
    input_shape: Shape
    num_classes: int
    nodes: tuple[NodePlan, ...]
    features: int
    head: bool
    parameters: int


def make_plan(graph: Graph, input_shape: Sequence[SupportsIndex], num_classes: SupportsIndex) -> Plan:
    """Work out every shape.

    Args:
        graph: The graph.
        input_shape: Of one sample: ``(channels, height, width)`` or ``(features,)``.
        num_classes: The width that the network's output is brought to.

    Raises:
        InvalidArchitecture: The graph can't take this input; the message names the node.
    """
    shape = _check_input(input_shape)
    classes = _check_size("num_classes", num_classes)
    placed: dict[int, NodePlan] = {}
    for index in graph.order:
        node = graph.nodes[index]
        placed[index] = _place(node, [placed[source].output_shape for source in node.predecessors] or [shape])
    output = placed[graph.output]
    features = math.prod(output.output_shape)
    head = features != classes
    if head:
        _check_elements(output.node, "the weight of the head behind it", features, classes)
    return Plan(
        graph=graph,
        input_shape=shape,
        num_classes=classes,
        nodes=tuple(placed[node.index] for node in graph.nodes),
        features=features,
        head=head,
        parameters=sum(plan.parameters for plan in placed.values()) + (features + 1) * classes * head,
    )


def check_parameters(plan: Plan, most: int) -> None:
    """Refuse a plan of more than ``most`` parameters; 0 allows any number.

    Raises:
        InvalidArchitecture: Naming the node that has the most.
    """
    if not 0 < most < plan.parameters:
        return
    largest = max(plan.nodes, key=lambda placed: placed.parameters)
    head = (plan.features + 1) * plan.num_classes * plan.head
    where = "the head" if head > largest.parameters else largest.node.name
    raise InvalidArchitecture(
        f"has {plan.parameters} parameters, {max(head, largest.parameters)} of them in {where}",
        field="architecture",
        expected=f"this worker builds at most {most} (its max_parameters)",
    )


def _place(node: Node, incoming: Sequence[Shape]) -> NodePlan:
    merge, shape = _merge(node, incoming)
    window: Window | None = None
    parameters = 0
    output = shape
    match node.layer:
        case Conv2d() as layer:
            window = _slide(node, shape, layer.kernel_size, layer.stride, layer.padding)
            _check_elements(node, "its weight", layer.filters, shape[0], *layer.kernel_size)
            output = (layer.filters, window.height.windows, window.width.windows)
            parameters = layer.filters * (shape[0] * math.prod(layer.kernel_size) + layer.use_bias)
        case Pool() as layer:
            window = _slide(node, shape, layer.pool_size, layer.stride, layer.padding)
            output = (shape[0], window.height.windows, window.width.windows)
        case Dense() as layer:
            features = math.prod(shape)
            _check_elements(node, "its weight", layer.units, features)
            output = (layer.units,)
            parameters = layer.units * (features + layer.use_bias)
        case BatchNorm():
            parameters = 2 * shape[0]
        case Flatten():
            output = (math.prod(shape),)
    _check_elements(node, "its output", *output)
    return NodePlan(node, merge, shape, output, window, parameters)


def _merge(node: Node, incoming: Sequence[Shape]) -> tuple[Merge, Shape]:
    if len(incoming) == 1:
        return Merge(pool_to=None, flatten=False), incoming[0]
    images = [shape for shape in incoming if len(shape) == 3]
    features = sum(shape[0] for shape in incoming if len(shape) == 1)
    if not images:
        merge = Merge(pool_to=None, flatten=False)
        merged: Shape = (features,)
    else:
        channels = sum(shape[0] for shape in images)
        smallest = (min(shape[1] for shape in images), min(shape[2] for shape in images))
        differ = any(shape[1:] != smallest for shape in images)
        merge = Merge(pool_to=smallest if differ else None, flatten=features > 0)
        merged = (features + channels * math.prod(smallest),) if features else (channels, *smallest)
    _check_elements(node, "its inputs together", *merged)
    return merge, merged


def _slide(node: Node, shape: Shape, size: Pair, stride: Pair, padding: Padding) -> Window:
    if len(shape) != 3:
        raise InvalidArchitecture(
            f"{node.name}: needs an image, but gets {shape[0]} features without height and width",
            field=node.field,
            expected="put it before flatten and dense, or make it dense",
        )
    pads = (None, None) if padding == "same" else padding
    channels, *cells = shape
    height, width = (_axis(*along) for along in zip(cells, size, stride, pads, strict=True))
    if height.windows < 1 or width.windows < 1:
        raise InvalidArchitecture(
            f"{node.name}: its window of {size[0]}×{size[1]} is larger than its padded input of "
            f"{height.padded}×{width.padded}",
            field=node.field,
            expected='use a smaller window, padding "same", or fewer pools and strides before it',
        )
    _check_elements(node, "its padded input", channels, height.padded, width.padded)
    return Window(height, width)


def _axis(cells: int, size: int, stride: int, pad: int | None) -> Axis:
    # None means "same": ceil(cells / stride) windows, the odd padded cell behind.
    if pad is None:
        total = max((-(-cells // stride) - 1) * stride + size - cells, 0)
        before, behind = total // 2, total - total // 2
    else:
        before = behind = pad
    padded = before + cells + behind
    return Axis(size, min(stride, padded), before, behind, padded, (padded - size) // stride + 1)


def _check_elements(node: Node, what: str, *sizes: int) -> None:
    if math.prod(sizes) > limits.TENSOR_ELEMENTS_MAX:
        raise InvalidArchitecture(
            f"{node.name}: {what} would be {'×'.join(map(str, sizes))}",
            field=node.field,
            expected=f"a tensor may have at most {limits.TENSOR_ELEMENTS_MAX} elements",
        )


def _check_input(input_shape: Sequence[SupportsIndex]) -> Shape:
    shape = tuple(_check_size("input_shape", size) for size in input_shape)
    if len(shape) not in (1, 3) or math.prod(shape) > limits.TENSOR_ELEMENTS_MAX:
        raise InvalidArchitecture(
            "no graph can be built for such an input",
            field="input_shape",
            given=str(shape),
            expected="(channels, height, width) or (features,), without the batch",
        )
    return shape


def _check_size(name: str, value: SupportsIndex) -> int:
    size = operator.index(value)
    if not 0 < size <= limits.TENSOR_ELEMENTS_MAX:
        raise InvalidArchitecture(
            "is out of range", field=name, given=str(size), expected=f"from 1 to {limits.TENSOR_ELEMENTS_MAX}"
        )
    return size
