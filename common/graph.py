"""MorphML's graph JSON as a checked graph: everything that can be known without an input's shape.

The client and the master check with :func:`check_graph` before a worker sees the task; the worker's builder
starts from the same :class:`Graph`. Linear in the size of the JSON, and no recursion: long chains are fine.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from tenure.common import limits
from tenure.common.errors import InvalidArchitecture
from tenure.common.operations import OPERATIONS, SYNONYMS, Layer, Parameters, read_layer, show

_FIELD = "architecture"
_CYCLE_NODES_SHOWN_MAX = 8


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Attributes:
        index: Its position in ``nodes``.
        id: Any text but the empty one; integer ids have become text.
        operation: The operation's name without synonyms (``maxpool``, never ``max_pool``).
        layer: The operation with its parameters.
        activation: What is applied to the layer's value; None for nothing.
        is_output: Whether it is marked as the network's output.
        predecessors: Positions of the nodes whose values it takes, one for each edge, in their order.
    """

    index: int
    id: str
    operation: str
    layer: Layer
    activation: str | None
    is_output: bool
    predecessors: tuple[int, ...]

    @property
    def name(self) -> str:
        """How messages name it."""
        return _name(self.id, self.operation)

    @property
    def field(self) -> str:
        """Its dotted path, for messages."""
        return f"{_FIELD}.nodes[{self.index}]"


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph without cycles.

    Attributes:
        nodes: As listed.
        order: All positions, predecessors first.
        output: The position of the network's output.
        leading: Those of ``order`` that the output is made of, the output last.
    """

    nodes: tuple[Node, ...]
    order: tuple[int, ...]
    output: int
    leading: tuple[int, ...]


def parse_graph(text: str) -> Graph:
    """The graph in a JSON text.

    Raises:
        InvalidArchitecture: As :func:`parse_json` and :func:`check_graph`.
    """
    return check_graph(parse_json(text))


def parse_json(text: str) -> object:
    """What a JSON text holds.

    Raises:
        InvalidArchitecture: Longer than the limit, not JSON (NaN and Infinity are not), nested too deeply for
            the parser, or with a name twice in one object (which value counts would be up to the reader).
    """
    if not isinstance(text, str):
        raise InvalidArchitecture("must be JSON text", field=_FIELD, given=type(text).__name__)
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > limits.ARCHITECTURE_BYTES_MAX:
        raise InvalidArchitecture(
            f"is {size} bytes long",
            field=_FIELD,
            expected=f"at most {limits.ARCHITECTURE_BYTES_MAX} bytes are allowed",
        )
    try:
        parsed: object = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except RecursionError:
        _too_deep()
    except ValueError as error:
        raise InvalidArchitecture(
            f"is not JSON: {error}", field=_FIELD, given=show(text), expected="give a JSON text"
        ) from None
    return parsed


def check_graph(parsed: object) -> Graph:
    """The graph in what ``json.loads`` returned.

    Raises:
        InvalidArchitecture: Naming the field and the node, what was given and what would be right.
    """
    _check_depth(parsed)
    if not isinstance(parsed, dict):
        raise InvalidArchitecture(
            "must be an object",
            field=_FIELD,
            given=show(parsed),
            expected='for example {"nodes": […], "edges": […]}',
        )
    _object(parsed, "metadata", _FIELD)
    raw_nodes = _objects(parsed, "nodes", limits.ARCHITECTURE_NODES_MAX)
    raw_edges = _objects(parsed, "edges", limits.ARCHITECTURE_EDGES_MAX)
    if not raw_nodes:
        raise InvalidArchitecture("has no node", field=f"{_FIELD}.nodes", expected="give at least one")

    positions = _read_ids(raw_nodes)
    predecessors = _read_edges(raw_edges, positions)
    nodes = tuple(
        _read_node(raw, index, node_id, predecessors[index])
        for index, (raw, node_id) in enumerate(zip(raw_nodes, positions, strict=True))
    )
    order = _topological_order(nodes)
    output = _output(nodes)
    return Graph(nodes=nodes, order=order, output=output, leading=_leading(nodes, order, output))


def _read_ids(raw_nodes: Sequence[Mapping[str, object]]) -> dict[str, int]:
    """Ids to positions, in the order of ``nodes``."""
    positions: dict[str, int] = {}
    for index, raw in enumerate(raw_nodes):
        where = f"{_FIELD}.nodes[{index}]"
        node_id = _identifier(raw, "id", where)
        if node_id in positions:
            raise InvalidArchitecture(
                f"node {show(node_id)} is there twice",
                field=f"{where}.id",
                given=show(raw["id"]),
                expected=f"nodes[{positions[node_id]}] has this id already",
            )
        positions[node_id] = index
    return positions


def _read_edges(raw_edges: Sequence[Mapping[str, object]], positions: Mapping[str, int]) -> list[tuple[int, ...]]:
    """Each node's predecessors, in the order of ``edges``."""
    predecessors: list[list[int]] = [[] for _ in positions]
    for index, raw in enumerate(raw_edges):
        where = f"{_FIELD}.edges[{index}]"
        _identifier(raw, "id", where)
        _object(raw, "metadata", where)
        ends = []
        for name in ("source_id", "target_id"):
            node_id = _identifier(raw, name, where)
            if node_id not in positions:
                raise InvalidArchitecture(
                    f"there is no node {show(node_id)}",
                    field=f"{where}.{name}",
                    given=show(raw[name]),
                    expected="give the id of one of the nodes",
                )
            ends.append(positions[node_id])
        source, target = ends
        predecessors[target].append(source)
    return [tuple(sources) for sources in predecessors]


