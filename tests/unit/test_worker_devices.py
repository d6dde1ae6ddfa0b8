"""Which slot gets which devices, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tenure.common.errors import InvalidSetting
from tenure.proto import worker_pb2 as pb
from tenure.worker.gpu.devices import SlotDevices, best_slot, deal_out
from tenure.worker.settings import load_settings

FOUR = ("0", "1", "2", "3")
MIG = ("MIG-1", "MIG-2")


def dealt(gpus: tuple[str, ...], **given: Any) -> list[tuple[str, ...]]:
    """The GPUs of each slot; a GPU may also be called by ``GPU-`` and its name."""

    def resolve(name: str) -> str | None:
        return next((gpu for gpu in gpus if name in (gpu, f"GPU-{gpu}")), None)

    numbered = {gpu: number for number, gpu in enumerate(gpus)}
    return [slot.gpus for slot in deal_out(load_settings(**given), numbered, resolve)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [("0",), ("1",), ("2",), ("3",)]),
        ({"slots": 2}, [("0",), ("1",)]),
        ({"slots": 6}, [("0",), ("1",), ("2",), ("3",), ("0",), ("1",)]),
        ({"gpus_per_slot": 2}, [("0", "1"), ("2", "3")]),
        ({"gpus_per_slot": 3}, [("0", "1", "2")]),
        ({"gpus_per_slot": 4, "slots": 2}, [FOUR, FOUR]),
        ({"slot_gpus": "3,1/0,2"}, [("3", "1"), ("0", "2")]),
        ({"slot_gpus": "GPU-3"}, [("3",)]),
        ({"slot_gpus": "1 / 0", "slots": 3}, [("1",), ("0",), ("1",)]),
    ],
)
def test_gpus_are_dealt_out_in_order_or_by_name(given: dict[str, Any], expected: list[tuple[str, ...]]) -> None:
    assert dealt(FOUR, **given) == expected


def test_mig_devices_are_one_a_slot() -> None:
    assert dealt(MIG) == [("MIG-1",), ("MIG-2",)]
    assert dealt(MIG, slot_gpus="MIG-2/MIG-1") == [("MIG-2",), ("MIG-1",)]


def test_without_gpus_the_cpu_may_stand_for_several() -> None:
    (slot,) = deal_out(load_settings(), {}, lambda name: None)
    assert (slot.names, slot.gpu_count) == (("cpu",), 0)
    slots = deal_out(load_settings(slots=2, cpu_ranks_per_slot=2), {}, lambda name: None)
    assert [(slot.names, slot.gpu_count) for slot in slots] == [(("cpu", "cpu"), 2)] * 2


def test_an_executor_counts_its_own_gpus_from_0() -> None:
    slot = SlotDevices(("3", "GPU-x"))
    assert (slot.names, slot.gpu_count) == (("cuda:0", "cuda:1"), 2)


@pytest.mark.parametrize(
    ("gpus", "given", "field", "remedy"),
    [
        (FOUR, {"gpus_per_slot": 5}, "gpus_per_slot", "shows 4 GPUs"),
        ((), {"gpus_per_slot": 2}, "gpus_per_slot", "cpu_ranks_per_slot"),
        (FOUR, {"slot_gpus": "0,9"}, "slot_gpus", "nvidia-smi"),
        (FOUR, {"slot_gpus": "0,GPU-0"}, "slot_gpus", "each once"),
        (FOUR, {"cpu_ranks_per_slot": 2}, "cpu_ranks_per_slot", "CUDA_VISIBLE_DEVICES="),
        (MIG, {"gpus_per_slot": 2}, "gpus_per_slot", "one MIG device"),
        (MIG, {"slot_gpus": "MIG-1,MIG-2"}, "slot_gpus", "one MIG device"),
    ],
)
def test_what_can_not_be_dealt_out_is_refused(
    gpus: tuple[str, ...], given: dict[str, Any], field: str, remedy: str
) -> None:
    with pytest.raises(InvalidSetting) as refused:
        dealt(gpus, **given)
    assert refused.value.field == field
    assert remedy in refused.value.expected


def slot(index: int, gpu: int, *, code: str = "", claimable: bool = True) -> Any:
    """What is looked at of a slot."""
    devices = SlotDevices((str(gpu),), indices=(gpu,))
    fitting = SimpleNamespace(fits=lambda request: request.code == code)
    return SimpleNamespace(index=index, devices=devices, fitting=fitting, claimable=claimable)


@pytest.mark.parametrize(
    ("wish", "code", "expected"), [(0, "", 0), (3, "", 2), (9, "", 0), (4, "", 0), (0, "c", 1), (3, "c", 1)]
)
def test_a_task_goes_to_the_gpu_that_it_wishes_for_if_that_is_free(wish: int, code: str, expected: int) -> None:
    slots = [slot(0, 1), slot(1, 2, code="c"), slot(2, 3), slot(3, 4, claimable=False)]
    request = pb.EvaluateRequest(code=code, config=pb.EvaluationConfig(gpu_id=wish))
    found = best_slot(slots, request)
    assert found is not None
    assert found.index == expected
    assert best_slot(slots[3:], request) is None


def test_an_index_says_which_gpu_it_is_in_the_machine() -> None:
    slots = deal_out(load_settings(gpus_per_slot=2), {"3": 3, "GPU-x": 7}, lambda name: None)
    assert [slot.indices for slot in slots] == [(3, 7)]
