"""Estimates against what torch counts, keeps and allocates."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphs import chain, graph, node, text
from morphml_graphs import mutated, sampled
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tenure.common.errors import InvalidArchitecture, InvalidInput
from tenure.common.estimate import OPTIMIZER_SLOTS, Estimate, estimate, estimate_plan, show_bytes
from tenure.common.graph import parse_graph
from tenure.common.shapes import make_plan
from tenure.worker.torch_eval import build_module
from tenure.worker.torch_eval.options import OPTIONS

pytestmark = pytest.mark.torch

IMAGE, ROWS, CLASSES = (3, 16, 16), 8, 10
CONVOLUTIONS = chain(
    node("c1", "conv2d", filters=16, padding="same", activation="relu"),
    node("norm", "batchnorm"),
    node("c2", "conv2d", filters=32, use_bias=False, stride=2, activation="gelu"),
    node("pool", "maxpool"),
    node("drop", "dropout", rate=0.3),
    node("wide", "dense", units=64, activation="tanh"),
    node("out", "dense", units=CLASSES, activation="softmax"),
)
UNEVEN = chain(
    node("c", "conv2d", filters=8, kernel_size=4, padding="same", activation="swish"),
    node("m", "maxpool", stride=1, padding="same"),
    node("a", "avgpool", pool_size=3),
    node("f", "flatten", activation="elu"),
    node("i", "identity", activation="softmax"),
)
DENSE = chain(
    node("a", "dense", units=256, activation="selu"),
    node("b", "batch_norm", activation="leaky_relu"),
    node("c", "dense", units=128, activation="sigmoid"),
    node("d", "dropout", rate=0.0),
    node("e", "softmax"),
)
# A value that is concatenated twice, and a flat one that meets an image.
SKIPS = graph(
    [node("a", "conv2d", filters=8), node("b", "relu"), node("c", "dense", units=20), node("d", "dense", units=30)],
    [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"), ("a", "d")],
)
# Images of two sizes: pooled to the smaller one.
POOLED = graph(
    [node("a", "conv2d", filters=8), node("b", "maxpool"), node("c", "conv2d", filters=8), node("d", "conv2d")],
    [("a", "b"), ("b", "c"), ("a", "d"), ("c", "d")],
)
# Nodes before the first parameter, and one that leads nowhere.
IDLE = graph(
    [node("r", "relu"), node("p", "maxpool"), node("o", "dense", {"is_output": True}), node("x", "dense", units=50)],
    [("r", "p"), ("p", "o"), ("p", "x")],
)
GRAPHS = {"convolutions": CONVOLUTIONS, "uneven": UNEVEN, "dense": DENSE, "skips": SKIPS, "idle": IDLE}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def estimated(parsed: Any, **how: Any) -> Estimate:
    return estimate(text(parsed), IMAGE, CLASSES, **how)


def built(parsed: Any) -> nn.Module:
    return build_module(text(parsed), IMAGE, CLASSES).train()


def kept_for_backward(module: nn.Module, inputs: Tensor, **autocast: Any) -> int:
    """Bytes of the storages that autograd keeps, without parameters and buffers."""
    own = {one.untyped_storage().data_ptr() for one in (*module.parameters(), *module.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(saved: Tensor) -> Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved
        return saved

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved)
    with hooks, torch.autocast("cpu", **(autocast or {"enabled": False})):
        module(inputs)
    return sum(saved.untyped_storage().nbytes() for pointer, saved in kept.items() if pointer not in own)


def norm_statistics(module: nn.Module) -> int:
    """Mean and inverse deviation of each batch norm's channels in this batch."""
    return sum(8 * one.num_features for one in module.modules() if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d))


