"""Machine figures and metrics, with a recorded double at NVML's boundary."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tenure.proto import worker_pb2 as pb
from tenure.worker.link import Contact
from tenure.worker.machine import Figures, GpuFigures, Machine, wire_metrics
from tenure.worker.metrics import OUTCOMES, REPLACEMENTS, Instruments, StateCollector
from tenure.worker.runs import Run
from tenure.worker.slots import SlotState

GIB = 1024**3


class RecordedNvml:
    """Answers of a host with two GPUs (the second says nothing of its power), as ``pynvml`` gives them."""

    NVMLError = pynvml.NVMLError
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU
    uuids = (b"GPU-aaaa-1", "GPU-bbbb-2")

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"handle-{index}"

    def nvmlDeviceGetUUID(self, handle: str) -> bytes | str:
        return self.uuids[int(handle[-1])]

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return SimpleNamespace(gpu=93 if handle == "handle-0" else 7, memory=11)

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(total=80 * GIB, used=(60 if handle == "handle-0" else 20) * GIB, free=0)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        if handle == "handle-1":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 412_345


class NoNvml:
    """A host without NVIDIA's driver."""

    NVMLError = pynvml.NVMLError

    def nvmlInit(self) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)


def test_gpus_are_read_and_a_missing_figure_is_left_out() -> None:
    machine = Machine(RecordedNvml(), {})
    assert machine.gpus == ("0", "1")
    first, second = machine.figures().gpus
    assert first == GpuFigures("0", 0.93, 60 * GIB, 80 * GIB, 61.0, 412.345)
    assert second.power_watts is None
    assert second.utilization_ratio == 0.07


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        ("1", ("1",)),
        ("1,0", ("1", "0")),
        ("GPU-bbbb", ("GPU-bbbb",)),
        ("GPU-aaaa-1,1", ("GPU-aaaa-1", "1")),
        ("", ()),
        ("0,7,1", ("0",)),
    ],
)
def test_only_visible_gpus_count(visible: str, gpus: tuple[str, ...]) -> None:
    machine = Machine(RecordedNvml(), {"CUDA_VISIBLE_DEVICES": visible})
    assert machine.gpus == gpus
    assert [gpu.name for gpu in machine.figures().gpus] == list(gpus)


def test_a_machine_without_a_driver_has_no_gpus() -> None:
    machine = Machine(NoNvml(), {})
    assert machine.gpus == ()
    figures = machine.figures()
    assert figures.gpus == ()
    assert 0 <= figures.cpu_ratio <= 1
    assert 0 < figures.memory_ratio < 1
    assert figures.memory_used_bytes > 0


def test_the_real_nvml_is_asked_without_harm() -> None:
    assert isinstance(Machine().gpus, tuple)


def test_heartbeats_carry_percent() -> None:
    gpus = (GpuFigures("0", 0.9, 60 * GIB, 80 * GIB), GpuFigures("1", 0.1, 20 * GIB, 80 * GIB), GpuFigures("2"))
    metrics = wire_metrics(Figures(0.25, 0.5, 1, gpus), completed=3, failed=1, slots_busy=2, spooled=4)
    assert metrics == pb.WorkerMetrics(
        cpu_usage=25, memory_usage=50, gpu_usage=50, gpu_memory=50, tasks_completed=3, tasks_failed=1, slots_busy=2,
        spooled_results=4,
    )  # fmt: skip
    assert wire_metrics(Figures(0, 0, 0, ()), completed=0, failed=0, slots_busy=0, spooled=0) == pb.WorkerMetrics()


async def _exposed() -> str:
    instruments = Instruments()
    instruments.info.info({"worker_id": "w"})
    run = Run(1, pb.EvaluateRequest(task_id="t"))
    run.start(None, lambda: None)  # type: ignore[arg-type]
    run.report({"sequence": 1, "step": 5, "total_steps": 9, "metrics": {"samples_per_second": 321.0}})
    instruments.checkpoint_costs(run, {"saved": 1, "bytes_written": 1000, "write_seconds": 0.5, "failures": 0})
    instruments.checkpoint_costs(run, {"saved": 3, "bytes_written": 3000, "write_seconds": 1.5, "failures": 1})
    instruments.run_ended(run, "success")
    contact = Contact()
    contact.connected()
    executor = SimpleNamespace(resident_bytes=lambda: 123)
    slots = [
        SimpleNamespace(index=0, state=SlotState.RUNNING, run=run, executor=executor),
        SimpleNamespace(index=1, state=SlotState.BROKEN, run=None, executor=None),
    ]
    holdings: Any = SimpleNamespace(
        link=SimpleNamespace(contact=contact),
        open=True,
        spool=type("Spooled", (list,), {"write_failures": 2})(["a"]),
        announcements=[1, 2],
        runs={"t": run},
        slots=slots,
    )
    instruments.registry.register(StateCollector(holdings, Machine(RecordedNvml(), {})))
    return generate_latest(instruments.registry).decode()


async def test_every_metric_has_the_prefix_a_meaning_and_its_unit() -> None:
    units = ("_total", "_seconds", "_bytes", "_ratio", "_celsius", "_watts", "_per_second", "_info")
    counts = {
        "slots",
        "leases",
        "spool_outcomes",
        "session_up",
        "draining",
        "checkpoints_unregistered",
        "training_step",
    }
    for family in text_string_to_metric_families(await _exposed()):
        if family.name.startswith(("process_",)):
            continue
        assert family.name.startswith("tenure_worker"), family.name
        assert family.documentation.endswith("."), family.name
        samples = [sample.name for sample in family.samples if not sample.name.endswith("_created")]
        names = {re.sub(r"_(bucket|count|sum)$", "", name) for name in samples}
        for name in names:
            assert name.endswith(units) or name.removeprefix("tenure_worker_") in counts, name


async def test_figures_are_what_they_are() -> None:
    text = await _exposed()
    for line in (
        'tenure_worker_gpu_utilization_ratio{gpu="0"} 0.93',
        'tenure_worker_gpu_power_watts{gpu="0"} 412.345',
        'tenure_worker_gpu_temperature_celsius{gpu="1"} 61.0',
        'tenure_worker_slots{state="running"} 1.0',
        'tenure_worker_slots{state="broken"} 1.0',
        'tenure_worker_training_samples_per_second{slot="0"} 321.0',
        'tenure_worker_training_step{slot="0"} 5.0',
        'tenure_worker_executor_resident_bytes{slot="0"} 123.0',
        "tenure_worker_session_up 1.0",
        "tenure_worker_spool_outcomes 1.0",
        "tenure_worker_spool_write_failures_total 2.0",
        "tenure_worker_checkpoints_unregistered 2.0",
        "tenure_worker_checkpoints_saved_total 3.0",
        "tenure_worker_checkpoint_written_bytes_total 3000.0",
        "tenure_worker_checkpoint_write_seconds_total 1.5",
        "tenure_worker_checkpoint_failures_total 1.0",
        'tenure_worker_tasks_total{outcome="success"} 1.0',
    ):
        assert line in text.splitlines(), line
    assert 'tenure_worker_gpu_power_watts{gpu="1"}' not in text


def test_every_label_exists_before_it_happens() -> None:
    registry: CollectorRegistry = Instruments().registry
    for outcome in OUTCOMES:
        assert registry.get_sample_value("tenure_worker_tasks_total", {"outcome": outcome}) == 0
    for reason in REPLACEMENTS:
        assert registry.get_sample_value("tenure_worker_executor_restarts_total", {"reason": reason}) == 0
