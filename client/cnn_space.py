"""A space of small convolutional networks over an Optuna trial, as MorphML graph JSON.

A network is a chain of blocks (convolution, batch normalisation, activation, pooling), each with an optional skip
connection around it, then a dense layer with dropout and the output. Every graph in the space is valid: convolutions
pad to the same size, and pooling happens only where the image is large enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenure.common.errors import InvalidInput

if TYPE_CHECKING:
    from optuna.trial import Trial

# Images larger than this are pooled after every block, so that the dense layer stays small.
_SIZE_UNPOOLED_MAX = 8
_SIZE_POOLABLE_MIN = 4

_SHAPES = {"digits": (8, 10), "mnist-5k": (28, 10)}


@dataclass(frozen=True)
class CnnSpace:
    """Convolutional networks for square images; call it with a trial to get a graph.

    Attributes:
        image_size: Height and width of an image.
        num_classes: Width of the output.
        blocks_max: Most blocks in the chain.
        filters: Choices for a block's filters.
        kernel_sizes: Choices for its kernel.
        dense_units: Choices for the dense layer; 0 leaves it out.
        dropout_max: Below 1.
    """

    image_size: int = 8
    num_classes: int = 10
    blocks_max: int = 3
    filters: Sequence[int] = (16, 32, 64)
    kernel_sizes: Sequence[int] = (3, 5)
    dense_units: Sequence[int] = (0, 64, 128)
    dropout_max: float = 0.5

    def __call__(self, trial: Trial) -> dict[str, Any]:
        """The graph that the trial's parameters describe. The same parameters give the same graph."""
        graph = _Graph()
        ends = [graph.add("input", {}, [])]
        activation = trial.suggest_categorical("activation", ["relu", "elu", "gelu"])
        size = self.image_size
        for block in range(trial.suggest_int("blocks", 1, self.blocks_max)):
            ends, size = self._block(trial, graph, f"block{block}", ends, size, activation)
        units = trial.suggest_categorical("dense_units", list(self.dense_units))
        if units:
            ends = [graph.add("dense", {"units": units, "activation": activation}, ends)]
        rate = trial.suggest_float("dropout", 0.0, self.dropout_max, step=0.1)
        if rate:
            ends = [graph.add("dropout", {"rate": rate}, ends)]
        graph.add("dense", {"units": self.num_classes, "activation": "softmax"}, ends, metadata={"is_output": True})
        return graph.to_json()

    def _block(
        self, trial: Trial, graph: _Graph, name: str, sources: list[str], size: int, activation: str
    ) -> tuple[list[str], int]:
        """Appends a block; returns the nodes whose values go on, and the image's size there."""
        convolution = {
            "filters": trial.suggest_categorical(f"{name}_filters", list(self.filters)),
            "kernel_size": trial.suggest_categorical(f"{name}_kernel", list(self.kernel_sizes)),
            "padding": "same",
        }
        if trial.suggest_categorical(f"{name}_batchnorm", [True, False]):
            convolved = graph.add("conv2d", {**convolution, "use_bias": False}, sources)
            end = graph.add("batchnorm", {"activation": activation}, [convolved])
        else:
            end = graph.add("conv2d", {**convolution, "activation": activation}, sources)
        if size >= _SIZE_POOLABLE_MIN:
            pools = ["maxpool", "avgpool", *(["none"] if size <= _SIZE_UNPOOLED_MAX else [])]
            pool = trial.suggest_categorical(f"{name}_pool_{len(pools)}", pools)
            if pool != "none":
                end = graph.add(pool, {"pool_size": 2}, [end])
                size //= 2
        if trial.suggest_categorical(f"{name}_skip", [False, True]):
            # The next layer takes both: channels are concatenated, after pooling to the smaller size.
            return [end, *sources], size
        return [end], size


def cnn_space_for(dataset: str) -> CnnSpace:
    """The space for one of the named data sets.

    Raises:
        InvalidInput: It isn't one of ``digits`` and ``mnist-5k``; make a :class:`CnnSpace` for your own.
    """
    if dataset not in _SHAPES:
        raise InvalidInput(
            "no space is known for it", field="dataset", given=dataset, expected=f"one of {', '.join(_SHAPES)}"
        )
    image_size, num_classes = _SHAPES[dataset]
    return CnnSpace(image_size=image_size, num_classes=num_classes)


class _Graph:
    """Collects nodes and edges in MorphML's form."""

    def __init__(self) -> None:
        self._nodes: list[dict[str, Any]] = []
        self._edges: list[dict[str, Any]] = []

    def add(
        self,
        operation: str,
        params: dict[str, Any],
        sources: Sequence[str],
        *,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """Append a node that takes the values of ``sources``, in this order; returns its id."""
        node_id = f"{operation}_{len(self._nodes)}"
        self._nodes.append({"id": node_id, "operation": operation, "params": params, "metadata": metadata or {}})
        for source in sources:
            edge = {"id": f"edge_{len(self._edges)}", "source_id": source, "target_id": node_id}
            self._edges.append(edge)
        return node_id

    def to_json(self) -> dict[str, Any]:
        """The graph."""
        return {"nodes": self._nodes, "edges": self._edges, "metadata": {}}
