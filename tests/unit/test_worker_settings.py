"""Worker settings: where they come from and what is refused."""

from __future__ import annotations

import pytest

from tenure.common.addresses import Address
from tenure.common.errors import InvalidSetting
from tenure.worker.settings import load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENURE_MASTER", raising=False)


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_WORKER_SLOTS", "3")
    monkeypatch.setenv("TENURE_MASTER", "a:1,b:2")
    assert load_settings().slots == 3
    assert load_settings(slots=5).slots == 5
    assert load_settings(slots=None).slots == 3
    assert load_settings().masters == [Address("a", 1), Address("b", 2)]
    assert load_settings(master="c:3").masters == [Address("c", 3)]


def test_explicit_is_what_somebody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not load_settings().is_explicit("listen")
    assert load_settings(listen="127.0.0.1:50052").is_explicit("listen")
    monkeypatch.setenv("TENURE_WORKER_LISTEN", "127.0.0.1:1")
    assert load_settings().is_explicit("listen")


def test_labels_are_parsed() -> None:
    assert load_settings(labels="gpu=a100, zone=east").label_map == {"gpu": "a100", "zone": "east"}
    assert load_settings().label_map == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10%", (0, 0.1)),
        ("2GiB", (2 << 30, 0.0)),
        ("1.5 kb", (1500, 0.0)),
        ("500MB", (500_000_000, 0.0)),
        ("123", (123, 0.0)),
        ("0", (0, 0.0)),
    ],
)
def test_memory_is_said_in_bytes_or_as_a_share(text: str, expected: tuple[int, float]) -> None:
    assert load_settings(executor_leak_max=text).leak_max == expected


def test_lists_are_parsed() -> None:
    assert load_settings(slot_gpus="0, 1/2,3").slot_gpu_names == (("0", "1"), ("2", "3"))
    assert load_settings(xids_ignored="74, 109,").ignored_xids == {74, 109}


@pytest.mark.parametrize(
    ("given", "field", "remedy"),
    [
        ({"slots": -1}, "slots", "0 (one per GPU)"),
        ({"slots": "many"}, "slots", "an integer"),
        ({"slots": 1025}, "slots", "1024"),
        ({"gpus_per_slot": 0}, "gpus_per_slot", "from 1 to"),
        ({"slot_gpus": "0,1/2"}, "slot_gpus", "a worker for each size"),
        ({"slot_gpus": "0,/1"}, "slot_gpus", "0,1/2,3"),
        ({"slot_gpus": "0/1", "gpus_per_slot": 1}, "gpus_per_slot", "one of the two"),
        ({"cpu_ranks_per_slot": -1}, "cpu_ranks_per_slot", "from 0"),
        ({"xids_ignored": "74,x"}, "xids_ignored", "74,109"),
        ({"xids_ignored": "0"}, "xids_ignored", "74,109"),
        ({"executor_leak_max": "much"}, "executor_leak_max", "2GiB"),
        ({"executor_leak_max": "101%"}, "executor_leak_max", "10%"),
        ({"executor_leak_max": "-1"}, "executor_leak_max", "0: no limit"),
        ({"master": ""}, "master", "host:port"),
        ({"master": "a:1,b"}, "master", "host:port"),
        ({"listen": "nowhere"}, "listen", "host:port"),
        ({"listen": "h:99999"}, "listen", "host:port"),
        ({"http": "x"}, "http", "host:port"),
        ({"advertise": "x"}, "advertise", "host:port"),
        ({"evaluator": "my_module"}, "evaluator", "module:function"),
        ({"evaluator": "a:b; import os"}, "evaluator", "module:function"),
        ({"worker_id": "a\nb"}, "worker_id", "printable"),
        ({"worker_id": "w" * 129}, "worker_id", "128 bytes"),
        ({"dispatch": "both"}, "dispatch", "pull"),
        ({"labels": "gpu"}, "labels", "name=value"),
        ({"labels": "gpu=" + "x" * 100}, "labels", "64 bytes"),
        ({"labels": ",".join(f"n{i}=v" for i in range(33))}, "labels", "at most 32"),
        ({"preemption_url": "ftp://h/x"}, "preemption_url", "http://host/path"),
        ({"preemption_url": "http://h:x/"}, "preemption_url", "http://host/path"),
        ({"preemption_token_url": "169.254.169.254"}, "preemption_token_url", "http://host/path"),
        ({"preemption_headers": "Metadata"}, "preemption_headers", "Name: value"),
        ({"preemption_headers": "A B: c"}, "preemption_headers", "Name: value"),
        ({"preemption_match": "("}, "preemption_match", "what the body"),
        ({"preemption_match": "TRUE"}, "preemption_match", "give preemption_url"),
        ({"preemption_headers": "A: b"}, "preemption_headers", "give preemption_url"),
        ({"preemption_token_url": "http://h/t"}, "preemption_token_url", "give preemption_url"),
        ({"preemption_file": "/"}, "preemption_file", "path of a file"),
        ({"preemption_poll_seconds": 0}, "preemption_poll_seconds", "from 0.1"),
        ({"drain_grace_seconds": -1}, "drain_grace_seconds", "at least 0"),
        ({"drain_grace_seconds": float("nan")}, "drain_grace_seconds", "at least 0"),
        ({"rpc_timeout_seconds": 0}, "rpc_timeout_seconds", "above 0"),
        ({"compression": "zip"}, "compression", "gzip"),
        ({"checkpoints": ""}, "checkpoints", "fsspec"),
        ({"log_level": "loud"}, "log_level", "debug"),
        ({"nonsense": 1}, "nonsense", ""),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(given: dict[str, object], field: str, remedy: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load_settings(**given)
    assert caught.value.field == field
    assert remedy in caught.value.expected
    if field != "nonsense" and not str(given[field]).startswith("n0="):
        assert caught.value.given


def test_the_environment_is_checked_like_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_WORKER_STOP_GRACE_SECONDS", "soon")
    with pytest.raises(InvalidSetting, match=r"stop_grace_seconds.*'soon'"):
        load_settings()


def test_an_empty_variable_names_no_preemption_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_WORKER_PREEMPTION_FILE", "")
    settings = load_settings(evaluator="evaluators:evaluate", preemption_url="")
    assert settings.preemption_file is None
    assert not settings.notices.watched
