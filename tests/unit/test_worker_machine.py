"""Machine figures and metrics, with a recorded double at NVML's boundary."""

from __future__ import annotations

import json
import re
from collections import Counter
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from nvml_double import FOLDER, RecordingNvml, ReplayedNvml, recorded, replayed
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from tenure.proto import worker_pb2 as pb
from tenure.worker.gpu.devices import SlotDevices
from tenure.worker.gpu.nvml import GpuFigures
from tenure.worker.gpu.watch import Incident
from tenure.worker.link import Contact
from tenure.worker.machine import Figures, Machine, wire_metrics
from tenure.worker.metrics import LEFTOVERS, OUTCOMES, REPLACEMENTS, Instruments
from tenure.worker.runs import Run
from tenure.worker.slots.health import SlotHealth
from tenure.worker.slots.slot import SlotState
from tenure.worker.state_metrics import StateCollector

GIB = 1024**3


def test_gpus_are_read_and_a_missing_figure_is_left_out() -> None:
    machine = Machine(replayed("two_gpus"), {})
    assert machine.gpus == ("0", "1")
    first, second = machine.figures().gpus
    assert first == GpuFigures(
        name="0",
        utilization_ratio=0.93,
        memory_used_bytes=60 * GIB,
        memory_total_bytes=80 * GIB,
        temperature_celsius=61.0,
        power_watts=412.345,
        ecc_corrected=3,
        ecc_uncorrected=0,
        throttling=("power cap",),
        model="NVIDIA H100 80GB HBM3",
    )
    assert (second.power_watts, second.ecc_corrected, second.ecc_uncorrected) == (None, None, None)
    assert second.utilization_ratio == 0.07
    assert second.throttling == ("temperature", "temperature, by hardware")


@pytest.mark.parametrize(
    ("visible", "gpus", "indices"),
    [
        ("1", ("1",), (1,)),
        ("1,0", ("1", "0"), (1, 0)),
        ("GPU-bbbb", ("GPU-bbbb",), (1,)),
        ("GPU-aaaa1111,1", ("GPU-aaaa1111", "1"), (0, 1)),
        ("GPU-", (), ()),
        ("", (), ()),
        ("0,7,1", ("0",), (0,)),
        ("0,GPU-aaaa,1", ("0",), (0,)),
    ],
)
def test_only_visible_gpus_count(visible: str, gpus: tuple[str, ...], indices: tuple[int, ...]) -> None:
    machine = Machine(replayed("two_gpus"), {"CUDA_VISIBLE_DEVICES": visible})
    assert machine.gpus == gpus
    assert tuple(machine.gpu_indices.values()) == indices
    assert [gpu.name for gpu in machine.figures().gpus] == list(gpus)


def test_a_gpu_in_mig_mode_counts_as_its_devices_with_figures_of_their_own_and_of_their_gpu() -> None:
    machine = Machine(replayed("mig"), {})
    first, second = "MIG-11111111-0000-0000-0000-000000000000", "MIG-22222222-0000-0000-0000-000000000000"
    assert machine.gpus == ("0", first, second)
    assert machine.gpu_indices == {"0": 0, first: 1, second: 1}
    figures = {gpu.name: gpu for gpu in machine.figures().gpus}
    assert (figures[first].memory_used_bytes, figures[second].memory_used_bytes) == (10 * GIB, 12 * GIB)
    assert figures[first].memory_total_bytes == 40 * GIB
    assert figures[first].utilization_ratio is None, "NVML doesn't tell it of MIG devices"
    assert (figures[first].temperature_celsius, figures[first].power_watts) == (61.0, 412.345)


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        ("MIG-2222", ("MIG-22222222-0000-0000-0000-000000000000",)),
        ("MIG-3333", ()),
        # As CUDA: of a GPU in MIG mode a process sees the first device.
        ("1", ("MIG-11111111-0000-0000-0000-000000000000",)),
    ],
)
def test_mig_devices_are_named_by_uuid(visible: str, gpus: tuple[str, ...]) -> None:
    assert Machine(replayed("mig"), {"CUDA_VISIBLE_DEVICES": visible}).gpus == gpus


def test_a_gpu_is_found_by_each_of_its_names() -> None:
    machine = Machine(replayed("mig"), {})
    assert machine.resolve("0") == machine.resolve("GPU-aaaa1111") == "0"
    assert machine.resolve("MIG-2222") == "MIG-22222222-0000-0000-0000-000000000000"
    assert [machine.resolve(name) for name in ("1", "7", "MIG-", "MIG-9", "GPU-bbbb2222", "cuda:0", "")] == [None] * 7


