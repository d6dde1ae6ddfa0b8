"""How operations become one network: merging, the output, the head, names, limits, and life as a torch module."""

from __future__ import annotations

import copy
import io
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphs import chain, graph, node, text
from torch import Tensor, nn

from tenure.common import limits
from tenure.common.errors import InvalidArchitecture
from tenure.common.operations import ACTIVATIONS, NO_ACTIVATION, OPERATIONS
from tenure.worker.torch_eval import build_module, count_parameters
from tenure.worker.torch_eval.layers import pool_to

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _quiet_torch() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def build(parsed: Any, shape: tuple[int, ...], classes: int, **how: Any) -> nn.Module:
    return build_module(text(parsed), shape, classes, **how).eval()


def refusal(parsed: Any, shape: tuple[int, ...], classes: int = 10, **how: Any) -> InvalidArchitecture:
    with pytest.raises(InvalidArchitecture) as caught:
        build_module(text(parsed), shape, classes, **how)
    assert caught.value.message
    return caught.value


def linear(state: dict[str, Tensor], name: str, value: Tensor) -> Tensor:
    return F.linear(value, state[f"{name}.weight"], state[f"{name}.bias"])


class TestInput:
    def test_no_input_node_is_needed_and_every_node_without_predecessors_gets_it(self) -> None:
        nodes = [node("a", "relu"), node("b", "tanh"), node("out", "identity")]
        value = torch.randn(2, 6)
        module = build(graph(nodes, [("a", "out"), ("b", "out")]), (6,), 12)
        torch.testing.assert_close(module(value), torch.cat([value.relu(), value.tanh()], 1))

    def test_an_input_node_with_predecessors_passes_them_on(self) -> None:
        value = torch.randn(2, 6)
        module = build(chain(node("a", "tanh"), node("in", "input", shape=[1]), node("b", "identity")), (6,), 6)
        torch.testing.assert_close(module(value), value.tanh())
        nodes = [node("a", "tanh"), node("b", "relu"), node("in", "input")]
        module = build(graph(nodes, [("b", "in"), ("a", "in")]), (6,), 12)
        torch.testing.assert_close(module(value), torch.cat([value.relu(), value.tanh()], 1))

    def test_several_input_nodes_get_the_same(self) -> None:
        nodes = [node("i", "input"), node("j", "input"), node("out", "identity")]
        value = torch.randn(2, 3, 2, 2)
        module = build(graph(nodes, [("i", "out"), ("j", "out")]), (3, 2, 2), 24)
        torch.testing.assert_close(module(value), torch.cat([value, value], 1).flatten(1))

    def test_another_shape_than_it_was_built_for_is_refused(self) -> None:
        module = build(chain(node("a", "dense")), (3, 2, 2), 10)
        with pytest.raises(ValueError, match="takes"):
            module(torch.randn(2, 12))

    @pytest.mark.parametrize("shape", [(), (3, 4), (1, 2, 3, 4), (0,), (3, -1, 3), (2**20, 2**20, 2)])
    def test_shapes_that_no_graph_takes(self, shape: tuple[int, ...]) -> None:
        assert refusal(chain(node("a", "dense")), shape).field == "input_shape"

    def test_class_counts_that_no_graph_gives(self) -> None:
        assert refusal(chain(node("a", "dense")), (3,), 0).field == "num_classes"


