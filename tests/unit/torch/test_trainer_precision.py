"""Other precisions than float32, and compiled networks."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from interruptions import end_of, run, same  # noqa: E402
from trainings import STATEFUL, StorageContext, newest_state, task_of  # noqa: E402

from tenure.common.errors import InvalidSetting  # noqa: E402
from tenure.worker.evaluator import MemoryContext  # noqa: E402
from tenure.worker.torch_eval import evaluate, precision, training  # noqa: E402

pytestmark = pytest.mark.torch

# Of torch's own modules.
INDUCTOR = pytest.mark.filterwarnings("ignore::DeprecationWarning")
CONFIG: dict[str, Any] = {"num_epochs": 2, "batch_size": 256, "learning_rate": 0.01, "dataset": "trainings:blobs"}


def test_bfloat16_is_what_the_network_computes_in_and_nothing_else(tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    short = evaluate(task_of(extra={"precision": "bfloat16"}, **CONFIG), context).metrics
    whole = evaluate(task_of(**CONFIG), MemoryContext(tmp_path)).metrics
    assert short["val_loss"] != whole["val_loss"]
    assert abs(short["val_loss"] - whole["val_loss"]) < 0.1
    state = context.checkpoint.saved[-1][1]
    moments = [moment for one in state["optimizer"]["state"].values() for moment in one.values()]
    floats = [one for one in (*state["model"].values(), *moments) if one.is_floating_point()]
    assert {one.dtype for one in floats} == {torch.float32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about workers without a GPU")
def test_float16_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="require a GPU") as caught:
        evaluate(task_of(extra={"precision": "float16"}, **CONFIG), MemoryContext(tmp_path))
    assert caught.value.field == "config.extra.precision"
    assert caught.value.given == "float16 on cpu"


def test_a_resumed_float16_training_has_the_scale_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, which is slow but can. The scale begins so high that steps are left out, and grows again soon."""
    scaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**26, growth_interval=2)
    monkeypatch.setattr(precision.torch.amp, "GradScaler", scaler)
    monkeypatch.setattr(training, "check_precision", lambda name, device: None)
    task = task_of(extra={"precision": "float16", "gradient_clip": "1.0"}, **CONFIG)
    expected = evaluate(task, StorageContext(tmp_path / "whole"))
    for look in (3, 4, 9):
        assert run(task, tmp_path / "stopped", stop_at_look=look) is None
    ended = run(task, tmp_path / "stopped")
    assert ended is not None
    assert end_of(ended) == end_of(expected)
    ours, theirs = newest_state(tmp_path / "stopped"), newest_state(tmp_path / "whole")
    assert same(ours, theirs)
    assert ours["scaler"]["scale"] != 2.0**26, "else this shows nothing"


@INDUCTOR
def test_without_a_compiler_the_worker_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InvalidSetting, match=r"finds no C\+\+ compiler .*no-such-compiler") as caught:
        evaluate(task_of(extra={"compile": "on"}, **CONFIG), MemoryContext(tmp_path))
    assert caught.value.field == "config.extra.compile"


@INDUCTOR
def test_a_failed_compilation_is_an_error_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("no kernel for you")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", broken)
    monkeypatch.setattr(precision, "check_compiler", lambda device: None)
    for _ in range(2):
        with pytest.raises(InvalidSetting, match="no kernel for you") as caught:
            evaluate(task_of(extra={"compile": "on"}, **CONFIG), MemoryContext(tmp_path))
        assert caught.value.field == "config.extra.compile"


@pytest.mark.long
@INDUCTOR
def test_compiled_it_is_resumed_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at the last batch of the epoch, whose shape is another one: it is the first that is compiled then."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    task = task_of(STATEFUL, {"compile": "on"}, **CONFIG)
    expected = evaluate(task, StorageContext(tmp_path / "whole"))
    for look in (6, 3, 5):
        assert run(task, tmp_path / "stopped", stop_at_look=look) is None
    ended = run(task, tmp_path / "stopped")
    assert ended is not None
    assert end_of(ended) == end_of(expected)
    state, plain = newest_state(tmp_path / "whole"), MemoryContext(tmp_path)
    assert same(newest_state(tmp_path / "stopped"), state)
    evaluate(task_of(STATEFUL, **CONFIG), plain)
    assert state["model"].keys() == plain.checkpoint.saved[-1][1]["model"].keys(), "the uncompiled network's names"
