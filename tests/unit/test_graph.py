"""common/graph.py and common/operations.py: what of a graph can be judged without an input's shape."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from graphs import chain, graph, node, text

from tenure.common import limits
from tenure.common.errors import InvalidArchitecture
from tenure.common.graph import Graph, check_graph, parse_graph
from tenure.common.operations import (
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Function,
    Layer,
    PassOn,
    Pool,
)
from tenure.common.spec import check_architecture


def refusal(parsed: Any) -> InvalidArchitecture:
    """The error that checking raises; it must survive the wire."""
    with pytest.raises(InvalidArchitecture) as caught:
        check_graph(parsed)
    str(caught.value).encode()
    caught.value.to_json().encode("ascii")
    assert caught.value.message
    return caught.value


def layer(operation: str, **params: Any) -> Layer:
    return check_graph(chain(node("n", operation, **params))).nodes[0].layer


def ids(checked: Graph, positions: tuple[int, ...]) -> list[str]:
    return [checked.nodes[position].id for position in positions]


class TestOperations:
    @pytest.mark.parametrize(
        ("operation", "expected"),
        [
            ("input", PassOn()),
            ("identity", PassOn()),
            ("conv2d", Conv2d(64, (3, 3), (1, 1), (1, 1), True)),
            ("maxpool", Pool("max", (2, 2), (2, 2), (0, 0))),
            ("max_pool", Pool("max", (2, 2), (2, 2), (0, 0))),
            ("avgpool", Pool("avg", (2, 2), (2, 2), (0, 0))),
            ("avg_pool", Pool("avg", (2, 2), (2, 2), (0, 0))),
            ("dense", Dense(10, True)),
            ("linear", Dense(10, True)),
            ("output", Dense(10, True)),
            ("batchnorm", BatchNorm()),
            ("batch_norm", BatchNorm()),
            ("dropout", Dropout(0.5)),
            ("flatten", Flatten()),
            ("relu", Function("relu")),
            ("sigmoid", Function("sigmoid")),
            ("tanh", Function("tanh")),
            ("softmax", Function("softmax")),
        ],
    )
    def test_known_with_their_defaults(self, operation: str, expected: Layer) -> None:
        assert layer(operation) == expected

    @pytest.mark.parametrize("operation", ["", "Conv2d", "conv", "lstm", "elu", "gelu", "conv3d", "layer_norm", "none"])
    def test_every_other_name_is_unknown(self, operation: str) -> None:
        error = refusal(chain(node("n", operation)))
        assert error.field == "architecture.nodes[0].operation"
        assert "'n'" in error.message
        assert "conv2d" in error.expected

    @pytest.mark.parametrize("operation", ["maxpool", "avgpool"])
    def test_a_pools_stride_is_its_size_by_default(self, operation: str) -> None:
        pool = layer(operation, pool_size=[3, 4])
        assert isinstance(pool, Pool)
        assert pool.stride == (3, 4)

    @pytest.mark.parametrize("operation", ["conv2d", "maxpool", "avgpool"])
    @pytest.mark.parametrize(
        ("given", "stride"),
        [
            ({"stride": 3}, (3, 3)),
            ({"strides": 3}, (3, 3)),
            ({"stride": 3, "strides": 4}, (3, 3)),
            ({"strides": 4, "stride": 3}, (3, 3)),
            ({"stride": None, "strides": 4}, (4, 4)),
            ({"stride": [1, 2]}, (1, 2)),
            ({"strides": [2, 1]}, (2, 1)),
        ],
    )
    def test_stride_wins_over_strides(self, operation: str, given: dict[str, Any], stride: Any) -> None:
        built = layer(operation, **given)
        assert isinstance(built, Conv2d | Pool)
        assert built.stride == stride

    def test_kernel_size_wins_on_conv2d_and_pool_size_on_pools(self) -> None:
        both = {"kernel_size": 5, "pool_size": 4}
        conv, pool = layer("conv2d", **both), layer("maxpool", **both)
        assert isinstance(conv, Conv2d)
        assert isinstance(pool, Pool)
        assert (conv.kernel_size, pool.pool_size) == ((5, 5), (4, 4))
        conv, pool = layer("conv2d", pool_size=4), layer("avgpool", kernel_size=[5, 1])
        assert isinstance(conv, Conv2d)
        assert isinstance(pool, Pool)
        assert (conv.kernel_size, pool.pool_size) == ((4, 4), (5, 1))

    @pytest.mark.parametrize(
        ("given", "padding"),
        [(0, (0, 0)), (2, (2, 2)), ([0, 1], (0, 1)), ("same", "same"), ("valid", (0, 0)), (None, (1, 1))],
    )
    def test_padding_is_an_integer_same_or_valid(self, given: Any, padding: Any) -> None:
        conv = layer("conv2d", padding=given)
        assert isinstance(conv, Conv2d)
        assert conv.padding == padding

    def test_null_means_absent_for_every_parameter(self) -> None:
        names = ["filters", "kernel_size", "pool_size", "stride", "strides", "padding", "use_bias", "activation"]
        assert layer("conv2d", **dict.fromkeys(names)) == layer("conv2d")
        assert layer("maxpool", **dict.fromkeys(names)) == layer("maxpool")
        assert layer("dense", units=None, use_bias=None) == layer("dense")
        assert layer("dropout", rate=None) == layer("dropout")

    def test_null_means_absent_for_every_optional_field(self) -> None:
        parsed = {
            "nodes": [{"id": "a", "operation": "relu", "params": None, "metadata": None, "predecessor_ids": None}],
            "edges": None,
            "metadata": None,
        }
        assert check_graph(parsed).nodes[0].layer == Function("relu")

    def test_unlisted_parameters_are_ignored(self) -> None:
        assert layer("relu", filters=-1, units="x", rate=7) == Function("relu")
        assert layer("conv2d", units=0, rate=9, dilation="?", in_channels=-3) == layer("conv2d")
        assert layer("dense", filters=0, padding=-1, stride=0) == layer("dense")

    def test_the_shape_of_an_input_is_ignored(self) -> None:
        assert layer("input", shape=[-1, "x", None]) == PassOn()

    @pytest.mark.parametrize(("given", "expected"), [(True, True), (False, False), (1, True), (8, True), (0, False)])
    @pytest.mark.parametrize("operation", ["dense", "conv2d"])
    def test_use_bias_may_have_been_scaled(self, operation: str, given: Any, expected: bool) -> None:
        built = layer(operation, use_bias=given)
        assert isinstance(built, Dense | Conv2d)
        assert built.use_bias is expected

    @pytest.mark.parametrize(
        ("operation", "name", "value"),
        [
            *(("conv2d", "filters", value) for value in (0, -1, 16.0, True, "16", [16], [3, 3], {}, 2**31 + 1)),
            *(("dense", "units", value) for value in (0, -1, 16.0, True, "16", 10**30)),
            *(("conv2d", "kernel_size", value) for value in (0, -3, 3.0, True, "3", [], [3], [3, 0], [3, 3, 3])),
            *(("conv2d", "kernel_size", value) for value in ([3, None], [3.0, 3], [True, 3], {"h": 3}, 2**40)),
            *((op, "pool_size", value) for op in ("maxpool", "avgpool") for value in (0, -2, 2.0, True, [2], "2")),
            *((op, "stride", value) for op in ("conv2d", "maxpool") for value in (0, -1, 1.0, True, [1], "1")),
            *((op, "strides", value) for op in ("conv2d", "avgpool") for value in (0, -1, [0, 1])),
            *(("conv2d", "padding", value) for value in (-1, 1.0, True, "SAME", "full", [1], [1, -1], 2**40)),
            *(("maxpool", "padding", value) for value in (2, 3, [1, 2], -1, True, "Valid")),
            *(("dropout", "rate", value) for value in (1, 1.0, 1.5, -0.1, 10**400, "0.5", True, False, [0.5])),
            *((op, "use_bias", value) for op in ("dense", "conv2d") for value in (1.0, "yes", [])),
            *(("relu", "activation", value) for value in ("", "ReLU", "prelu", 3, True, ["relu"], {})),
        ],
    )
    def test_refused_with_the_field_the_node_and_the_value(self, operation: str, name: str, value: Any) -> None:
        error = refusal(chain(node("first", "input"), node("bad one", operation, **{name: value})))
        assert error.field == f"architecture.nodes[1].params.{name}"
        assert "'bad one'" in error.message
        assert operation in error.message
        assert error.given
        assert error.expected

    @pytest.mark.parametrize("rate", [0, 0.0, 0.5, 0.999])
    def test_a_rate_is_in_0_1(self, rate: float) -> None:
        assert layer("dropout", rate=rate) == Dropout(float(rate))

    def test_infinity_by_overflow_is_no_rate(self) -> None:
        with pytest.raises(InvalidArchitecture, match="rate"):
            parse_graph('{"nodes": [{"id": "a", "operation": "dropout", "params": {"rate": 1e999}}]}')

    def test_a_pools_padding_is_at_most_half_its_window_on_each_axis(self) -> None:
        for size, padding in [(2, 1), (3, 1), (4, 2), ([2, 4], [1, 2]), (1, 0), (3, "same")]:
            layer("maxpool", pool_size=size, padding=padding)
        for size, padding in [(1, 1), (3, 2), ([2, 4], 2), ([4, 2], [2, 2])]:
            error = refusal(chain(node("n", "avgpool", pool_size=size, padding=padding)))
            assert "above half the window" in error.message

    @pytest.mark.parametrize(
        "name", ["relu", "sigmoid", "tanh", "softmax", "elu", "gelu", "leaky_relu", "selu", "swish"]
    )
    @pytest.mark.parametrize("operation", ["input", "conv2d", "dropout", "flatten", "softmax", "batchnorm"])
    def test_an_activation_goes_with_any_operation(self, operation: str, name: str) -> None:
        assert check_graph(chain(node("n", operation, activation=name))).nodes[0].activation == name

    @pytest.mark.parametrize("name", ["linear", "none", None])
    def test_some_activations_do_nothing(self, name: str | None) -> None:
        assert check_graph(chain(node("n", "dense", activation=name))).nodes[0].activation is None


class TestStructure:
    def test_predecessors_are_in_the_order_of_edges(self) -> None:
        nodes = [node(name, "identity") for name in "abcd"]
        checked = check_graph(graph(nodes, [("c", "d"), ("a", "d"), ("b", "d"), ("a", "d"), ("a", "b")]))
        assert ids(checked, checked.nodes[3].predecessors) == ["c", "a", "b", "a"]

    def test_the_id_lists_of_nodes_are_ignored(self) -> None:
        first, second = node("a", "relu"), node("b", "relu")
        first.update(predecessor_ids=["b", "nobody"], successor_ids=17)
        checked = check_graph(graph([first, second], [("a", "b")]))
        assert checked.nodes[0].predecessors == ()
        assert checked.nodes[1].predecessors == (0,)

    def test_the_operation_of_an_edge_is_ignored(self) -> None:
        parsed = chain(node("a", "relu"), node("b", "relu"))
        for value in ["skip_connect", 3, [], None]:
            parsed["edges"][0]["operation"] = value
            check_graph(parsed)

    def test_the_order_has_predecessors_first_whatever_the_list_says(self) -> None:
        nodes = [node(name, "identity") for name in "dcba"]
        checked = check_graph(graph(nodes, [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")]))
        assert ids(checked, checked.order) == ["a", "b", "c", "d"]

    def test_edges_may_be_absent(self) -> None:
        parsed = chain(node("a", "relu"))
        del parsed["edges"]
        assert check_graph(parsed).order == (0,)

    def test_edge_ids_may_repeat(self) -> None:
        parsed = chain(node("a", "relu"), node("b", "relu"), node("c", "relu"))
        for edge in parsed["edges"]:
            edge["id"] = "same"
        assert len(check_graph(parsed).order) == 3

    @pytest.mark.parametrize(
        "node_id", ["a.b", "keys", "type", " ", "\ud800", "ü", "0", "x" * 10_000, "\x00", "layers"]
    )
    def test_any_id_but_the_empty_one_is_valid(self, node_id: str) -> None:
        checked = check_graph(chain(node("a", "relu"), node(node_id, "relu")))
        assert checked.nodes[1].id == node_id
        assert checked.nodes[1].predecessors == (0,)

    def test_integer_ids_become_text(self) -> None:
        parsed = graph([node(7, "relu"), node(-1, "relu"), node("8", "relu")], [(7, -1), ("-1", 8)])
        parsed["edges"][0]["id"] = 5
        checked = check_graph(parsed)
        assert ids(checked, checked.order) == ["7", "-1", "8"]
        assert "twice" in refusal(graph([node(7, "relu"), node("7", "relu")], [])).message

    @pytest.mark.parametrize("value", ["", True, False, 1.0, [], {}, None])
    def test_other_ids_are_refused(self, value: Any) -> None:
        assert refusal(graph([node(value, "relu")], [])).field == "architecture.nodes[0].id"
        for name in ("id", "source_id", "target_id"):
            parsed = chain(node("a", "relu"), node("b", "relu"))
            parsed["edges"][0][name] = value
            assert refusal(parsed).field == f"architecture.edges[0].{name}"

    @pytest.mark.parametrize("name", ["id", "operation"])
    def test_a_node_needs(self, name: str) -> None:
        parsed = chain(node("a", "relu"))
        del parsed["nodes"][0][name]
        assert refusal(parsed).field == f"architecture.nodes[0].{name}"

    @pytest.mark.parametrize("name", ["id", "source_id", "target_id"])
    def test_an_edge_needs(self, name: str) -> None:
        parsed = chain(node("a", "relu"), node("b", "relu"))
        del parsed["edges"][0][name]
        assert refusal(parsed).field == f"architecture.edges[0].{name}"

    def test_all_else_may_be_absent(self) -> None:
        check_graph(
            {
                "nodes": [{"id": "a", "operation": "relu"}, {"id": "b", "operation": "relu"}],
                "edges": [{"id": "e", "source_id": "a", "target_id": "b"}],
            }
        )

    @pytest.mark.parametrize(
        ("parsed", "field"),
        [
            (None, "architecture"),
            ([], "architecture"),
            ("graph", "architecture"),
            (3, "architecture"),
            ({}, "architecture.nodes"),
            ({"nodes": None}, "architecture.nodes"),
            ({"nodes": []}, "architecture.nodes"),
            ({"nodes": {}}, "architecture.nodes"),
            ({"nodes": "ab"}, "architecture.nodes"),
            ({"nodes": [None]}, "architecture.nodes[0]"),
            ({"nodes": [["a", "relu"]]}, "architecture.nodes[0]"),
            ({"nodes": [node("a", "relu")], "edges": {}}, "architecture.edges"),
            ({"nodes": [node("a", "relu")], "edges": [3]}, "architecture.edges[0]"),
            ({"nodes": [node("a", "relu")], "metadata": []}, "architecture.metadata"),
            ({"nodes": [node("a", 3)]}, "architecture.nodes[0].operation"),
            ({"nodes": [node("a", None)]}, "architecture.nodes[0].operation"),
            ({"nodes": [{**node("a", "relu"), "params": []}]}, "architecture.nodes[0].params"),
            ({"nodes": [{**node("a", "relu"), "metadata": "x"}]}, "architecture.nodes[0].metadata"),
            ({"nodes": [node("a", "relu", {"is_output": "yes"})]}, "architecture.nodes[0].metadata.is_output"),
        ],
    )
    def test_missing_and_wrongly_typed_fields(self, parsed: Any, field: str) -> None:
        assert refusal(parsed).field == field

    def test_duplicate_ids_say_where_both_are(self) -> None:
        error = refusal(graph([node("a", "relu"), node("b", "relu"), node("a", "tanh")], []))
        assert error.field == "architecture.nodes[2].id"
        assert "nodes[0]" in error.expected

    @pytest.mark.parametrize(("edge", "field"), [(("x", "a"), "source_id"), (("a", "x"), "target_id")])
    def test_dangling_edges(self, edge: tuple[str, str], field: str) -> None:
        error = refusal(graph([node("a", "relu")], [edge]))
        assert error.field == f"architecture.edges[0].{field}"
        assert "'x'" in error.message

    @pytest.mark.parametrize(
        ("edges", "named"),
        [
            ([("a", "a")], "'a' → 'a'"),
            ([("a", "b"), ("b", "a")], "'a' → 'b' → 'a'"),
            ([("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")], "'b' → 'c' → 'd' → 'b'"),
            ([("b", "c"), ("c", "b"), ("c", "d")], "'b' → 'c' → 'b'"),
        ],
    )
    def test_cycles_name_their_nodes(self, edges: list[tuple[str, str]], named: str) -> None:
        error = refusal(graph([node(name, "relu") for name in "abcd"], edges))
        assert named in error.message

    def test_a_cycle_apart_from_the_output_is_one_too(self) -> None:
        nodes = [node("out", "dense", {"is_output": True}), node("a", "relu"), node("b", "relu")]
        assert "cycle" in refusal(graph(nodes, [("a", "b"), ("b", "a")])).message


class TestOutput:
    def test_the_first_marked_node(self) -> None:
        nodes = [node("a", "relu"), node("b", "relu", {"is_output": True}), node("c", "relu", {"is_output": True})]
        assert check_graph(graph(nodes, [("a", "b"), ("b", "c")])).output == 1

    @pytest.mark.parametrize("mark", [False, None])
    def test_a_mark_that_says_no_is_none(self, mark: bool | None) -> None:
        assert check_graph(chain(node("a", "relu", {"is_output": mark}), node("b", "relu"))).output == 1

    def test_else_the_only_node_without_successors(self) -> None:
        nodes = [node(name, "relu") for name in "abc"]
        assert check_graph(graph(nodes, [("b", "a"), ("c", "b")])).output == 0

    def test_else_the_first_such_in_the_list(self) -> None:
        nodes = [node(name, "relu") for name in "abc"]
        assert check_graph(graph(nodes, [("a", "c"), ("a", "b")])).output == 1

    def test_what_leads_to_it(self) -> None:
        nodes = [node(name, "relu") for name in "abcdef"]
        checked = check_graph(graph(nodes, [("a", "c"), ("b", "c"), ("c", "d"), ("a", "e"), ("e", "f")]))
        assert ids(checked, checked.leading) == ["a", "b", "c", "d"]


class TestLimits:
    def test_a_chain_of_the_most_nodes_is_fine(self) -> None:
        longest = chain(*(node(index, "relu") for index in range(limits.ARCHITECTURE_NODES_MAX)))
        assert len(parse_graph(text(longest)).leading) == limits.ARCHITECTURE_NODES_MAX

    def test_more_nodes_are_refused(self) -> None:
        parsed = {"nodes": [node(index, "relu") for index in range(limits.ARCHITECTURE_NODES_MAX + 1)]}
        assert "20001" in refusal(parsed).message

    def test_the_most_edges_are_fine_and_more_are_refused(self) -> None:
        parsed = graph([node("a", "relu"), node("b", "relu")], [("a", "b")] * limits.ARCHITECTURE_EDGES_MAX)
        assert len(check_graph(parsed).nodes[1].predecessors) == limits.ARCHITECTURE_EDGES_MAX
        parsed["edges"].append(parsed["edges"][0])
        assert "100001" in refusal(parsed).message

    def test_a_cycle_of_the_most_nodes_is_found(self) -> None:
        nodes = [node(index, "relu") for index in range(limits.ARCHITECTURE_NODES_MAX)]
        ring = [(index, (index + 1) % len(nodes)) for index in range(len(nodes))]
        error = refusal(graph(nodes, ring))
        assert "20000 nodes" in error.message
        assert len(error.message) < 200

    @pytest.mark.parametrize("open_close", ["[]", "{}"])
    def test_nesting(self, open_close: str) -> None:
        def nested(levels: int) -> str:
            # The graph, its metadata and the innermost value's containers.
            opening, closing = ('{"x":' if open_close == "{}" else "["), open_close[1]
            inner = opening * (levels - 2) + "0" + closing * (levels - 2)
            return '{"nodes": [{"id": "a", "operation": "relu"}], "metadata": {"x": ' + inner + "}}"

        parse_graph(nested(limits.ARCHITECTURE_DEPTH_MAX))
        for levels in (limits.ARCHITECTURE_DEPTH_MAX + 1, 500, 200_000):
            with pytest.raises(InvalidArchitecture, match="nested too deeply"):
                parse_graph(nested(levels))

    def test_size_in_bytes(self) -> None:
        def sized(bytes_more: int) -> str:
            start, end = '{"nodes": [{"id": "a", "operation": "relu"}], "metadata": {"x": "', '"}}'
            filling = limits.ARCHITECTURE_BYTES_MAX - len(start) - len(end)
            return start + "ü" * (filling // 2) + "x" * (filling % 2 + bytes_more) + end

        parse_graph(sized(0))
        with pytest.raises(InvalidArchitecture, match=f"{limits.ARCHITECTURE_BYTES_MAX + 1} bytes"):
            parse_graph(sized(1))

    def test_a_huge_text_that_is_no_graph_makes_a_short_message(self) -> None:
        for bad in ("x" * 10**6, '"' + "x" * 10**6 + '"', json.dumps({"nodes": [node("x" * 10**6, "?" * 10**6)]})):
            with pytest.raises(InvalidArchitecture) as caught:
                parse_graph(bad)
            assert len(str(caught.value)) < 1000


class TestText:
    @pytest.mark.parametrize(
        "bad",
        ["", "nodes", "{", '{"nodes": [}', "{'nodes': []}", "[1,]", "\ufeff{}", "\ud800", '{"a": 1} {}', "9" * 5000],
    )
    def test_not_json(self, bad: str) -> None:
        with pytest.raises(InvalidArchitecture, match="is not JSON") as caught:
            parse_graph(bad)
        str(caught.value).encode()

    @pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
    def test_constants_that_are_not_json(self, constant: str) -> None:
        with pytest.raises(InvalidArchitecture, match=f"{re.escape(constant)} is not allowed"):
            parse_graph('{"nodes": [{"id": "a", "operation": "dropout", "params": {"rate": ' + constant + "}}]}")

    def test_a_name_twice_in_one_object(self) -> None:
        with pytest.raises(InvalidArchitecture, match="'nodes' is there twice"):
            parse_graph('{"nodes": [{"id": "a", "operation": "relu"}], "nodes": []}')

    def test_lone_surrogates_are_ids_like_others(self) -> None:
        assert parse_graph('{"nodes": [{"id": "\\ud800", "operation": "relu"}]}').nodes[0].id == "\ud800"
        error = refusal({"nodes": [node("\ud800", "\udfff")]})
        assert "\\ud800" in error.message

    @pytest.mark.parametrize("given", [b"{}", None, {"nodes": []}])
    def test_not_text(self, given: Any) -> None:
        with pytest.raises(InvalidArchitecture, match="must be JSON text"):
            parse_graph(given)

    def test_a_submitted_task_is_checked_in_the_same_way(self) -> None:
        with pytest.raises(InvalidArchitecture, match="unknown operation"):
            check_architecture(text(chain(node("a", "lstm"))))
        assert check_architecture('{"any": "json"}', "json") == {"any": "json"}
