"""What each operation computes, against plain torch and numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphs import chain, node, text
from torch import Tensor, nn

from tenure.common.errors import InvalidArchitecture
from tenure.worker.torch_eval import build_module

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _quiet_torch() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def built(value: Tensor, expected: Tensor, operation: str, **params: Any) -> nn.Module:
    """The layer of a one-node network that must turn ``value`` into ``expected``'s shape (a head would hide it).

    An identity stands behind it, so that it isn't the output itself.
    """
    parsed = chain(node("n", operation, **params), node("out", "identity"))
    module = build_module(text(parsed), tuple(value.shape[1:]), expected[0].numel()).eval()
    assert getattr(module, "head", None) is None, "the operation's output has another size than expected"
    return module


def check(value: Tensor, expected: Tensor, operation: str, **params: Any) -> None:
    torch.testing.assert_close(built(value, expected, operation, **params)(value), expected.flatten(1))


def refused(shape: tuple[int, ...], operation: str, **params: Any) -> str:
    with pytest.raises(InvalidArchitecture) as caught:
        build_module(text(chain(node("first", "input"), node("bad one", operation, **params))), shape, 10)
    assert "'bad one'" in caught.value.message
    assert caught.value.field == "architecture.nodes[1]"
    return caught.value.message


def same(value: Tensor, size: tuple[int, int], stride: tuple[int, int], filling: float = 0.0) -> Tensor:
    """``value`` padded by the formula: max((ceil(n/s) - 1)·s + k - n, 0) in all, the odd one behind."""
    margins: list[int] = []
    for axis in (1, 0):
        n, k, s = value.shape[2 + axis], size[axis], stride[axis]
        total = max((-(-n // s) - 1) * s + k - n, 0)
        margins += [total // 2, total - total // 2]
    return F.pad(value, margins, value=filling)


WINDOWS = [
    ((9, 11), (3, 3), (1, 1)),
    ((9, 11), (3, 3), (2, 2)),
    ((8, 10), (3, 3), (2, 2)),
    ((8, 8), (2, 2), (1, 1)),
    ((7, 5), (4, 4), (3, 3)),
    ((5, 5), (1, 1), (3, 3)),
    ((6, 7), (5, 2), (1, 3)),
    ((2, 2), (7, 7), (1, 1)),
    ((1, 1), (3, 3), (2, 2)),
    ((10, 3), (2, 2), (7, 7)),
]


class TestConv2d:
    def reference(self, value: Tensor, expected_of: nn.Module, **how: Any) -> Tensor:
        state = expected_of.state_dict()
        return F.conv2d(value, state["layers.n.weight"], state.get("layers.n.bias"), **how)

    def check(self, value: Tensor, shape: tuple[int, ...], how: dict[str, Any], **params: Any) -> nn.Module:
        module = built(value, torch.empty(1, *shape), "conv2d", **params)
        expected = self.reference(value, module, **how)
        assert expected.shape[1:] == shape
        torch.testing.assert_close(module(value), expected.flatten(1))
        return module

    def test_defaults(self) -> None:
        module = self.check(torch.randn(2, 3, 6, 5), (64, 6, 5), {"padding": 1})
        assert module.state_dict()["layers.n.weight"].shape == (64, 3, 3, 3)
        assert module.state_dict()["layers.n.bias"].shape == (64,)

    def test_the_default_padding_is_1_whatever_the_size(self) -> None:
        self.check(torch.randn(1, 2, 6, 6), (4, 8, 8), {"padding": 1}, filters=4, kernel_size=1)
        self.check(torch.randn(1, 2, 6, 6), (4, 4, 4), {"padding": 1}, filters=4, kernel_size=5)

    def test_pairs_are_height_and_width(self) -> None:
        self.check(
            torch.randn(2, 1, 9, 8),
            (2, 5, 4),
            {"stride": (2, 3), "padding": (1, 2)},
            filters=2,
            kernel_size=[3, 3],
            stride=[2, 3],
            padding=[1, 2],
        )

    def test_valid_is_no_padding(self) -> None:
        self.check(torch.randn(1, 2, 6, 7), (3, 4, 5), {}, filters=3, kernel_size=3, padding="valid")

    @pytest.mark.parametrize(("cells", "size", "stride"), WINDOWS)
    def test_same(self, cells: tuple[int, int], size: tuple[int, int], stride: tuple[int, int]) -> None:
        value = torch.randn(2, 3, *cells)
        shape = (4, *(-(-n // s) for n, s in zip(cells, stride, strict=True)))
        params = {"filters": 4, "kernel_size": list(size), "strides": list(stride), "padding": "same"}
        module = built(value, torch.empty(1, *shape), "conv2d", **params)
        expected = self.reference(same(value, size, stride), module, stride=stride)
        torch.testing.assert_close(module(value), expected.flatten(1))

    @pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
    def test_same_agrees_with_torch_at_stride_1(self) -> None:
        value = torch.randn(2, 3, 7, 8)
        for size in (1, 2, 3, 4, 5):
            module = built(value, torch.empty(1, 2, 7, 8), "conv2d", filters=2, kernel_size=size, padding="same")
            expected = self.reference(value, module, padding="same")
            torch.testing.assert_close(module(value), expected.flatten(1))

    @pytest.mark.parametrize("use_bias", [False, 0])
    def test_use_bias_is_honoured(self, use_bias: Any) -> None:
        module = self.check(torch.randn(1, 2, 4, 4), (3, 4, 4), {"padding": 1}, filters=3, use_bias=use_bias)
        assert "layers.n.bias" not in module.state_dict()

    def test_a_padding_above_the_window_is_fine(self) -> None:
        self.check(torch.randn(1, 1, 3, 3), (2, 17, 17), {"padding": 8}, filters=2, kernel_size=3, padding=8)

    def test_a_stride_beyond_the_input_leaves_one_window(self) -> None:
        self.check(torch.randn(1, 2, 5, 5), (3, 1, 1), {"stride": 100}, filters=3, stride=10**30, padding=0)

    def test_a_window_as_large_as_its_padded_input(self) -> None:
        self.check(torch.randn(1, 1, 3, 2), (2, 1, 1), {"padding": 1}, filters=2, kernel_size=[5, 4], padding=1)

    @pytest.mark.parametrize(
        "params",
        [
            {"kernel_size": 6, "padding": 1},
            {"kernel_size": [6, 1], "padding": 1},
            {"kernel_size": [1, 6], "padding": 1},
            {"kernel_size": 4, "padding": "valid"},
            {"kernel_size": 4, "padding": 0, "stride": 9},
        ],
    )
    def test_a_window_larger_than_its_padded_input_is_refused(self, params: dict[str, Any]) -> None:
        assert "larger than its padded input" in refused((1, 3, 3), "conv2d", **params)

    def test_on_a_flat_input_it_is_refused(self) -> None:
        assert "needs an image" in refused((12,), "conv2d")


class TestPools:
    def test_defaults(self) -> None:
        value = torch.randn(2, 3, 6, 7)
        check(value, F.max_pool2d(value, 2), "maxpool")
        check(value, F.avg_pool2d(value, 2), "avgpool")

    @pytest.mark.parametrize("params", [{"pool_size": 3, "stride": 2}, {"kernel_size": 3, "strides": [2, 2]}])
    def test_size_and_stride(self, params: dict[str, Any]) -> None:
        value = torch.randn(2, 3, 7, 8)
        check(value, F.max_pool2d(value, 3, 2), "max_pool", padding="valid", **params)
        check(value, F.avg_pool2d(value, 3, 2), "avg_pool", padding="valid", **params)

    @pytest.mark.parametrize(("cells", "size", "stride"), WINDOWS)
    def test_same(self, cells: tuple[int, int], size: tuple[int, int], stride: tuple[int, int]) -> None:
        # All below zero: a padded cell of zero would win every window it is in.
        value = -torch.rand(2, 3, *cells) - 1
        params = {"pool_size": list(size), "strides": list(stride), "padding": "same"}
        highest = F.max_pool2d(same(value, size, stride, float("-inf")), size, stride)
        assert highest.shape[2:] == tuple(-(-n // s) for n, s in zip(cells, stride, strict=True))
        assert highest.max() < 0
        check(value, highest, "maxpool", **params)
        check(value, F.avg_pool2d(same(value, size, stride), size, stride), "avgpool", **params)

    def test_the_odd_padded_cell_is_behind(self) -> None:
        value = torch.tensor([[[[1.0, 2.0, 3.0]]]])
        # Windows of 2 at stride 1: [1 2] [2 3] [3 pad].
        same_2 = {"pool_size": [1, 2], "stride": 1, "padding": "same"}
        check(value, torch.tensor([[2.0, 3.0, 3.0]]), "maxpool", **same_2)
        check(value, torch.tensor([[1.5, 2.5, 1.5]]), "avgpool", **same_2)

    def test_padded_cells_count_as_zeros_in_avgpool(self) -> None:
        value = torch.full((1, 1, 2, 2), 8.0)
        check(value, torch.full((1, 1, 2, 2), 2.0), "avgpool", pool_size=2, padding=1)
        check(value, torch.tensor([[32 / 9] * 4]), "avgpool", pool_size=3, stride=1, padding="same")

    def test_padded_cells_never_win_a_max_pool(self) -> None:
        value = torch.full((1, 1, 2, 2), -8.0)
        check(value, value, "maxpool", pool_size=2, padding=1)
        check(value, value, "maxpool", pool_size=3, stride=1, padding="same")
        check(value, value, "maxpool", pool_size=2, stride=1, padding="same")

    def test_the_gradient_of_a_padded_max_pool_reaches_the_input(self) -> None:
        value = (-torch.rand(1, 1, 3, 3) - 1).requires_grad_()
        module = built(value, torch.empty(1, 1, 3, 3), "maxpool", pool_size=2, stride=1, padding="same")
        module(value).sum().backward()
        assert value.grad is not None
        assert value.grad.sum() == 9

    def test_a_stride_beyond_the_input_leaves_one_window(self) -> None:
        value = torch.randn(1, 2, 5, 5)
        check(value, F.max_pool2d(value, 2, 100), "maxpool", stride=10**30)
        check(value, F.avg_pool2d(value, 2, 100), "avgpool", stride=10**30)

    @pytest.mark.parametrize("operation", ["maxpool", "avgpool"])
    @pytest.mark.parametrize("params", [{"pool_size": 4}, {"pool_size": [6, 2], "padding": 1}, {"pool_size": [1, 4]}])
    def test_a_window_larger_than_its_padded_input_is_refused(self, operation: str, params: dict[str, Any]) -> None:
        assert "larger than its padded input" in refused((2, 3, 3), operation, **params)

    @pytest.mark.parametrize("operation", ["maxpool", "avgpool"])
    def test_on_a_flat_input_they_are_refused(self, operation: str) -> None:
        assert "needs an image" in refused((12,), operation)


class TestOthers:
    def test_dense(self) -> None:
        value = torch.randn(2, 5)
        module = built(value, torch.empty(1, 7), "dense", units=7)
        state = module.state_dict()
        torch.testing.assert_close(module(value), F.linear(value, state["layers.n.weight"], state["layers.n.bias"]))

    def test_dense_has_10_units_by_default(self) -> None:
        assert built(torch.randn(1, 5), torch.empty(1, 10), "dense").state_dict()["layers.n.weight"].shape == (10, 5)

    def test_dense_after_an_image_flattens(self) -> None:
        value = torch.randn(2, 3, 2, 2)
        module = built(value, torch.empty(1, 7), "linear", units=7)
        state = module.state_dict()
        expected = F.linear(value.flatten(1), state["layers.n.weight"], state["layers.n.bias"])
        torch.testing.assert_close(module(value), expected)

    @pytest.mark.parametrize(("use_bias", "there"), [(True, True), (False, False), (8, True), (0, False)])
    def test_dense_without_bias(self, use_bias: Any, there: bool) -> None:
        module = built(torch.randn(1, 5), torch.empty(1, 7), "dense", units=7, use_bias=use_bias)
        assert ("layers.n.bias" in module.state_dict()) is there

    @pytest.mark.parametrize("operation", ["input", "identity"])
    @pytest.mark.parametrize("shape", [(6,), (2, 3, 4)])
    def test_what_passes_its_input_on(self, operation: str, shape: tuple[int, ...]) -> None:
        value = torch.randn(2, *shape)
        check(value, value, operation)

    def test_flatten(self) -> None:
        value = torch.randn(2, 3, 2, 2)
        check(value, value.flatten(1), "flatten")
        check(value.flatten(1), value.flatten(1), "flatten")

    @pytest.mark.parametrize("shape", [(5,), (5, 3, 2)])
    @pytest.mark.parametrize("operation", ["batchnorm", "batch_norm"])
    def test_batchnorm(self, operation: str, shape: tuple[int, ...]) -> None:
        value = torch.randn(8, *shape) * 3 + 1
        module = built(value, value, operation).train()
        reference = nn.BatchNorm2d(5) if len(shape) == 3 else nn.BatchNorm1d(5)
        torch.testing.assert_close(module(value), reference(value).flatten(1))
        torch.testing.assert_close(module.eval()(value), reference.eval()(value).flatten(1))
        assert [name for name in module.state_dict() if "running" in name] == [
            "layers.n.running_mean",
            "layers.n.running_var",
        ]

    @pytest.mark.parametrize("shape", [(5,), (5, 1, 1)])
    @pytest.mark.parametrize("autocast", [False, True])
    def test_batchnorm_trains_on_a_single_value_by_its_running_statistics(
        self, shape: tuple[int, ...], autocast: bool
    ) -> None:
        module = built(torch.empty(1, *shape), torch.empty(1, 5), "batchnorm").train()
        module(torch.randn(16, *shape) * 2 + 1)
        before = {name: value.clone() for name, value in module.state_dict().items()}
        value = torch.randn(1, *shape)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            trained = module(value)
        trained.sum().backward()
        torch.testing.assert_close(trained, module.eval()(value))
        for name, after in module.state_dict().items():
            torch.testing.assert_close(after, before[name], rtol=0, atol=0)
        assert all(parameter.grad is not None for parameter in module.parameters())

    def test_batchnorm_of_one_image_of_several_cells_is_torchs(self) -> None:
        value = torch.randn(1, 3, 2, 2)
        torch.testing.assert_close(built(value, value, "batchnorm").train()(value), nn.BatchNorm2d(3)(value).flatten(1))

    @pytest.mark.parametrize("shape", [(1000,), (10, 10, 10)])
    def test_dropout(self, shape: tuple[int, ...]) -> None:
        value = torch.ones(2, *shape)
        check(value, value, "dropout", rate=0.75)
        trained = built(value, value, "dropout", rate=0.75).train()(value)
        assert set(trained.unique().tolist()) == {0.0, 4.0}
        assert 0.7 < (trained == 0).float().mean() < 0.8
        default = built(value, value, "dropout").train()(value)
        assert set(default.unique().tolist()) == {0.0, 2.0}

    @pytest.mark.parametrize(
        ("operation", "function"), [("relu", torch.relu), ("sigmoid", torch.sigmoid), ("tanh", torch.tanh)]
    )
    def test_functions(self, operation: str, function: Any) -> None:
        value = torch.randn(2, 3, 4, 4)
        check(value, function(value), operation)

    @pytest.mark.parametrize("shape", [(6,), (3, 2, 2)])
    def test_softmax_is_along_dimension_1(self, shape: tuple[int, ...]) -> None:
        value = torch.randn(2, *shape)
        check(value, torch.softmax(value, dim=1), "softmax")


ACTIVATIONS: dict[str, Any] = {
    "relu": nn.ReLU(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "softmax": nn.Softmax(dim=1),
    "elu": nn.ELU(),
    "gelu": nn.GELU(),
    "leaky_relu": nn.LeakyReLU(),
    "selu": nn.SELU(),
    "swish": nn.SiLU(),
    "linear": nn.Identity(),
    "none": nn.Identity(),
}


class TestActivations:
    @pytest.mark.parametrize("name", ACTIVATIONS)
    @pytest.mark.parametrize("operation", ["input", "identity", "dropout", "tanh", "softmax"])
    def test_after_any_operation(self, operation: str, name: str) -> None:
        value = torch.randn(3, 4, 2, 2)
        before: Any = {"tanh": torch.tanh, "softmax": nn.Softmax(dim=1)}.get(operation, nn.Identity())
        check(value, ACTIVATIONS[name](before(value)), operation, activation=name)

    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_after_those_with_parameters_and_windows(self, name: str) -> None:
        value = torch.randn(3, 4, 4, 4)
        check(value, ACTIVATIONS[name](F.max_pool2d(value, 2)), "maxpool", activation=name)
        check(value, ACTIVATIONS[name](value.flatten(1)), "flatten", activation=name)
        module = built(value, torch.empty(1, 2, 4, 4), "conv2d", filters=2, activation=name)
        state = module.state_dict()
        convolved = F.conv2d(value, state["layers.n.weight"], state["layers.n.bias"], padding=1)
        torch.testing.assert_close(module(value), ACTIVATIONS[name](convolved).flatten(1))
        module = built(value, torch.empty(1, 7), "dense", units=7, activation=name)
        state = module.state_dict()
        applied = F.linear(value.flatten(1), state["layers.n.weight"], state["layers.n.bias"])
        torch.testing.assert_close(module(value), ACTIVATIONS[name](applied))

    def test_no_activation_changes_what_others_read(self) -> None:
        value = torch.randn(2, 6)
        for name in ACTIVATIONS:
            kept = value.clone()
            built(value, value, "identity", activation=name)(value)
            assert torch.equal(value, kept)