class TestMerging:
    def test_channels_in_the_order_of_edges(self) -> None:
        nodes = [node("in", "input"), node("a", "relu"), node("b", "tanh"), node("out", "identity")]
        edges = [("in", "a"), ("in", "b"), ("b", "out"), ("in", "out"), ("a", "out")]
        value = torch.randn(2, 3, 4, 4)
        module = build(graph(nodes, edges), (3, 4, 4), 9 * 16)
        torch.testing.assert_close(module(value), torch.cat([value.tanh(), value, value.relu()], 1).flatten(1))

    def test_a_second_edge_with_the_same_ends_is_concatenated_again(self) -> None:
        nodes = [node("in", "input"), node("a", "relu"), node("out", "identity")]
        edges = [("in", "a"), ("a", "out"), ("in", "out"), ("a", "out")]
        value = torch.randn(2, 3, 2, 2)
        module = build(graph(nodes, edges), (3, 2, 2), 36)
        torch.testing.assert_close(module(value), torch.cat([value.relu(), value, value.relu()], 1).flatten(1))

    def test_flat_ones_are_concatenated(self) -> None:
        nodes = [node("a", "dense", units=3), node("b", "dense", units=4), node("out", "identity")]
        value = torch.randn(2, 5)
        module = build(graph(nodes, [("b", "out"), ("a", "out")]), (5,), 7)
        state = module.state_dict()
        expected = torch.cat([linear(state, "layers.b", value), linear(state, "layers.a", value)], 1)
        torch.testing.assert_close(module(value), expected)

    @pytest.mark.parametrize("mode", ["usual", "deterministic"])
    def test_sizes_that_differ_are_pooled_to_the_smallest_height_and_width_separately(
        self, mode: str, request: pytest.FixtureRequest
    ) -> None:
        if mode == "deterministic":
            request.getfixturevalue("deterministic")
        nodes = [
            node("tall", "maxpool", pool_size=[1, 3]),
            node("wide", "maxpool", pool_size=[3, 1]),
            node("in", "input"),
            node("out", "identity"),
        ]
        value = torch.randn(2, 2, 10, 8)
        tall, wide = F.max_pool2d(value, (1, 3)), F.max_pool2d(value, (3, 1))
        assert (tall.shape[2:], wide.shape[2:]) == ((10, 2), (3, 8))
        module = build(graph(nodes, [("wide", "out"), ("in", "out"), ("tall", "out")]), (2, 10, 8), 6 * 6)
        expected = torch.cat([F.adaptive_avg_pool2d(part, (3, 2)) for part in (wide, value, tall)], 1)
        torch.testing.assert_close(module(value), expected.flatten(1))

    def test_a_flat_one_meeting_images(self) -> None:
        nodes = [
            node("small", "avgpool", pool_size=2),
            node("flat", "dense", units=5),
            node("in", "input"),
            node("out", "identity"),
        ]
        value = torch.randn(2, 3, 4, 6)
        module = build(graph(nodes, [("in", "out"), ("flat", "out"), ("small", "out")]), (3, 4, 6), 18 + 5 + 18)
        small = F.avg_pool2d(value, 2)
        flat = linear(module.state_dict(), "layers.flat", value.flatten(1))
        expected = torch.cat([F.adaptive_avg_pool2d(value, (2, 3)).flatten(1), flat, small.flatten(1)], 1)
        torch.testing.assert_close(module(value), expected)

    def test_a_flat_one_meeting_one_image(self) -> None:
        nodes = [node("in", "input"), node("flat", "flatten"), node("out", "identity")]
        value = torch.randn(2, 2, 2, 3)
        module = build(graph(nodes, [("in", "out"), ("flat", "out")]), (2, 2, 3), 24)
        torch.testing.assert_close(module(value), torch.cat([value.flatten(1), value.flatten(1)], 1))

    def test_what_is_merged_is_what_the_operation_gets(self) -> None:
        nodes = [node("in", "input"), node("half", "maxpool"), node("conv", "conv2d", filters=2), node("d", "dense")]
        module = build(graph(nodes, [("in", "half"), ("in", "conv"), ("half", "conv"), ("conv", "d")]), (3, 4, 4), 10)
        assert module.state_dict()["layers.conv.weight"].shape == (2, 6, 3, 3)
        assert module.state_dict()["layers.d.weight"].shape == (10, 8)
        assert module(torch.randn(2, 3, 4, 4)).shape == (2, 10)

    def test_conv2d_on_a_merge_with_something_flat_is_refused(self) -> None:
        nodes = [node("in", "input"), node("flat", "flatten"), node("c", "conv2d")]
        assert "'c'" in refusal(graph(nodes, [("in", "c"), ("flat", "c")]), (1, 4, 4)).message

    def test_deterministic_pooling_is_torchs_in_value_and_gradient(self, deterministic: None) -> None:
        for cells, size in [((7, 5), (3, 2)), ((9, 4), (4, 4)), ((6, 6), (1, 1)), ((5, 3), (5, 2))]:
            ours = torch.randn(2, 3, *cells, dtype=torch.float64, requires_grad=True)
            theirs = ours.detach().clone().requires_grad_()
            pooled, expected = pool_to(ours, size), F.adaptive_avg_pool2d(theirs, size)
            torch.testing.assert_close(pooled, expected)
            weights = torch.randn_like(pooled)
            (pooled * weights).sum().backward()
            (expected * weights).sum().backward()
            torch.testing.assert_close(ours.grad, theirs.grad)


