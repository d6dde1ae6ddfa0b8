"""What a network's values take in memory while a batch goes forward and backward, by arithmetic alone.

The forward pass is walked as the torch modules of ``worker/torch_eval`` do it, value by value: which one an operation
makes, which ones autograd keeps for its gradient, when each is let go. The backward pass is the same walk from behind.
Everything is in bytes of one sample: of N samples there is N times as much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tenure.common.operations import BatchNorm, Conv2d, Dense, Dropout, Flatten, Function, PassOn, Pool
from tenure.common.shapes import NodePlan, Plan, Shape, Window

FLOAT_BYTES = 4
_INDEX_BYTES = 8
# Whose gradient torch works out from the result; from the input for all others.
_SAVES_RESULT = frozenset(["relu", "sigmoid", "tanh", "softmax"])


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes a sample, but ``fixed_bytes``, which are there once.

    Attributes:
        saved_bytes: What autograd keeps between the passes; a value that several operations keep counts once.
        peak_bytes: The most that there is at one moment.
        fixed_bytes: The batch statistics that batch norms keep.
    """

    saved_bytes: int
    peak_bytes: int
    fixed_bytes: int


@dataclass(frozen=True, slots=True)
class _Value:
    """A tensor. Views of one share its storage and its gradient, so they are the same value here."""

    storage: int
    elements: int
    item_bytes: int
    needs_gradient: bool

    @property
    def bytes(self) -> int:
        return self.elements * self.item_bytes


@dataclass(frozen=True, slots=True)
class _Operation:
    """For the way back: what it took and gave, what it keeps, and what its kernel needs on the side."""

    inputs: tuple[_Value, ...]
    output: _Value
    kept: tuple[int, ...]
    workspace_bytes: int


class _Memory:
    """Storages with the number of their holders: names in the program, and operations that keep them."""

    def __init__(self, *, training: bool) -> None:
        self.training = training
        self.peak_bytes = 0
        self.operations: list[_Operation] = []
        self._live_bytes = 0
        self._sizes: list[int] = []
        self._holders: list[int] = []

    def allocate(self, count: int) -> int:
        """A new storage with one holder."""
        self._sizes.append(count)
        self._holders.append(1)
        self._live_bytes += count
        self.touch()
        return len(self._sizes) - 1

    def hold(self, storage: int) -> None:
        self._holders[storage] += 1

    def release(self, storage: int) -> None:
        self._holders[storage] -= 1
        if not self._holders[storage]:
            self._live_bytes -= self._sizes[storage]

    def touch(self, more_bytes: int = 0) -> None:
        """A moment with so much beside what is held."""
        self.peak_bytes = max(self.peak_bytes, self._live_bytes + more_bytes)

    def kept_bytes(self) -> int:
        """Of all storages that operations keep."""
        return sum(self._sizes[storage] for storage in {one for each in self.operations for one in each.kept})

    def value(self, elements: int, item_bytes: int, *, needs_gradient: bool = False) -> _Value:
        return _Value(self.allocate(elements * item_bytes), elements, item_bytes, needs_gradient)

    def apply(
        self,
        inputs: Sequence[_Value],
        elements: int,
        *,
        keeps_inputs: bool = False,
        keeps_output: bool = False,
        keeps_bytes: int = 0,
        has_weights: bool = False,
        item_bytes: int | None = None,
        workspace_bytes: int = 0,
    ) -> _Value:
        """The new value of an operation; its inputs stay with their holders."""
        needs_gradient = self.training and (has_weights or any(one.needs_gradient for one in inputs))
        output = self.value(
            elements,
            max(one.item_bytes for one in inputs) if item_bytes is None else item_bytes,
            needs_gradient=needs_gradient,
        )
        self.touch(workspace_bytes)
        kept: list[int] = []
        if needs_gradient:
            kept += [one.storage for one in inputs] if keeps_inputs else []
            kept += [output.storage] if keeps_output else []
            for storage in kept:
                self.hold(storage)
            kept += [self.allocate(keeps_bytes)] if keeps_bytes else []
            self.operations.append(_Operation(tuple(inputs), output, tuple(kept), workspace_bytes))
        elif keeps_bytes:
            self.touch(keeps_bytes)
        return output

    def walk_back(self) -> None:
        """The backward pass: gradients come, what is kept goes."""
        gradients: dict[int, int] = {}
        if self.operations:
            last = self.operations[-1].output
            gradients[last.storage] = self.allocate(last.bytes)
        for operation in reversed(self.operations):
            incoming = gradients.pop(operation.output.storage)
            for value in operation.inputs:
                if not value.needs_gradient:
                    continue
                if value.storage in gradients:
                    self.touch(value.bytes)
                else:
                    gradients[value.storage] = self.allocate(value.bytes)
            self.touch(operation.workspace_bytes)
            self.release(incoming)
            for storage in operation.kept:
                self.release(storage)


def footprint(plan: Plan, *, training: bool, low_bytes: int = FLOAT_BYTES) -> Footprint:
    """Walk a plan.

    Args:
        plan: The network.
        training: Forward and backward, with what autograd keeps; else forward alone.
        low_bytes: Of a number that comes out of a convolution or a fully connected layer: less than 4 is autocast.
    """
    walk = _Walk(plan, training, low_bytes)
    logits = walk.forward()
    memory = walk.memory
    saved = memory.kept_bytes()
    # The loss: log-softmax in float32, and its gradient.
    loss = memory.apply([logits], plan.num_classes, keeps_output=True, item_bytes=FLOAT_BYTES)
    memory.release(logits.storage)
    memory.walk_back()
    memory.release(loss.storage)
    return Footprint(saved, memory.peak_bytes, walk.fixed_bytes)