@pytest.mark.parametrize(
    ("recording", "level"), [("no_driver", "debug"), ("driver_mismatch", "warning")], ids=["no_driver", "mismatch"]
)
def test_a_machine_whose_driver_is_absent_or_broken_has_no_gpus_and_says_how_bad_that_is(
    recording: str, level: str
) -> None:
    with capture_logs() as logs:
        machine = Machine(replayed(recording), {})
    assert [(line["event"], line["log_level"]) for line in logs] == [("machine.no_gpus", level)]
    assert machine.gpus == ()
    figures = machine.figures()
    assert figures.gpus == ()
    assert 0 <= figures.cpu_ratio <= 1
    assert 0 < figures.memory_ratio < 1
    assert figures.memory_used_bytes > 0


def test_a_gpu_that_falls_off_the_bus_keeps_its_name_and_loses_its_figures() -> None:
    machine = Machine(replayed("gpu_lost"), {})
    assert machine.figures().gpus[0].fault == ""
    lost, well = machine.figures().gpus
    assert lost.fault.startswith("is lost")
    assert (lost.name, lost.temperature_celsius, lost.memory_total_bytes) == ("0", None, None)
    assert (well.fault, well.temperature_celsius) == ("", 61.0)


def test_a_gpu_that_is_lost_at_the_start_hides_no_other() -> None:
    assert Machine(replayed("dead_at_start"), {}).gpus == ("1",)


def test_what_a_container_may_use_is_the_memory_there_is() -> None:
    assert 0 < Machine(replayed("no_driver"), {}).memory_total_bytes <= psutil.virtual_memory().total


def test_another_order_of_devices_is_not_followed_in_silence() -> None:
    with capture_logs() as logs:
        Machine(replayed("two_gpus"), {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})
    assert [line["event"] for line in logs] == ["machine.gpu_order"]


@pytest.mark.parametrize("recording", ["two_gpus", "mig", "dead_at_start", "no_driver"])
def test_what_is_recorded_can_be_replayed(recording: str) -> None:
    again = ReplayedNvml(json.loads(json.dumps(recorded(RecordingNvml(replayed(recording))))))
    assert Machine(again, {}).figures().gpus == Machine(replayed(recording), {}).figures().gpus
    assert set(again.calls) <= set(json.loads((FOLDER / f"{recording}.json").read_text())["answers"])


def test_this_machine_can_be_recorded() -> None:
    assert "nvmlInit()" in recorded(RecordingNvml())["answers"]


def test_the_real_nvml_is_asked_without_harm() -> None:
    assert isinstance(Machine().gpus, tuple)


def test_heartbeats_carry_percent() -> None:
    gpus = (GpuFigures("0", 0.9, 60 * GIB, 80 * GIB), GpuFigures("1", 0.1, 20 * GIB, 80 * GIB), GpuFigures("2"))
    metrics = wire_metrics(Figures(0.25, 0.5, 1, gpus), completed=3, failed=1, slots_busy=2, spooled=4)
    assert [gpu.gpu for gpu in metrics.gpus] == ["0", "1", "2"]
    del metrics.gpus[:]
    assert metrics == pb.WorkerMetrics(
        cpu_usage=25, memory_usage=50, gpu_usage=50, gpu_memory=50, tasks_completed=3, tasks_failed=1, slots_busy=2,
        spooled_results=4,
    )  # fmt: skip
    assert wire_metrics(Figures(0, 0, 0, ()), completed=0, failed=0, slots_busy=0, spooled=0) == pb.WorkerMetrics()


class _Watch:
    """What a watch has counted."""

    def xid_counts(self) -> dict[str, Counter[int]]:
        return {"0": Counter({31: 2, 79: 1})}

    def last_xid(self, gpu: str) -> int:
        return 79 if gpu == "0" else 0


def _slots() -> list[Any]:
    """The first runs something on GPU 0, the second is cordoned, and shares it."""
    run = Run(1, pb.EvaluateRequest(task_id="t"))
    run.start(None, lambda: None)  # type: ignore[arg-type]
    run.report({"sequence": 1, "step": 5, "total_steps": 9, "metrics": {"samples_per_second": 321.0}})
    ill = SlotHealth(("0", "1"))
    ill.note_incident(Incident("0", 79))
    executor = SimpleNamespace(resident_bytes=lambda: 123)
    return [
        SimpleNamespace(
            index=0,
            state=SlotState.RUNNING,
            run=run,
            executor=executor,
            devices=SlotDevices(("0",)),
            health=SlotHealth(("0",)),
        ),
        SimpleNamespace(
            index=1, state=SlotState.CORDONED, run=None, executor=None, devices=SlotDevices(("0", "1")), health=ill
        ),
    ]