class TestOutput:
    def test_the_marked_node_wins_over_what_follows_it(self) -> None:
        value = torch.randn(2, 6)
        marked = node("a", "tanh", {"is_output": True})
        module = build(chain(marked, node("b", "dense", units=6)), (6,), 6)
        torch.testing.assert_close(module(value), value.tanh())

    def test_the_first_without_successors(self) -> None:
        value = torch.randn(2, 6)
        nodes = [node("in", "input"), node("a", "tanh"), node("b", "relu")]
        module = build(graph(nodes, [("in", "b"), ("in", "a")]), (6,), 6)
        torch.testing.assert_close(module(value), value.tanh())

    def test_what_does_not_lead_to_it_is_built_and_never_run(self) -> None:
        aside = node("aside", "dense", units=3)
        nodes = [node("in", "input"), aside, node("behind", "batchnorm"), node("out", "dense", {"is_output": True})]
        module = build(graph(nodes, [("in", "aside"), ("in", "out"), ("out", "behind")]), (6,), 10)
        layers = module.get_submodule("layers")
        ran: list[str] = []
        for name, layer in layers.named_children():
            layer.register_forward_hook(lambda *_, name=name: ran.append(name))
        module.train()(torch.randn(4, 6))
        assert ran == ["in", "out"]
        assert "layers.aside.weight" in module.state_dict()
        assert "layers.behind.weight" in module.state_dict()
        assert count_parameters(module) == (6 + 1) * 3 + 20 + (6 + 1) * 10

    def test_what_does_not_lead_to_it_is_validated(self) -> None:
        nodes = [node("out", "dense", {"is_output": True}), node("aside", "conv2d")]
        assert "'aside'" in refusal(graph(nodes, []), (6,)).message

    def test_a_head_when_the_width_differs(self) -> None:
        value = torch.randn(2, 6)
        module = build(chain(node("a", "dense", units=7)), (6,), 10)
        state = module.state_dict()
        assert list(state) == ["layers.a.weight", "layers.a.bias", "head.weight", "head.bias"]
        torch.testing.assert_close(module(value), linear(state, "head", linear(state, "layers.a", value)))

    def test_no_head_when_it_does_not(self) -> None:
        assert list(build(chain(node("a", "dense")), (6,), 10).state_dict()) == ["layers.a.weight", "layers.a.bias"]

    def test_an_image_is_flattened_before_the_head_and_without_one(self) -> None:
        value = torch.randn(2, 3, 2, 2)
        module = build(chain(node("a", "relu")), (3, 2, 2), 10)
        torch.testing.assert_close(module(value), linear(module.state_dict(), "head", value.relu().flatten(1)))
        module = build(chain(node("a", "relu")), (3, 2, 2), 12)
        torch.testing.assert_close(module(value), value.relu().flatten(1))