def allocated_at_most(work: Callable[[], object]) -> int:
    """The peak of what torch allocates on the CPU meanwhile, beyond what there was."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        work()
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    events = [one for one in profile.profiler.kineto_results.events() if one.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


@pytest.mark.parametrize("name", [*GRAPHS, "pooled"])
def test_flops_and_parameters_are_those_that_torch_counts(name: str) -> None:
    parsed = {**GRAPHS, "pooled": POOLED}[name]
    module, got = built(parsed), estimated(parsed)
    with FlopCounterMode(display=False) as counter:
        module(torch.randn(ROWS, *IMAGE))
    assert got.flops * ROWS == counter.get_total_flops()
    assert got.parameters == sum(one.numel() for one in module.parameters())


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_kept_for_backward_is_what_autograd_keeps(name: str) -> None:
    module = built(GRAPHS[name])
    kept = kept_for_backward(module, torch.randn(ROWS, *IMAGE))
    assert kept == estimated(GRAPHS[name]).activation_bytes * ROWS + norm_statistics(module)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_of_mutated_graphs_is_what_autograd_keeps(seed: int) -> None:
    draw, looked_at = random.Random(seed), 0
    parsed = sampled(draw)
    for _ in range(40):
        changed = mutated(draw, parsed)
        try:
            plan = make_plan(parse_graph(text(changed)), IMAGE, CLASSES)
        except InvalidArchitecture:
            continue
        parsed = changed
        got = estimate_plan(plan)
        if plan.parameters > 300_000 or got.peak_bytes > 2**20:
            continue
        module = build_module(text(changed), IMAGE, CLASSES).train()
        layers = list(module.get_submodule("layers").children())
        statistics = sum(norm_statistics(layers[index]) for index in plan.graph.leading)
        kept = kept_for_backward(module, torch.randn(ROWS, *IMAGE))
        estimate_bytes = got.activation_bytes * ROWS + statistics
        pools = any(placed.merge.pool_to for placed in plan.nodes)
        assert kept <= estimate_bytes if pools else kept == estimate_bytes, text(changed)
        looked_at += 1
    assert looked_at > 5


def test_pooled_merges_are_estimated_no_lower_than_they_are() -> None:
    kept = kept_for_backward(built(POOLED), torch.randn(ROWS, *IMAGE))
    assert kept <= estimated(POOLED).activation_bytes * ROWS <= 1.2 * kept


@pytest.mark.parametrize("name", ["convolutions", "dense", "skips"])
def test_autocast_keeps_about_what_is_estimated(name: str) -> None:
    module = built(GRAPHS[name])
    kept = kept_for_backward(module, torch.randn(64, *IMAGE), dtype=torch.bfloat16)
    got = estimated(GRAPHS[name], precision="bfloat16")
    # With the copies of the weights, where these are needed for a gradient.
    assert 0.7 * got.activation_bytes * 64 <= kept <= 1.3 * (got.activation_bytes * 64 + 2 * got.parameters)
    assert got.activation_bytes < estimated(GRAPHS[name]).activation_bytes


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("name", [*GRAPHS, "pooled"])
def test_the_peak_of_training_is_within_the_bounds_that_are_documented(name: str, optimizer: str) -> None:
    parsed, rows = {**GRAPHS, "pooled": POOLED}[name], 32
    make = {
        "sgd": lambda parameters: torch.optim.SGD(parameters, momentum=0.9),
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }[optimizer]

    def train() -> None:
        module = built(parsed)
        optimized = make(module.parameters())
        for _ in range(2):
            inputs, targets = torch.randn(rows, *IMAGE), torch.arange(rows) % CLASSES
            loss = F.cross_entropy(module(inputs), targets)
            optimized.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimized.step()
            del loss
            with torch.no_grad():
                module.eval()(torch.randn(2 * rows, *IMAGE))
            module.train()

    measured = allocated_at_most(train)
    assert 0.65 <= measured / estimated(parsed, optimizer=optimizer).training_bytes(rows) <= 1.1


def test_every_optimizer_of_the_trainer_is_known() -> None:
    choices = next(option.choices for option in OPTIONS if option.name == "optimizer")
    assert set(choices) <= set(OPTIMIZER_SLOTS)


def test_micro_batches_leave_what_does_not_depend_on_the_batch() -> None:
    got = estimated(CONVOLUTIONS)
    whole, parts = got.training_bytes(64), got.training_bytes(64, 8)
    assert got.fixed_bytes < parts < whole / 3
    assert got.training_bytes(64, 64) > got.fixed_bytes + got.peak_bytes


def test_a_limit_chooses_the_fewest_micro_batches() -> None:
    got = estimated(CONVOLUTIONS)
    assert got.micro_batches_for(64, got.training_bytes(64)) == 1
    assert got.micro_batches_for(64, got.training_bytes(64) - 1) == 2
    assert got.micro_batches_for(64, got.training_bytes(64, 8)) == 8
    assert got.micro_batches_for(64, got.training_bytes(64), at_least=4) == 4
    assert got.micro_batches_for(48, got.training_bytes(48, 24)) == 24
    assert got.micro_batches_for(64, got.training_bytes(64, 32) - 1) is None
    assert got.micro_batches_for(1, got.training_bytes(1)) == 1
    assert got.micro_batches_for(64, got.fixed_bytes) is None


def test_unknown_words_are_refused() -> None:
    with pytest.raises(InvalidInput, match="optimizer: is unknown"):
        estimated(DENSE, optimizer="lion")
    with pytest.raises(InvalidInput, match="precision: is unknown"):
        estimated(DENSE, precision="int8")
    with pytest.raises(InvalidArchitecture, match="needs an image"):
        estimate(text(CONVOLUTIONS), (12,), CLASSES)


def test_a_chain_of_20_000_nodes_is_no_matter() -> None:
    got = estimated(chain(*(node(index, "relu") for index in range(20_000))))
    assert got.flops == 2 * math.prod(IMAGE) * CLASSES
    assert got.peak_bytes < 10 * math.prod(IMAGE) * 4


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**30, "3 GiB"), (2**50, "1.02e+03 TiB")]
)
def test_bytes_for_people(count: int, shown: str) -> None:
    assert show_bytes(count) == shown
