"""Any graph either builds and trains a step, or is refused with a reason. Never anything else.

Four kinds are drawn: what MorphML's search spaces emit and long walks of its mutations (tests/morphml_graphs.py), small
graphs that Hypothesis can shrink, the same with values broken at random places, and JSON that has nothing to do with
graphs. Where a graph builds, torch's shapes are the plan's: on the meta device, at any size.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from morphml_graphs import input_shape, mutated, sampled
from torch import Tensor, nn

from tenure.common.errors import InvalidArchitecture, TenureError
from tenure.common.estimate import estimate_plan
from tenure.common.graph import check_graph, parse_graph
from tenure.common.shapes import Plan, make_plan
from tenure.common.spec import check_architecture
from tenure.worker.torch_eval import build_module, count_parameters

pytestmark = pytest.mark.torch

ACTIVATIONS = ["relu", "sigmoid", "tanh", "softmax", "elu", "gelu", "leaky_relu", "selu", "swish", "linear", "none"]
MUTATION_OPERATIONS = ["conv2d", "maxpool", "avgpool", "dense", "relu", "batchnorm", "dropout"]
# What one example may cost; the cap on parameters is the builder's own.
ELEMENTS_MAX, PRODUCTS_MAX, PARAMETERS_MAX = 1_000_000, 30_000_000, 300_000

Json = dict[str, Any]


def sizes(*values: int) -> st.SearchStrategy[Any]:
    pick = st.sampled_from(values)
    return st.one_of(pick, pick, pick, st.lists(pick, min_size=2, max_size=2), st.none())


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries({}, optional=fields)


def params(operation: str) -> st.SearchStrategy[Json]:
    """As MorphML's builder, its search spaces and its mutations write them."""
    activation = st.one_of(st.sampled_from(ACTIVATIONS), st.none())
    stride = sizes(1, 2, 3)
    padding = st.one_of(st.sampled_from(["same", "valid", 0, 1, 2]), st.just([1, 0]), st.none())
    if operation == "conv2d":
        filters = st.sampled_from([1, 2, 3, 8])
        more = optional(
            kernel_size=sizes(1, 2, 3, 5), stride=stride, strides=stride, padding=padding, activation=activation
        )
        return st.builds(lambda count, rest: {"filters": count, **rest}, filters, more)
    if operation in ("maxpool", "avgpool", "max_pool", "avg_pool"):
        return optional(pool_size=sizes(1, 2, 3), stride=stride, strides=stride, padding=padding, activation=activation)
    if operation in ("dense", "linear", "output"):
        units = st.sampled_from([1, 5, 10, 32])
        return st.fixed_dictionaries({"units": units}, optional={"use_bias": st.booleans(), "activation": activation})
    if operation == "dropout":
        return optional(rate=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]))
    return optional(activation=activation, shape=st.just([3, 8, 8]))


IDS = st.one_of(
    st.integers(-3, 40),
    st.sampled_from(["a.b", "a%2Eb", "keys", "%6Beys", "type", "training", "\ud800", "ü", " ", "head", "0"]),
    st.uuids().map(str),
)
CHAIN = st.lists(
    st.sampled_from(
        [
            "input",
            "conv2d",
            "conv2d",
            "maxpool",
            "avgpool",
            "max_pool",
            "avg_pool",
            "dense",
            "linear",
            "batchnorm",
            "batch_norm",
            "dropout",
            "softmax",
            "relu",
            "sigmoid",
            "tanh",
            "flatten",
            "identity",
        ]
    ),
    min_size=1,
    max_size=9,
)
INPUTS = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 40).map(lambda features: (features,)),
)


@st.composite
def morphml(draw: st.DrawFn) -> Json:
    """A sampled chain, its output marked or not, mutated a few times."""
    operations = draw(CHAIN)
    ids = draw(st.lists(IDS, min_size=len(operations) + 1, max_size=len(operations) + 1, unique_by=str))
    nodes = [
        {"id": one, "operation": operation, "params": draw(params(operation)), "metadata": {}}
        for one, operation in zip(ids, operations, strict=False)
    ]
    if draw(st.booleans()):
        last = {"units": draw(st.sampled_from([5, 10])), "use_bias": True, "activation": "softmax"}
        nodes.append({"id": ids[-1], "operation": "dense", "params": last, "metadata": {"is_output": True}})
    edges = [{"id": f"e{i}", "source_id": ids[i], "target_id": ids[i + 1]} for i in range(len(nodes) - 1)]
    parsed = {"nodes": nodes, "edges": edges, "metadata": {"search_space": "s"}}
    for _ in range(draw(st.integers(0, 4))):
        draw(st.sampled_from([insert_node, remove_edge, scale, skip, skip, scale]))(draw, parsed)
    return parsed


