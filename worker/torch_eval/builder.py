"""A MorphML graph as a torch module."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import torch
from torch import Tensor, nn

from tenure.common import operations
from tenure.common.graph import Node, parse_graph
from tenure.common.operations import Layer, Pair
from tenure.common.shapes import NodePlan, Plan, Window, check_parameters, make_plan
from tenure.worker.torch_eval import layers


def build_module(
    architecture: str,
    input_shape: Sequence[SupportsIndex],
    num_classes: SupportsIndex,
    *,
    max_parameters: int = 0,
) -> nn.Module:
    """The network that a graph describes, its parameters initialised from torch's global generator.

    Args:
        architecture: MorphML graph JSON.
        input_shape: Of one sample: ``(channels, height, width)``, or ``(features,)``.
        num_classes: How many logits the network gives.
        max_parameters: More are refused; 0 = any number.

    Returns:
        A module from (N, *input_shape) to logits (N, num_classes). Parameters and buffers are named
        ``layers.<node id>.…`` (escaped as :func:`_module_names` says), those of an added head ``head.…``.
        Equal graphs give equal names, in equal order. It may have no parameters, or none that the logits
        depend on: then these require no gradient.

    Raises:
        InvalidArchitecture: It can't be built, or not for this input; a retry is useless. Nothing of the
            network's size was allocated.
    """
    plan = make_plan(parse_graph(architecture), input_shape, num_classes)
    check_parameters(plan, max_parameters)
    return GraphModule(plan)


def count_parameters(module: nn.Module) -> int:
    """How many numbers training can change."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


_NO_NAME_CHARACTER = re.compile("[.\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Step:
    """One node on the way to the output.

    Attributes:
        index: The node's position; its value goes by it.
        name: Its module's name.
        sources: Whose values it takes; none: the network's input.
        pool_to: Where images go before they are concatenated.
        flatten: Whether everything is flattened before.
        activation: What is applied to the module's value.
        finished: Whose values nobody needs behind this step.
    """

    index: int
    name: str
    sources: tuple[int, ...]
    pool_to: Pair | None
    flatten: bool
    activation: str | None
    finished: tuple[int, ...]


class GraphModule(nn.Module):
    """A network built from a plan. It holds plain data beside its modules: it can be copied and pickled."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        graph = plan.graph
        names = _module_names([node.id for node in graph.nodes])
        # The loss takes logits: a softmax on the network's output is its business.
        output = graph.nodes[graph.output]
        without_softmax = {graph.output: _without_softmax(output)}
        self.input_shape = plan.input_shape
        self.layers = nn.ModuleDict()
        activations: list[str | None] = []
        for placed, name in zip(plan.nodes, names, strict=True):
            node = placed.node
            layer, activation = without_softmax.get(node.index, (node.layer, node.activation))
            self.layers[name] = _make_layer(layer, placed)
            activations.append(activation)
        self.head = nn.Linear(plan.features, plan.num_classes) if plan.head else None
        self._steps = _steps(plan, names, activations)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in torch's own
        """(N, *input_shape) → (N, num_classes)."""
        if input.shape[1:] != self.input_shape:
            raise ValueError(f"the network takes (N, *{self.input_shape}), not {tuple(input.shape)}")
        values: dict[int, Tensor] = {}
        for step in self._steps:
            values[step.index] = self._value_of(step, values, input)
            for index in step.finished:
                del values[index]
        logits = values[self._steps[-1].index].flatten(1)
        if self.head is not None:
            logits = self.head(logits)
        return logits

    def _value_of(self, step: _Step, values: dict[int, Tensor], network_input: Tensor) -> Tensor:
        # A function of its own: what a layer gave is let go with its activation's input, not a step later.
        value: Tensor = self.layers[step.name](_gather(step, values, network_input))
        return value if step.activation is None else layers.ACTIVATIONS[step.activation](value)


def _gather(step: _Step, values: dict[int, Tensor], network_input: Tensor) -> Tensor:
    if not step.sources:
        return network_input
    if len(step.sources) == 1:
        return values[step.sources[0]]
    parts = [values[source] for source in step.sources]
    if step.pool_to is not None:
        parts = [layers.pool_to(part, step.pool_to) if part.dim() == 4 else part for part in parts]
    if step.flatten:
        parts = [part.flatten(1) for part in parts]
    return torch.cat(parts, dim=1)


def _steps(plan: Plan, names: Sequence[str], activations: Sequence[str | None]) -> tuple[_Step, ...]:
    leading = plan.graph.leading
    last_use = {source: index for index in leading for source in plan.graph.nodes[index].predecessors}
    finished: dict[int, list[int]] = {}
    for source, index in last_use.items():
        finished.setdefault(index, []).append(source)
    return tuple(
        _Step(
            index=index,
            name=names[index],
            sources=plan.graph.nodes[index].predecessors,
            pool_to=plan.nodes[index].merge.pool_to,
            flatten=plan.nodes[index].merge.flatten,
            activation=activations[index],
            finished=tuple(finished.get(index, ())),
        )
        for index in leading
    )


def _without_softmax(node: Node) -> tuple[Layer, str | None]:
    activation = None if node.activation == "softmax" else node.activation
    if activation is None and node.layer == operations.Function("softmax"):
        return operations.PassOn(), None
    return node.layer, activation


def _make_layer(layer: Layer, placed: NodePlan) -> nn.Module:
    shape = placed.input_shape
    if placed.window is not None:
        return _make_sliding(layer, shape[0], placed.window)
    match layer:
        case operations.PassOn():
            return nn.Identity()
        case operations.Dense():
            return layers.Dense(math.prod(shape), layer.units, bias=layer.use_bias)
        case operations.BatchNorm():
            return layers.BatchNorm2d(shape[0]) if len(shape) == 3 else layers.BatchNorm1d(shape[0])
        case operations.Dropout():
            return nn.Dropout(layer.rate)
        case operations.Flatten():
            return nn.Flatten()
        case operations.Function():
            return layers.Activation(layer.name)
    raise AssertionError(f"no module for {layer}")


def _make_sliding(layer: Layer, channels: int, window: Window) -> nn.Module:
    match layer:
        case operations.Conv2d():
            return layers.Conv2d(channels, layer.filters, window, bias=layer.use_bias)
        case operations.Pool(kind="max"):
            return layers.MaxPool2d(window)
        case operations.Pool(kind="avg"):
            return layers.AvgPool2d(window)
    raise AssertionError(f"no module with a window for {layer}")


def _percent_encode(characters: str | re.Match[str]) -> str:
    text = characters if isinstance(characters, str) else characters[0]
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def _module_names(ids: Sequence[str]) -> list[str]:
    """The ids themselves where torch takes them as names of modules.

    Where it doesn't (dots, and what every module has as an attribute) or UTF-8 doesn't (lone surrogates),
    what is in the way is percent-encoded. If that is another node's id, percent signs are appended until it
    is none.
    """
    container = nn.ModuleDict()
    taken = set(ids)
    names = []
    for node_id in ids:
        name = _NO_NAME_CHARACTER.sub(_percent_encode, node_id)
        if hasattr(container, name):
            name = f"{_percent_encode(name[0])}{name[1:]}"
        if name != node_id:
            while name in taken:
                name += "%"
            taken.add(name)
        names.append(name)
    return names
