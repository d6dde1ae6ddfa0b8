"""Graphs as MorphML's search spaces emit them, and its mutations, any number of them one after the other.

From what docs/protocol.md and docs/architectures.md say of MorphML 1.0. Nothing there stops a mutation that
makes no sense.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]

ACTIVATIONS = ("relu", "elu", "selu", "gelu", "swish", "tanh", "sigmoid", "leaky_relu", "linear", "softmax")
# What a mutation may put into the middle of an edge, or turn a node into: the search spaces' names and the language's.
OPERATIONS = (
    "conv2d",
    "maxpool",
    "avgpool",
    "dense",
    "relu",
    "batchnorm",
    "dropout",
    "flatten",
    "identity",
    "softmax",
    "max_pool",
    "avg_pool",
    "batch_norm",
    "linear",
    "tanh",
    "sigmoid",
)
# The models of later versions know more than its builder, and than ours.
UNKNOWN_OPERATIONS = ("lstm", "conv1d", "attention", "Conv2D")


def sampled(draw: random.Random) -> Json:
    """A graph of one of the search spaces, or of the text language."""
    return draw.choice((cnn, cnn, mlp, from_text))(draw)


def mutated(draw: random.Random, parsed: Json) -> Json:
    """The graph after one mutation; the original stays as it is."""
    changed = copy.deepcopy(parsed)
    draw.choice(MUTATIONS)(draw, changed)
    return changed


def input_shape(draw: random.Random) -> tuple[int, ...]:
    """What the data set may have."""
    if draw.random() < 0.1:
        return (draw.randint(1, 40),)
    return (draw.randint(1, 3), draw.randint(1, 16), draw.randint(1, 16))


def cnn(draw: random.Random) -> Json:
    """As the CNN search space spells it."""
    layers: list[tuple[str, Json]] = [("input", {"shape": [3, 32, 32]})]
    for _ in range(draw.randint(1, 3)):
        layers.append(("conv2d", _conv(draw)))
        if draw.random() < 0.5:
            layers.append(("batchnorm", {}))
        if draw.random() < 0.5:
            layers.append((draw.choice(("maxpool", "avgpool")), _pool(draw)))
        if draw.random() < 0.4:
            layers.append(("dropout", {"rate": draw.choice((0.1, 0.25, 0.5))}))
    layers.append(("flatten", {}))
    layers.append(("dense", _dense(draw, draw.choice((16, 64)))))
    return _chain(draw, layers)


def mlp(draw: random.Random) -> Json:
    """As the MLP search space spells it."""
    layers: list[tuple[str, Json]] = [("input", {"shape": [784]})]
    for _ in range(draw.randint(1, 4)):
        layers.append(("dense", _dense(draw, draw.choice((8, 16, 64)))))
        if draw.random() < 0.3:
            layers.append(("dropout", {"rate": draw.choice((0.1, 0.3, 0.5))}))
    return _chain(draw, layers)


def from_text(draw: random.Random) -> Json:
    """As the text language writes it: other names, integers for padding, ids as it numbers them."""
    layers: list[tuple[str, Json]] = []
    for _ in range(draw.randint(1, 3)):
        layers.append(("conv2d", {"filters": draw.choice((4, 8)), "kernel_size": 3, "padding": draw.choice((0, 1))}))
        layers.append(("batch_norm", {}))
        layers.append((draw.choice(("relu", "tanh", "sigmoid")), {}))
        layers.append((draw.choice(("max_pool", "avg_pool")), {"pool_size": 2, "stride": draw.choice((1, 2, None))}))
    layers.append(("linear", {"units": draw.choice((16, 32))}))
    return _chain(draw, layers, output=("output", {"units": 10}))


def _conv(draw: random.Random) -> Json:
    size = draw.choice((1, 3, 5, 7))
    return {
        "filters": draw.choice((4, 8, 16)),
        "kernel_size": draw.choice((size, [size, size])),
        "strides": draw.choice((1, 2, [1, 1])),
        "padding": draw.choice(("same", "valid")),
        "activation": draw.choice(ACTIVATIONS),
        "use_bias": draw.random() < 0.8,
    }


def _pool(draw: random.Random) -> Json:
    return {"pool_size": draw.choice((2, 3)), "strides": draw.choice((1, 2)), "padding": draw.choice(("valid", "same"))}


def _dense(draw: random.Random, units: int) -> Json:
    return {"units": units, "use_bias": True, "activation": draw.choice((*ACTIVATIONS, None))}


def _chain(draw: random.Random, layers: list[tuple[str, Json]], output: tuple[str, Json] | None = None) -> Json:
    last = output or ("dense", {"units": 10, "activation": "softmax"})
    nodes = [_node(draw, operation, params) for operation, params in (*layers, last)]
    if draw.random() < 0.8:
        nodes[-1]["metadata"]["is_output"] = True
    edges = [_edge(draw, nodes[i]["id"], nodes[i + 1]["id"]) for i in range(len(nodes) - 1)]
    return {"nodes": nodes, "edges": edges, "metadata": {"search_space": "cnn"}}


def _node(draw: random.Random, operation: str, params: Json) -> Json:
    return {
        "id": f"{operation}_{draw.getrandbits(32):08x}",
        "operation": operation,
        "params": copy.deepcopy(params),
        "metadata": {},
        "predecessor_ids": [],
        "successor_ids": ["gone"],
    }


def _edge(draw: random.Random, source: str, target: str) -> Json:
    name = f"edge_{draw.getrandbits(32):08x}"
    return {"id": name, "source_id": source, "target_id": target, "operation": None, "metadata": {}}


def _params(draw: random.Random, operation: str) -> Json:
    match operation:
        case "conv2d":
            return draw.choice((_conv(draw), {"filters": draw.choice((2, 8)), "kernel_size": 3}, {}))
        case "maxpool" | "avgpool" | "max_pool" | "avg_pool":
            return draw.choice((_pool(draw), {}))
        case "dense" | "linear":
            return draw.choice((_dense(draw, draw.choice((8, 32))), {}))
        case "dropout":
            return {"rate": draw.choice((0.1, 0.5, 0.9))}
    return {}


# -- mutations ------------------------------------------------------------------------------------------------------


def add_node(draw: random.Random, parsed: Json) -> None:
    """A node in the middle of an edge."""
    if not parsed["edges"]:
        return
    edge = draw.choice(parsed["edges"])
    operation = draw.choice(OPERATIONS)
    new = _node(draw, operation, _params(draw, operation))
    parsed["nodes"].append(new)
    parsed["edges"].remove(edge)
    parsed["edges"] += [_edge(draw, edge["source_id"], new["id"]), _edge(draw, new["id"], edge["target_id"])]


def remove_node(draw: random.Random, parsed: Json) -> None:
    """A node with its edges; now and then its neighbours are joined, now and then an edge is forgotten."""
    if len(parsed["nodes"]) < 2:
        return
    gone = draw.choice(parsed["nodes"])
    parsed["nodes"].remove(gone)
    sources = [edge["source_id"] for edge in parsed["edges"] if edge["target_id"] == gone["id"]]
    targets = [edge["target_id"] for edge in parsed["edges"] if edge["source_id"] == gone["id"]]
    if draw.random() < 0.98:
        parsed["edges"] = [one for one in parsed["edges"] if gone["id"] not in (one["source_id"], one["target_id"])]
    if draw.random() < 0.7:
        parsed["edges"] += [_edge(draw, source, target) for source in sources for target in targets]


def scale(draw: random.Random, parsed: Json) -> None:
    """Any integer by a factor, booleans too (in Python they are integers); fractions too, beyond 1 if it happens."""
    node = draw.choice(parsed["nodes"])
    numbers = [name for name, value in node["params"].items() if isinstance(value, int | float)]
    if not numbers:
        return
    name, factor = draw.choice(numbers), draw.choice((0.5, 0.8, 1.25, 1.5, 2, 4))
    value = node["params"][name]
    node["params"][name] = int(value * factor) if isinstance(value, int) else value * factor


def nudge(draw: random.Random, parsed: Json) -> None:
    """Any integer up or down, below 1 if it happens; mostly it is held at 1."""
    node = draw.choice(parsed["nodes"])
    numbers = [name for name, value in node["params"].items() if isinstance(value, int)]
    if numbers:
        name = draw.choice(numbers)
        moved = node["params"][name] + draw.choice((-2, -1, 1, 2))
        node["params"][name] = moved if draw.random() < 0.1 else max(1, moved)


def skip(draw: random.Random, parsed: Json) -> None:
    """An edge from an earlier node of the list to a later one, whatever their shapes; seldom the other way round."""
    ends = [draw.randrange(len(parsed["nodes"])) for _ in range(2)]
    if draw.random() < 0.95:
        ends.sort()
        if ends[0] == ends[1]:
            return
    source, target = (parsed["nodes"][index]["id"] for index in ends)
    parsed["edges"].insert(draw.randint(0, len(parsed["edges"])), _edge(draw, source, target))


def remove_edge(draw: random.Random, parsed: Json) -> None:
    """Any edge: what hung on it gets the network's input, or leads nowhere."""
    if parsed["edges"]:
        parsed["edges"].remove(draw.choice(parsed["edges"]))