class TestSoftmaxOnTheOutput:
    @pytest.mark.parametrize("classes", [7, 10])
    def test_as_activation(self, classes: int) -> None:
        value = torch.randn(2, 6)
        module = build(chain(node("a", "dense", {"is_output": True}, units=7, activation="softmax")), (6,), classes)
        state = module.state_dict()
        expected = linear(state, "layers.a", value)
        torch.testing.assert_close(module(value), expected if classes == 7 else linear(state, "head", expected))

    @pytest.mark.parametrize("classes", [7, 10])
    @pytest.mark.parametrize("activation", [None, "softmax", "linear", "none"])
    def test_as_operation(self, classes: int, activation: str | None) -> None:
        value = torch.randn(2, 6)
        parsed = chain(node("a", "dense", units=7), node("b", "softmax", activation=activation))
        module = build(parsed, (6,), classes)
        state = module.state_dict()
        expected = linear(state, "layers.a", value)
        torch.testing.assert_close(module(value), expected if classes == 7 else linear(state, "head", expected))

    def test_of_an_image(self) -> None:
        value = torch.randn(2, 3, 2, 2)
        module = build(chain(node("a", "identity", activation="softmax")), (3, 2, 2), 12)
        torch.testing.assert_close(module(value), value.flatten(1))

    def test_elsewhere_it_is_applied(self) -> None:
        value = torch.randn(2, 6)
        module = build(chain(node("a", "softmax"), node("b", "identity")), (6,), 6)
        torch.testing.assert_close(module(value), value.softmax(1))
        module = build(chain(node("a", "identity", activation="softmax"), node("b", "identity")), (6,), 6)
        torch.testing.assert_close(module(value), value.softmax(1))

    def test_another_activation_behind_it_keeps_both(self) -> None:
        value = torch.randn(2, 6)
        module = build(chain(node("a", "softmax", activation="tanh")), (6,), 6)
        torch.testing.assert_close(module(value), value.softmax(1).tanh())

    def test_other_activations_stay(self) -> None:
        value = torch.randn(2, 6)
        torch.testing.assert_close(build(chain(node("a", "sigmoid")), (6,), 6)(value), value.sigmoid())


class TestNames:
    def test_parameters_keep_the_ids(self) -> None:
        parsed = chain(node("conv-1", "conv2d", filters=2), node(17, "batchnorm"), node("ü %", "dense"))
        module = build(parsed, (1, 4, 4), 10)
        assert [name for name, _ in module.named_parameters()] == [
            "layers.conv-1.weight",
            "layers.conv-1.bias",
            "layers.17.weight",
            "layers.17.bias",
            "layers.ü %.weight",
            "layers.ü %.bias",
        ]

    @pytest.mark.parametrize(
        "node_id",
        [
            *("a.b", ".", "..", "a.", "keys", "type", "items", "values", "pop", "clear", "update", "forward"),
            *("training", "_modules", "__class__", "__init__", "state_dict", "weight", "layers", "head", "float"),
            *("\ud800", " ", "\x00", "0", "a%2Eb", "x" * 3000),
        ],
    )
    def test_any_id_makes_a_module_that_survives_a_round_trip(self, node_id: str) -> None:
        parsed = chain(node("first", "dense", units=4), node(node_id, "dense"))
        module, other = build(parsed, (6,), 10), build(parsed, (6,), 10)
        value = torch.randn(2, 6)
        assert not torch.equal(module(value), other(value))
        buffer = io.BytesIO()
        torch.save(module.state_dict(), buffer)
        buffer.seek(0)
        other.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(module(value), other(value))
        repr(module).encode()
        for name in module.state_dict():
            name.encode()

    def test_escaped_names_never_meet_other_ids(self) -> None:
        ids = ["a.b", "a%2Eb", "a%2Eb%", "keys", "%6Beys", "a%2Eb%%"]
        module = build(chain(*(node(one, "dense", units=3) for one in ids)), (3,), 3)
        names = [name.removeprefix("layers.").removesuffix(".weight") for name in module.state_dict()][::2]
        assert names == ["a%2Eb%%%", "a%2Eb", "a%2Eb%", "%6Beys%", "%6Beys", "a%2Eb%%"]

    def test_names_and_their_order_are_the_same_each_time(self) -> None:
        parsed = graph([node("b", "dense"), node("a.b", "dense"), node("in", "input")], [("in", "a.b"), ("a.b", "b")])
        names = list(build(parsed, (3,), 4).state_dict())
        assert names == list(build(parsed, (3,), 4).state_dict())
        assert names[::2] == ["layers.b.weight", "layers.a%2Eb.weight", "head.weight"]


