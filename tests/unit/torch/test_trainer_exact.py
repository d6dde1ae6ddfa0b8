"""Whatever a training uses: stopped and killed at random batches, it ends with the bits of the undisturbed one.

The places come from a seed, which each test prints; ``TENURE_TEST_SEED`` gives another. Here a kill is an exception
that no code expects, right between two batches.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from interruptions import DeadlyContext, end_of, run, same  # noqa: E402
from trainings import STATEFUL, StorageContext, chain, newest_state, task_of  # noqa: E402

from tenure.worker.evaluator import EvaluationTask, MemoryContext, Result  # noqa: E402
from tenure.worker.torch_eval import build_module, evaluate  # noqa: E402
from tenure.worker.torch_eval.weights import weights_sha256  # noqa: E402

pytestmark = pytest.mark.torch

SEED = int(os.environ.get("TENURE_TEST_SEED", "1"))
INTERRUPTIONS = 6
CONFIG = {"num_epochs": 4, "batch_size": 256, "learning_rate": 0.01, "dataset": "trainings:blobs"}
SGD = {"optimizer": "sgd", "momentum": "0.9"}

# Each of what has a state, or an order: alone where it is delicate, together where that is no harder.
VARIANTS = {
    "sgd, step": SGD | {"weight_decay": "0.001", "schedule": "step", "step_size": "1"},
    "sgd, nesterov, warm-up, cosine": SGD | {"nesterov": "on", "warmup_epochs": "2", "schedule": "cosine"},
    "adam, smoothing, clipping": {"label_smoothing": "0.1", "gradient_clip": "1.0", "schedule": "step"},
    "adamw, cosine, shift": {"optimizer": "adamw", "beta1": "0.8", "schedule": "cosine", "augment": "shift"},
    "bfloat16": SGD | {"precision": "bfloat16", "augment": "shift"},
    "bfloat16, adamw, micro-batches": {"precision": "bfloat16", "optimizer": "adamw", "micro_batches": "3"},
    "micro-batches": {"micro_batches": "5", "gradient_clip": "0.5"},
    "early stopping": {"early_stopping_epochs": "2", "early_stopping_delta": "0.5"},
    "split": {"split_seed": "9", "val_fraction": "0.3"},
    "saved at every batch": SGD | {"checkpoint_every_seconds": "0.000001"},
}


def interrupted(task: EvaluationTask, directory: Path, looks: int, draw: random.Random, times: int) -> Result:
    """Stop or kill it ``times`` at random looks, then let it end."""
    for _ in range(times):
        when = draw.choice(["stop_at_look", "die_at_look"])
        look = draw.randint(1, looks)
        if (ended := run(task, directory, **{when: look})) is not None:
            return ended
    ended = run(task, directory)
    assert ended is not None
    return ended


@pytest.mark.parametrize("variant", VARIANTS)
def test_interrupted_at_random_it_ends_with_the_same_bits(variant: str, tmp_path: Path) -> None:
    task = task_of(extra=VARIANTS[variant], **CONFIG)
    whole = DeadlyContext(tmp_path / "whole")
    expected = evaluate(task, whole)
    whole.checkpoint.close()
    draw = random.Random(f"{SEED} {variant}")
    sys.stdout.write(f"TENURE_TEST_SEED={SEED}\n")
    ended = interrupted(task, tmp_path / "interrupted", whole.looks // 2, draw, INTERRUPTIONS)
    assert end_of(ended) == end_of(expected)
    assert same(newest_state(tmp_path / "interrupted"), newest_state(tmp_path / "whole"))


def test_early_stopping_ends_it_and_says_so(tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    metrics = evaluate(task_of(extra=VARIANTS["early stopping"], **CONFIG), context).metrics
    # The first epoch is the best: none after it is better by 0.5.
    assert (metrics["epochs"], metrics["stopped_early"]) == (3, 1)
    patient = evaluate(task_of(extra={"early_stopping_epochs": "4"}, **CONFIG), MemoryContext(tmp_path)).metrics
    assert (patient["epochs"], patient["stopped_early"]) == (4, 0)


def test_the_hash_is_that_of_every_parameter_and_buffer(tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    result = evaluate(task_of(**CONFIG), context)
    module = build_module(STATEFUL, (1, 8, 8), 10)
    module.load_state_dict(context.checkpoint.saved[-1][1]["model"])
    told = json.loads(result.detail)
    assert told == {"weights_sha256": weights_sha256(module)}
    for name, tensor in module.state_dict().items():
        bits = tensor.reshape(-1).view(torch.uint8)
        bits[0] ^= 1
        assert weights_sha256(module) != told["weights_sha256"], name
        bits[0] ^= 1
    assert weights_sha256(module) == told["weights_sha256"]


def test_micro_batches_learn_what_the_whole_batch_would(tmp_path: Path) -> None:
    """Without batch normalisation the gradients are the same sum, so one step ends within rounding of the other."""
    network = chain(("dense", {"units": 16, "activation": "relu"}))
    config = CONFIG | {"num_epochs": 1, "batch_size": 1440}

    def weights(parts: str) -> dict[str, Any]:
        context = MemoryContext(tmp_path)
        extra = SGD | {"micro_batches": parts, "label_smoothing": "0.1"}
        evaluate(task_of(network, extra, **config), context)
        return dict(context.checkpoint.saved[-1][1]["model"])

    whole, parted = weights("1"), weights("7")
    assert not same(whole, parted), "else nothing was divided"
    for name, tensor in whole.items():
        assert torch.allclose(tensor, parted[name], atol=1e-6), name


def test_micro_batches_chosen_for_a_resumed_training_are_taken_and_logged(tmp_path: Path) -> None:
    from tenure.worker.torch_eval.trainer import train

    task = task_of(**CONFIG)
    assert run(task, tmp_path, stop_at_look=4) is None
    context = StorageContext(tmp_path)
    assert train(task, context, micro_batches=4).metrics["epochs"] == 4
    assert ("training.micro_batches_changed", {"before": 1, "now": 4}) in context.events
    assert newest_state(tmp_path)["micro_batches"] == 4