def insert_node(draw: st.DrawFn, parsed: Json) -> None:
    if parsed["edges"]:
        edge = draw(st.sampled_from(parsed["edges"]))
        operation = draw(st.sampled_from(MUTATION_OPERATIONS))
        new = f"new{len(parsed['nodes'])}"
        parsed["nodes"].append({"id": new, "operation": operation, "params": draw(params(operation))})
        parsed["edges"].remove(edge)
        parsed["edges"].append({"id": "x", "source_id": edge["source_id"], "target_id": new})
        parsed["edges"].append({"id": "x", "source_id": new, "target_id": edge["target_id"]})


def remove_edge(draw: st.DrawFn, parsed: Json) -> None:
    if parsed["edges"]:
        parsed["edges"].remove(draw(st.sampled_from(parsed["edges"])))


def scale(draw: st.DrawFn, parsed: Json) -> None:
    """MorphML's way: integers by powers of two (``use_bias`` too), fractions by up to 2."""
    values = draw(st.sampled_from(parsed["nodes"]))["params"]
    if not values:
        return
    name = draw(st.sampled_from(sorted(values)))
    if isinstance(values[name], int):
        values[name] = max(1, draw(st.sampled_from([values[name] * 2, values[name] * 8, values[name] // 2])))
    elif isinstance(values[name], float):
        values[name] *= draw(st.floats(0.5, 2.0))


def skip(draw: st.DrawFn, parsed: Json) -> None:
    """An edge between any two; now and then against the order, which may close a cycle."""
    nodes = parsed["nodes"]
    ends = [draw(st.integers(0, len(nodes) - 1)) for _ in range(2)]
    if draw(st.integers(0, 9)):
        ends.sort()
    source, target = ends
    position = draw(st.integers(0, len(parsed["edges"])))
    parsed["edges"].insert(position, {"id": "s", "source_id": nodes[source]["id"], "target_id": nodes[target]["id"]})


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([2**31, 2**31 + 1, 2**63, 10**30, -1, 0, 16.0, 0.5, 1e308]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "same", "valid", "relu", "conv2d", "lstm", "input", "a.b", "\ud800", *ACTIVATIONS]),
    st.text(max_size=5),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def broken(draw: st.DrawFn) -> Any:
    """A graph with a few places overwritten, deleted or repeated."""
    parsed: Any = {"root": copy.deepcopy(draw(morphml()))}
    for _ in range(draw(st.integers(1, 2))):
        places = list(places_of(parsed))
        container, key = draw(st.sampled_from(places))
        how = draw(st.integers(0, 9))
        if how < 7:
            container[key] = draw(st.one_of(SCALARS, SCALARS, ANYTHING))
        elif isinstance(container, list) and how == 7:
            container.append(copy.deepcopy(container[key]))
        elif container is not parsed:
            del container[key]
    return parsed["root"]


def places_of(value: Any) -> Any:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places_of(inner)


def affordable(plan: Plan) -> bool:
    """Whether a step is cheap enough for a test: what a search may ask for is only bounded by its hardware."""
    elements = products = 0
    for placed in plan.nodes:
        output = math.prod(placed.output_shape)
        elements += output + math.prod(placed.input_shape)
        if placed.window is not None:
            height, width = placed.window.height, placed.window.width
            elements += placed.input_shape[0] * height.padded * width.padded
            products += output * placed.input_shape[0] * height.size * width.size
    return elements <= ELEMENTS_MAX and products <= PRODUCTS_MAX


@contextmanager
def shapes_compared(module: nn.Module, plan: Plan) -> Iterator[None]:
    """Within the block every node that runs must give the shape that was planned."""
    placed = dict(zip((id(layer) for layer in module.get_submodule("layers").children()), plan.nodes, strict=True))

    def compare(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert tuple(inputs[0].shape[1:]) == placed[id(layer)].input_shape
        assert tuple(output.shape[1:]) == placed[id(layer)].output_shape

    hooks = [layer.register_forward_hook(compare) for layer in module.get_submodule("layers").children()]
    yield
    for hook in hooks:
        hook.remove()


def has_the_planned_shapes(architecture: str, plan: Plan, batch_size: int) -> None:
    """At any size: the meta device computes shapes and nothing else."""
    with torch.device("meta"):
        module = build_module(architecture, plan.input_shape, plan.num_classes).train()
        with shapes_compared(module, plan):
            logits = module(torch.empty(batch_size, *plan.input_shape))
    assert logits.shape == (batch_size, plan.num_classes)
    assert count_parameters(module) == plan.parameters
    cost = estimate_plan(plan)
    assert cost.parameters == plan.parameters
    assert cost.peak_bytes >= max(cost.activation_bytes, cost.sample_bytes, 4 * plan.num_classes)
    assert cost.micro_batches_for(batch_size, cost.training_bytes(batch_size)) == 1


def train_a_step(module: nn.Module, plan: Plan, batch_size: int) -> None:
    """One step by autograd."""
    module.train()
    with shapes_compared(module, plan):
        logits = module(torch.randn(batch_size, *plan.input_shape))
    assert logits.shape == (batch_size, plan.num_classes)
    assert torch.isfinite(logits).all()
    loss = F.cross_entropy(logits, torch.arange(batch_size) % plan.num_classes)
    assert torch.isfinite(loss)
    if loss.requires_grad:
        loss.backward()
        torch.optim.SGD(module.parameters(), lr=0.01).step()
    module.eval()
    with torch.no_grad():
        assert torch.isfinite(module(torch.randn(1, *plan.input_shape))).all()


def check_reason(error: InvalidArchitecture) -> None:
    assert error.message
    assert error.field.startswith(("architecture", "input_shape", "num_classes"))
    if ".nodes[" in error.field and ".id" not in error.field:
        # Of a node it says which; a node that isn't an object has no name.
        assert "node " in error.message or "must be an object" in error.message
    str(error).encode()
    assert str(TenureError.from_json(error.to_json())) == str(error)


def builds_and_trains_or_is_refused(architecture: str, shape: tuple[int, ...], batch_size: int, classes: int) -> str:
    """How it ended: refused, trained, or built on the meta device alone, as it is too large for a test."""
    torch.set_num_threads(1)
    try:
        plan = make_plan(parse_graph(architecture), shape, classes)
    except InvalidArchitecture as error:
        check_reason(error)
        return "refused"
    check_architecture(architecture)
    has_the_planned_shapes(architecture, plan, batch_size)
    if plan.parameters > PARAMETERS_MAX:
        with pytest.raises(InvalidArchitecture) as caught:
            build_module(architecture, shape, classes, max_parameters=PARAMETERS_MAX)
        check_reason(caught.value)
    if plan.parameters > PARAMETERS_MAX or not affordable(plan):
        return "built"
    module = build_module(architecture, shape, classes, max_parameters=PARAMETERS_MAX)
    train_a_step(module, plan, batch_size)
    return "trained"


COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
BATCHES = st.integers(1, 3)
CLASSES = st.sampled_from([1, 5, 10])


@pytest.mark.parametrize("part", range(4))
def test_long_walks_of_mutations(part: int) -> None:
    """16 walks of 40 mutations; `TENURE_GRAPH_WALKS=600` makes it 600. Each graph on the way is looked at.

    Offspring that was refused mostly dies, as in a search; else it is mutated further.
    """
    ends: Counter[str] = Counter()
    for seed in range(part, int(os.environ.get("TENURE_GRAPH_WALKS", "16")), 4):
        draw = random.Random(seed)
        parsed, shape, classes = sampled(draw), input_shape(draw), draw.choice((2, 10))
        healthy = parsed
        for _ in range(40):
            changed = mutated(draw, parsed)
            end = builds_and_trains_or_is_refused(json.dumps(changed), shape, draw.randint(1, 4), classes)
            ends[end] += 1
            healthy = healthy if end == "refused" else changed
            parsed = changed if end != "refused" or draw.random() < 0.2 else healthy
    print(dict(ends))  # noqa: T201 - for whoever runs a long one with -s
    assert ends["trained"] > 20, "walks of refusals alone show nothing"


@settings(COMMON, max_examples=300)
@given(morphml(), INPUTS, BATCHES, CLASSES)
def test_what_morphml_emits(parsed: Json, shape: tuple[int, ...], batch_size: int, classes: int) -> None:
    event(builds_and_trains_or_is_refused(json.dumps(parsed), shape, batch_size, classes))


@settings(COMMON, max_examples=300)
@given(broken(), INPUTS, BATCHES, CLASSES)
def test_broken_graphs(parsed: Any, shape: tuple[int, ...], batch_size: int, classes: int) -> None:
    event(builds_and_trains_or_is_refused(json.dumps(parsed), shape, batch_size, classes))


@settings(COMMON, max_examples=100)
@given(st.one_of(ANYTHING, st.fixed_dictionaries({"nodes": ANYTHING}, optional={"edges": ANYTHING})))
def test_any_json(parsed: Any) -> None:
    try:
        check_graph(parsed)
    except InvalidArchitecture as error:
        check_reason(error)


@settings(COMMON, max_examples=100)
@given(st.text())
def test_any_text(text: str) -> None:
    with pytest.raises(InvalidArchitecture):
        parse_graph(text)
