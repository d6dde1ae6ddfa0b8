"""Graph JSON in few words, for tests."""

from __future__ import annotations

import itertools
import json
from typing import Any


def node(node_id: Any, operation: Any, metadata: Any = None, /, **params: Any) -> dict[str, Any]:
    """One node; ``params`` by name."""
    return {
        "id": node_id,
        "operation": operation,
        "params": params,
        "metadata": metadata or {},
        "predecessor_ids": [],
        "successor_ids": [],
    }


def graph(nodes: list[dict[str, Any]], edges: list[tuple[Any, Any]]) -> dict[str, Any]:
    """A graph with these edges, in this order."""
    return {
        "nodes": nodes,
        "edges": [
            {"id": f"e{index}", "source_id": source, "target_id": target, "operation": None, "metadata": {}}
            for index, (source, target) in enumerate(edges)
        ],
        "metadata": {},
    }


def chain(*nodes: dict[str, Any]) -> dict[str, Any]:
    """A graph with these nodes one behind the other."""
    ids = [one["id"] for one in nodes]
    return graph(list(nodes), list(itertools.pairwise(ids)))


def text(parsed: Any) -> str:
    """As JSON."""
    return json.dumps(parsed)