class _Walk:
    """The forward pass of a GraphModule."""

    def __init__(self, plan: Plan, training: bool, low_bytes: int) -> None:
        self.memory = _Memory(training=training)
        self.fixed_bytes = 0
        self._plan = plan
        self._low_bytes = low_bytes

    def forward(self) -> _Value:
        """The logits, with one holder."""
        plan, memory = self._plan, self.memory
        network_input = memory.value(math.prod(plan.input_shape), FLOAT_BYTES)
        last_use = {source: index for index in plan.graph.leading for source in plan.graph.nodes[index].predecessors}
        finished: dict[int, list[int]] = {}
        for source, index in last_use.items():
            finished.setdefault(index, []).append(source)
        values: dict[int, _Value] = {}
        for index in plan.graph.leading:
            placed = plan.nodes[index]
            values[index] = self._step(placed, values, network_input, is_output=index == plan.graph.output)
            for source in finished.get(index, ()):
                memory.release(values.pop(source).storage)
        output = values[plan.graph.output]
        if not plan.head:
            return output
        logits = self._weighted(output, plan.num_classes)
        memory.release(output.storage)
        return logits

    def _step(self, placed: NodePlan, values: dict[int, _Value], network_input: _Value, *, is_output: bool) -> _Value:
        """One node's value; it and every value on the way has one holder, which is let go here."""
        memory, node = self.memory, placed.node
        value = self._gather(placed, values, network_input)
        # A softmax of the network's output is left to the loss.
        drops_softmax = is_output and node.activation in (None, "softmax")
        after = self._layer(placed, value, drops_softmax=drops_softmax)
        memory.release(value.storage)
        activation = None if is_output and node.activation == "softmax" else node.activation
        if activation is None:
            return after
        activated = self._function(after, activation)
        memory.release(after.storage)
        return activated

    def _gather(self, placed: NodePlan, values: dict[int, _Value], network_input: _Value) -> _Value:
        memory, merge, sources = self.memory, placed.merge, placed.node.predecessors
        if len(sources) < 2:
            value = values[sources[0]] if sources else network_input
            memory.hold(value.storage)
            return value
        parts: list[_Value] = []
        for source in sources:
            value, shape = values[source], self._plan.nodes[source].output_shape
            if merge.pool_to is not None and len(shape) == 3 and shape[1:] != merge.pool_to:
                pooled = shape[0] * math.prod(merge.pool_to)
                # Two matrix products where determinism is asked for: rows first.
                rows = shape[0] * merge.pool_to[0] * shape[2] * value.item_bytes
                parts.append(memory.apply([value], pooled, keeps_inputs=True, workspace_bytes=rows))
            else:
                memory.hold(value.storage)
                parts.append(value)
        together = memory.apply(parts, sum(part.elements for part in parts))
        for part in parts:
            memory.release(part.storage)
        return together

    def _layer(self, placed: NodePlan, value: _Value, *, drops_softmax: bool) -> _Value:
        memory, elements = self.memory, math.prod(placed.output_shape)
        match placed.node.layer:
            case Conv2d():
                return self._with_padding(placed, value, elements)
            case Pool():
                return self._with_padding(placed, value, elements)
            case Dense():
                return self._weighted(value, elements)
            case BatchNorm():
                self.fixed_bytes += placed.parameters * FLOAT_BYTES * memory.training
                return memory.apply([value], elements, keeps_inputs=True, has_weights=True)
            case Dropout(rate=rate) if rate and memory.training:
                # The noise, as large as the value; on CUDA it is a byte an element.
                return memory.apply([value], elements, keeps_bytes=value.bytes)
            case Function(name=name) if not (drops_softmax and name == "softmax"):
                return self._function(value, name)
            case Function() | Dropout() | Flatten() | PassOn():
                memory.hold(value.storage)
                return value
        raise AssertionError(f"no memory for {placed.node.layer}")

    def _with_padding(self, placed: NodePlan, value: _Value, elements: int) -> _Value:
        memory, window = self.memory, placed.window
        assert window is not None
        padded = value
        if _is_uneven(window):
            shape: Shape = (placed.input_shape[0], window.height.padded, window.width.padded)
            padded = memory.apply([value], math.prod(shape))
        else:
            memory.hold(padded.storage)
        match placed.node.layer:
            case Conv2d():
                output = self._weighted(padded, elements, sliding=True)
            case Pool(kind="max"):
                output = memory.apply([padded], elements, keeps_inputs=True, keeps_bytes=elements * _INDEX_BYTES)
            case _:
                output = memory.apply([padded], elements, keeps_inputs=True)
        memory.release(padded.storage)
        return output

    def _weighted(self, value: _Value, elements: int, *, sliding: bool = False) -> _Value:
        """A convolution or a fully connected layer; autocast copies its input first."""
        memory, low = self.memory, self._low_bytes
        taken = value
        if low < value.item_bytes:
            taken = memory.apply([value], value.elements, item_bytes=low)
        else:
            memory.hold(taken.storage)
        # Kernels of convolutions lay their input and output out anew.
        workspace = taken.bytes + elements * low if sliding else 0
        output = memory.apply(
            [taken], elements, keeps_inputs=True, has_weights=True, item_bytes=low, workspace_bytes=workspace
        )
        memory.release(taken.storage)
        return output

    def _function(self, value: _Value, name: str) -> _Value:
        from_result = name in _SAVES_RESULT
        return self.memory.apply([value], value.elements, keeps_inputs=not from_result, keeps_output=from_result)


def _is_uneven(window: Window) -> bool:
    """Whether torch's operation can't pad by itself, as the two ends differ: the padded input is a value of its own."""
    return (window.height.before, window.width.before) != (window.height.behind, window.width.behind)