CNN = chain(
    node("in", "input", shape=[1, 8, 8]),
    node("c1", "conv2d", filters=4, kernel_size=3, strides=2, padding="same", activation="relu"),
    node("bn", "batchnorm"),
    node("p", "maxpool", pool_size=2, padding="valid"),
    node("drop", "dropout", rate=0.25),
    node("flat", "flatten"),
    node("d", "dense", units=6, use_bias=True, activation="gelu"),
    node("out", "dense", {"is_output": True}, units=10, activation="softmax"),
)
SKIPS = graph(
    [
        node("in", "input"),
        node("c1", "conv2d", filters=4, kernel_size=4, padding="same", stride=2),
        node("max", "maxpool", pool_size=2, stride=1, padding="same"),
        node("avg", "avg_pool", pool_size=2, stride=1, padding="same"),
        node("bn", "batchnorm", activation="swish"),
        node("d", "dense", units=5),
        node("out", "dense", units=3, activation="softmax"),
    ],
    [
        *[("in", "c1"), ("c1", "max"), ("in", "avg"), ("max", "bn"), ("avg", "bn"), ("in", "bn"), ("bn", "d")],
        *[("d", "out"), ("c1", "out"), ("in", "out")],
    ],
)


def step(module: nn.Module, value: Tensor, optimizer: torch.optim.Optimizer | None = None) -> float:
    optimizer = optimizer or torch.optim.SGD(module.parameters(), lr=0.1)
    loss = F.cross_entropy(module(value).float(), torch.zeros(len(value), dtype=torch.long))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


class TestAsAModule:
    @pytest.mark.parametrize("parsed", [CNN, SKIPS])
    def test_the_loss_falls(self, parsed: Any) -> None:
        module = build(parsed, (1, 8, 8), 10).train()
        value = torch.randn(8, 1, 8, 8)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        losses = [step(module, value, optimizer) for _ in range(10)]
        assert losses[-1] < losses[0]

    @pytest.mark.parametrize("parsed", [CNN, SKIPS])
    def test_the_same_seed_gives_the_same_parameters(self, parsed: Any) -> None:
        states = []
        for _ in range(2):
            torch.manual_seed(5)
            states.append(build(parsed, (1, 8, 8), 10).state_dict())
        torch.manual_seed(6)
        other = build(parsed, (1, 8, 8), 10).state_dict()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert not all(torch.equal(states[0][name], other[name]) for name in other)

    @pytest.mark.parametrize("parsed", [CNN, SKIPS])
    def test_copies_and_pickles_compute_the_same(self, parsed: Any) -> None:
        module = build(parsed, (1, 8, 8), 10)
        value = torch.randn(3, 1, 8, 8)
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(module(value), other(value))
            step(other.train(), value)
            assert not torch.equal(module(value), other.eval()(value))

    @pytest.mark.parametrize("parsed", [CNN, SKIPS])
    def test_bfloat16_autocast(self, parsed: Any) -> None:
        module = build(parsed, (1, 8, 8), 10).train()
        value = torch.randn(8, 1, 8, 8)
        with torch.autocast("cpu", torch.bfloat16):
            logits = module(value)
            loss = step(module, value)
        assert logits.shape == (8, 10)
        assert torch.isfinite(logits).all()
        assert loss > 0

    @pytest.mark.parametrize("parsed", [CNN, SKIPS])
    def test_bfloat16_autocast_deterministically(self, parsed: Any, deterministic: None) -> None:
        self.test_bfloat16_autocast(parsed)

    @pytest.mark.parametrize("parsed", [CNN, SKIPS])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_other_types(self, parsed: Any, dtype: torch.dtype) -> None:
        module = build(parsed, (1, 8, 8), 10).train().to(dtype)
        assert module(torch.randn(4, 1, 8, 8, dtype=dtype)).dtype == dtype

    def test_dropout_is_off_in_eval(self) -> None:
        module = build(CNN, (1, 8, 8), 10)
        value = torch.randn(3, 1, 8, 8)
        assert torch.equal(module(value), module(value))
        assert not torch.equal(module.train()(value), module(value))

    def test_a_batch_of_one_trains(self) -> None:
        step(build(CNN, (1, 8, 8), 10).train(), torch.randn(1, 1, 8, 8))
        parsed = chain(node("a", "dense", units=4), node("b", "batchnorm"), node("c", "dense"))
        step(build(parsed, (6,), 10).train(), torch.randn(1, 6))

    @pytest.mark.parametrize("parsed", [CNN, SKIPS])
    def test_parameters_are_counted_before_they_exist(self, parsed: Any) -> None:
        module = build(parsed, (1, 8, 8), 10)
        total = sum(parameter.numel() for parameter in module.parameters())
        assert count_parameters(module) == total
        assert count_parameters(build(parsed, (1, 8, 8), 10, max_parameters=total)) == total
        error = refusal(parsed, (1, 8, 8), max_parameters=total - 1)
        assert str(total) in error.message
        assert str(total - 1) in error.expected

    def test_frozen_parameters_are_not_counted(self) -> None:
        module = build(CNN, (1, 8, 8), 10)
        module.get_parameter("layers.out.bias").requires_grad_(False)
        assert count_parameters(module) == sum(parameter.numel() for parameter in module.parameters()) - 10

    def test_the_cap_names_the_largest_node_or_the_head(self) -> None:
        parsed = chain(node("big", "dense", units=100), node("small", "dense", units=5), node("out", "dense"))
        assert "'big'" in refusal(parsed, (6,), max_parameters=100).message
        assert "the head" in refusal(chain(node("small", "dense", units=5)), (6,), 1000, max_parameters=100).message

    def test_a_network_without_parameters(self) -> None:
        module = build(chain(node("a", "tanh")), (6,), 6)
        assert count_parameters(module) == 0
        assert not module(torch.randn(2, 6)).requires_grad


