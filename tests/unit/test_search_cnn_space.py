"""Every graph of the CNN space is valid, reproducible, and can be built and run."""

from __future__ import annotations

import json

import optuna
import pytest

from tenure.client.cnn_space import CnnSpace, cnn_space_for
from tenure.common.errors import InvalidInput
from tenure.common.spec import check_architecture

DATASETS = {"digits": (1, 8, 8), "mnist-5k": (1, 28, 28)}


def trials(number: int) -> list[optuna.Trial]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [study.ask() for _ in range(number)]


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_graph_is_valid(dataset: str) -> None:
    space = cnn_space_for(dataset)
    for trial in trials(200):
        check_architecture(json.dumps(space(trial)))


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_same_parameters_give_the_same_graph(dataset: str) -> None:
    space = cnn_space_for(dataset)
    for trial in trials(20):
        graph = space(trial)
        assert space(optuna.trial.FixedTrial(trial.params)) == graph
        assert space(trial) == graph


def test_the_space_has_skips_pools_and_depth() -> None:
    graphs = [cnn_space_for("digits")(trial) for trial in trials(100)]
    operations = {node["operation"] for graph in graphs for node in graph["nodes"]}
    assert operations == {"input", "conv2d", "batchnorm", "maxpool", "avgpool", "dense", "dropout"}
    assert any(len(graph["edges"]) >= len(graph["nodes"]) for graph in graphs)


@pytest.mark.torch
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_graph_can_be_built_and_run(dataset: str) -> None:
    torch = pytest.importorskip("torch")
    from tenure.worker.torch_eval import build_module

    torch.set_num_threads(1)
    shape = DATASETS[dataset]
    for trial in trials(15):
        module = build_module(json.dumps(cnn_space_for(dataset)(trial)), shape, 10).eval()
        assert module(torch.zeros(2, *shape)).shape == (2, 10)


def test_a_space_of_your_own() -> None:
    space = CnnSpace(image_size=32, num_classes=100, blocks_max=4, filters=(8,), kernel_sizes=(3,), dense_units=(0,))
    for trial in trials(20):
        graph = space(trial)
        assert graph["nodes"][-1]["params"]["units"] == 100
        check_architecture(json.dumps(graph))


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(InvalidInput, match="imagenet"):
        cnn_space_for("imagenet")