def _read_node(raw: Mapping[str, object], index: int, node_id: str, predecessors: tuple[int, ...]) -> Node:
    where = f"{_FIELD}.nodes[{index}]"
    operation = raw.get("operation")
    if not isinstance(operation, str):
        raise InvalidArchitecture(
            f"node {show(node_id)}: " + ("has no operation" if operation is None else "operation must be text"),
            field=f"{where}.operation",
            given=None if operation is None else show(operation),
            expected=f"one of {', '.join(OPERATIONS)}",
        )
    params = Parameters(_object(raw, "params", where, node_id), f"{where}.params", _name(node_id, operation))
    layer = read_layer(operation, params)
    if layer is None:
        raise InvalidArchitecture(
            f"node {show(node_id)}: unknown operation",
            field=f"{where}.operation",
            given=show(operation),
            expected=f"one of {', '.join(OPERATIONS)}",
        )
    marked = _object(raw, "metadata", where, node_id).get("is_output")
    if marked is not None and not isinstance(marked, bool):
        raise InvalidArchitecture(
            f"node {show(node_id)}: is_output must be true or false",
            field=f"{where}.metadata.is_output",
            given=show(marked),
        )
    return Node(
        index=index,
        id=node_id,
        operation=SYNONYMS.get(operation, operation),
        layer=layer,
        activation=params.activation(),
        is_output=bool(marked),
        predecessors=predecessors,
    )


def _topological_order(nodes: Sequence[Node]) -> tuple[int, ...]:
    """All positions, predecessors first (Kahn's algorithm, so in a fixed order)."""
    successors: list[list[int]] = [[] for _ in nodes]
    missing = [len(node.predecessors) for node in nodes]
    for node in nodes:
        for source in node.predecessors:
            successors[source].append(node.index)
    ready = deque(node.index for node in nodes if not node.predecessors)
    order: list[int] = []
    while ready:
        index = ready.popleft()
        order.append(index)
        for target in successors[index]:
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    if len(order) < len(nodes):
        _refuse_cycle(nodes, {index for index, count in enumerate(missing) if count})
    return tuple(order)


def _refuse_cycle(nodes: Sequence[Node], unordered: set[int]) -> NoReturn:
    # Each node left has a predecessor that is left, so walking back from any must come round.
    path: list[int] = []
    steps: dict[int, int] = {}
    index = next(node.index for node in nodes if node.index in unordered)
    while index not in steps:
        steps[index] = len(path)
        path.append(index)
        index = next(source for source in nodes[index].predecessors if source in unordered)
    first, *rest = path[steps[index] :]
    cycle = [first, *reversed(rest)]
    shown = [show(nodes[position].id) for position in cycle[:_CYCLE_NODES_SHOWN_MAX]]
    if len(cycle) > len(shown):
        shown.append("…")
    raise InvalidArchitecture(
        f"has a cycle of {len(cycle)} nodes: {' → '.join([*shown, shown[0]])}",
        field=f"{_FIELD}.edges",
        expected="remove one of these edges",
    )


def _output(nodes: Sequence[Node]) -> int:
    """The first node marked as output, else the first without successors."""
    marked = next((node.index for node in nodes if node.is_output), None)
    if marked is not None:
        return marked
    sources = {source for node in nodes for source in node.predecessors}
    return next(node.index for node in nodes if node.index not in sources)


def _leading(nodes: Sequence[Node], order: Sequence[int], output: int) -> tuple[int, ...]:
    needed = {output}
    for index in reversed(order):
        if index in needed:
            needed.update(nodes[index].predecessors)
    return tuple(index for index in order if index in needed)


def _objects(parsed: Mapping[str, object], name: str, most: int) -> list[Mapping[str, object]]:
    where = f"{_FIELD}.{name}"
    value = parsed.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidArchitecture("must be a list of objects", field=where, given=show(value))
    if len(value) > most:
        raise InvalidArchitecture(f"has {len(value)} entries", field=where, expected=f"at most {most} are allowed")
    for index, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise InvalidArchitecture("must be an object", field=f"{where}[{index}]", given=show(entry))
    return value


def _object(raw: Mapping[str, object], name: str, where: str, node_id: str | None = None) -> Mapping[str, object]:
    value = raw.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        node = "" if node_id is None else f"node {show(node_id)}: "
        raise InvalidArchitecture(f"{node}{name} must be an object", field=f"{where}.{name}", given=show(value))
    return value


def _identifier(raw: Mapping[str, object], name: str, where: str) -> str:
    value = raw.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise InvalidArchitecture(
            f"has no {name}" if value is None else f"{name} can't be that",
            field=f"{where}.{name}",
            given=None if value is None else show(value),
            expected="give a text that isn't empty, or an integer",
        )
    return value


def _check_depth(parsed: object) -> None:
    level, depth = [parsed], 0
    while level := [value for value in level if isinstance(value, dict | list)]:
        depth += 1
        if depth > limits.ARCHITECTURE_DEPTH_MAX:
            _too_deep()
        level = [value for outer in level for value in (outer.values() if isinstance(outer, dict) else outer)]


def _too_deep() -> NoReturn:
    raise InvalidArchitecture(
        "is nested too deeply",
        field=_FIELD,
        expected=f"at most {limits.ARCHITECTURE_DEPTH_MAX} levels are allowed",
    )


def _name(node_id: str, operation: str) -> str:
    return f"node {show(node_id)} ({operation})"


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not allowed")


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"{show(name)} is there twice in one object")
        result[name] = value
    return result