class TestLimits:
    @pytest.mark.parametrize(
        ("parsed", "shape", "what"),
        [
            (chain(node("n", "dense", units=2**21)), (1, 32, 33), "its weight"),
            (chain(node("n", "conv2d", filters=2**22, kernel_size=32, padding=16)), (1, 4, 4), "its weight"),
            (chain(node("n", "conv2d", filters=2**20, kernel_size=1)), (1, 64, 64), "its output"),
            (chain(node("n", "conv2d", filters=1, kernel_size=1, padding=2**16)), (1, 4, 4), "its padded input"),
            (chain(node("n", "maxpool", pool_size=2**17, padding="same")), (1, 4, 4), "its padded input"),
            (graph([node("a", "input"), node("n", "relu")], [("a", "n")] * 5), (2**20, 22, 22), "its inputs together"),
        ],
    )
    def test_no_tensor_of_more_than_2_31_elements(self, parsed: Any, shape: tuple[int, ...], what: str) -> None:
        error = refusal(parsed, shape)
        assert "'n'" in error.message
        assert what in error.message
        assert str(limits.TENSOR_ELEMENTS_MAX) in error.expected

    def test_the_heads_weight_too(self) -> None:
        error = refusal(chain(node("n", "relu")), (2**12, 16, 16), 2**12)
        assert "head" in error.message
        assert "'n'" in error.message

    def test_widths_that_double_with_each_node_are_refused_in_time(self) -> None:
        nodes = [node(index, "identity") for index in range(5000)]
        edges = [(index, index + 1) for index in range(4999) for _ in (0, 1)]
        assert "its inputs together" in refusal(graph(nodes, edges), (1,)).message

    def test_a_chain_of_the_most_nodes_trains(self) -> None:
        ids = range(limits.ARCHITECTURE_NODES_MAX - 1)
        module = build(chain(*(node(one, "relu") for one in ids), node("out", "dense")), (6,), 10).train()
        assert step(module, torch.rand(2, 6)) > 0

    def test_a_node_with_the_most_edges_trains(self) -> None:
        nodes = [node("a", "relu"), node("b", "dense")]
        edge = {"id": 0, "source_id": "a", "target_id": "b"}
        module = build({"nodes": nodes, "edges": [edge] * limits.ARCHITECTURE_EDGES_MAX}, (1,), 10).train()
        assert step(module, torch.rand(2, 1)) > 0


class TestDocumentation:
    PAGE = (Path(__file__).parents[3] / "docs" / "architectures.md").read_text()

    def test_the_example_is_as_described(self) -> None:
        found = re.search(r"```json\n(.*?)```", self.PAGE, re.DOTALL)
        assert found is not None
        module = build_module(found[1], (1, 8, 8), 10)
        assert module.get_parameter("layers.classes.weight").shape == (10, 768)
        assert step(module.train(), torch.randn(4, 1, 8, 8)) > 0

    def test_every_operation_and_activation_is_there(self) -> None:
        assert [name for name in (*OPERATIONS, *ACTIVATIONS, *NO_ACTIVATION) if f"`{name}`" not in self.PAGE] == []