async def test_heartbeats_carry_each_gpu_and_slot() -> None:
    watch: Any = _Watch()
    figures = Machine(replayed("two_gpus"), {}).figures()
    metrics = wire_metrics(figures, completed=0, failed=0, slots_busy=1, spooled=0, slots=_slots(), watch=watch)
    first, second = metrics.gpus
    assert (list(first.slots), list(second.slots)) == ([0, 1], [1])
    assert (first.utilization, first.temperature_celsius, first.xid_errors, first.last_xid) == (93, 61, 3, 79)
    assert (first.model, list(first.throttling), first.ecc_corrected) == ("NVIDIA H100 80GB HBM3", ["power cap"], 3)
    assert (second.xid_errors, second.HasField("power_watts"), second.HasField("ecc_corrected")) == (0, False, False)
    assert [(slot.slot, slot.state, slot.task_id) for slot in metrics.slots] == [
        (0, "running", "t"),
        (1, "cordoned", ""),
    ]
    assert metrics.slots[0].cordon_reason == ""
    assert metrics.slots[1].cordon_reason == "GPU 0: XID 79, the GPU has fallen off the bus"


async def _exposed() -> str:
    instruments = Instruments()
    instruments.info.labels("w", "1.0", "pull").set(1)
    slots = _slots()
    run = slots[0].run
    instruments.checkpoint_costs(run, {"saved": 1, "bytes_written": 1000, "write_seconds": 0.5, "failures": 0})
    instruments.checkpoint_costs(run, {"saved": 3, "bytes_written": 3000, "write_seconds": 1.5, "failures": 1}, 0.75)
    instruments.call_ended("GetCode", "OK", 0.02)
    instruments.run_ended(run, "success")
    contact = Contact()
    contact.connected()
    holdings: Any = SimpleNamespace(
        link=SimpleNamespace(contact=contact),
        open=True,
        spool=type("Spooled", (list,), {"write_failures": 2, "size_bytes": 70})(["a"]),
        announcements=[1, 2],
        runs={"t": run},
        slots=slots,
    )
    watch: Any = _Watch()
    disks: Any = SimpleNamespace(free_bytes=lambda: {"work_dir": 5e9})
    instruments.registry.register(StateCollector(holdings, Machine(replayed("two_gpus"), {}), watch, disks))
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
        "slot_cordoned",
        "gpu_unusable",
        "gpu_throttled",
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
        'tenure_worker_gpu_utilization_ratio{gpu="0",slot="0,1"} 0.93',
        'tenure_worker_gpu_power_watts{gpu="0",slot="0,1"} 412.345',
        'tenure_worker_gpu_temperature_celsius{gpu="1",slot="1"} 61.0',
        'tenure_worker_slots{state="running"} 1.0',
        'tenure_worker_slots{state="broken"} 0.0',
        'tenure_worker_slots{state="cordoned"} 1.0',
        'tenure_worker_slot_cordoned{cause="",slot="0"} 0.0',
        'tenure_worker_slot_cordoned{cause="xid",slot="1"} 1.0',
        'tenure_worker_gpu_unusable{gpu="1",slot="1"} 0.0',
        'tenure_worker_gpu_throttled{gpu="0",reason="power cap",slot="0,1"} 1.0',
        'tenure_worker_gpu_ecc_errors_total{gpu="0",kind="corrected",slot="0,1"} 3.0',
        'tenure_worker_gpu_xid_errors_total{gpu="0",slot="0,1",xid="31"} 2.0',
        'tenure_worker_training_samples_per_second{slot="0"} 321.0',
        'tenure_worker_training_step{slot="0"} 5.0',
        'tenure_worker_executor_resident_bytes{slot="0"} 123.0',
        "tenure_worker_session_up 1.0",
        "tenure_worker_spool_outcomes 1.0",
        "tenure_worker_spool_bytes 70.0",
        'tenure_worker_disk_free_bytes{kind="work_dir"} 5e+09',
        "tenure_worker_checkpoint_write_duration_seconds_sum 0.75",
        'tenure_worker_rpc_seconds_count{code="OK",method="GetCode"} 1.0',
        'tenure_worker_info{dispatch="pull",version="1.0",worker="w"} 1.0',
        "tenure_worker_spool_write_failures_total 2.0",
        "tenure_worker_checkpoints_unregistered 2.0",
        "tenure_worker_checkpoints_saved_total 3.0",
        "tenure_worker_checkpoint_written_bytes_total 3000.0",
        "tenure_worker_checkpoint_write_seconds_total 1.5",
        "tenure_worker_checkpoint_failures_total 1.0",
        'tenure_worker_tasks_total{outcome="success"} 1.0',
    ):
        assert line in text.splitlines(), line
    assert 'tenure_worker_gpu_power_watts{gpu="1"' not in text
    assert 'tenure_worker_gpu_ecc_errors_total{gpu="1"' not in text


def test_every_label_exists_before_it_happens() -> None:
    registry: CollectorRegistry = Instruments().registry
    for outcome in OUTCOMES:
        assert registry.get_sample_value("tenure_worker_tasks_total", {"outcome": outcome}) == 0
    for kind in LEFTOVERS:
        assert registry.get_sample_value("tenure_worker_run_leftovers_total", {"kind": kind}) == 0
    for reason in REPLACEMENTS:
        assert registry.get_sample_value("tenure_worker_executor_restarts_total", {"reason": reason}) == 0