def change_operation(draw: random.Random, parsed: Json) -> None:
    """A node becomes another; its parameters stay, whether the new operation has them or not."""
    node = draw.choice(parsed["nodes"])
    node["operation"] = draw.choice(UNKNOWN_OPERATIONS) if draw.random() < 0.02 else draw.choice(OPERATIONS)
    if draw.random() < 0.5:
        node["params"] = _params(draw, node["operation"])


def change_parameter(draw: random.Random, parsed: Json) -> None:
    """A parameter from another spelling, or none."""
    params = draw.choice(parsed["nodes"])["params"]
    name, values = draw.choice(
        (
            ("activation", (*ACTIVATIONS, None, "none")),
            ("padding", ("same", "valid", 0, 1, 2, [1, 0], None)),
            ("stride", (1, 2, 3, [2, 1], None)),
            ("strides", (1, 2, [1, 2])),
            ("pool_size", (1, 2, 3, [2, 1])),
            ("kernel_size", (1, 3, 4, 5, [1, 7], [5, 3])),
            ("rate", (0.0, 0.3, 0.99)),
            ("use_bias", (True, False, None)),
            ("name", ("layer", 3, {"of": ["anything"]})),
        )
    )
    params[name] = copy.deepcopy(draw.choice(values))


def move_output(draw: random.Random, parsed: Json) -> None:
    """Another node is marked, too; or none is any more."""
    if draw.random() < 0.3:
        for node in parsed["nodes"]:
            node["metadata"].pop("is_output", None)
    else:
        draw.choice(parsed["nodes"])["metadata"]["is_output"] = True


def cross(draw: random.Random, parsed: Json) -> None:
    """Another graph's nodes beside these, with an edge between the two."""
    if len(parsed["nodes"]) > 40:
        return
    other = draw.choice((cnn, mlp, from_text))(draw)
    source = draw.choice(parsed["nodes"])["id"]
    target = draw.choice(other["nodes"])["id"]
    parsed["nodes"] += other["nodes"]
    parsed["edges"] += [*other["edges"], _edge(draw, source, target)]


Mutation = Callable[[random.Random, Json], None]
MUTATIONS: tuple[Mutation, ...] = (
    add_node,
    add_node,
    remove_node,
    scale,
    scale,
    nudge,
    skip,
    skip,
    remove_edge,
    change_operation,
    change_parameter,
    move_output,
    cross,
)
