"""What is known of the host's memory, how a death for want of it is told from others, and what follows from it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tenure.common.errors import InvalidInput
from tenure.proto import worker_pb2 as pb
from tenure.worker import host_memory
from tenure.worker.gpu.devices import SlotDevices
from tenure.worker.gpu.nvml import GpuFigures
from tenure.worker.machine import Figures
from tenure.worker.out_of_memory import ExpectedMemory, died_for_memory
from tenure.worker.runs import Run, outcome_of
from tenure.worker.settings import load_settings
from tenure.worker.slots.executor_process import Exited
from tenure.worker.slots.memory import executor_bytes_max, slot_memory_bytes

MIB, GIB = 2**20, 2**30


class Tree:
    """``/proc`` and ``/sys/fs/cgroup`` as files of the test's own."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroup"
        self.write("proc/meminfo", "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n")
        self.write("proc/self/status", "VmHWM:\t  2048 kB\nVmSize:\t 900 kB\nVmData:\t 100 kB\n")
        self.write("proc/vmstat", "pgfault 3\noom_kill 7\n")

    def write(self, name: str, content: str) -> None:
        path = self.proc.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    @property
    def places(self) -> tuple[Path, Path]:
        return self.proc, self.cgroups


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


class TestHostMemory:
    def test_of_a_machine_without_cgroups(self, tree: Tree) -> None:
        assert host_memory.free_bytes(*tree.places) == 8 * GIB
        assert host_memory.total_bytes(*tree.places) == 16 * GIB
        assert host_memory.kernel_kills(*tree.places) == 7
        assert host_memory.peak_bytes(tree.proc) == 2 * MIB

    def test_of_a_cgroup(self, tree: Tree) -> None:
        tree.write("proc/self/cgroup", "0::/user.slice/worker\n")
        tree.write("cgroup/user.slice/worker/memory.max", f"{2 * GIB}\n")
        tree.write("cgroup/user.slice/worker/memory.current", f"{GIB}\n")
        tree.write("cgroup/user.slice/worker/memory.stat", f"anon 5\ninactive_file {256 * MIB}\n")
        tree.write("cgroup/user.slice/worker/memory.events", "low 0\noom 9\noom_kill 3\noom_group_kill 1\n")
        assert host_memory.free_bytes(*tree.places) == GIB + 256 * MIB
        assert host_memory.cgroup_used_ratio(*tree.places) == 0.375
        assert host_memory.total_bytes(*tree.places) == 2 * GIB
        assert host_memory.kernel_kills(*tree.places) == 3
        tree.write("cgroup/user.slice/worker/memory.max", "max\n")
        assert host_memory.free_bytes(*tree.places) == 8 * GIB
        assert host_memory.cgroup_used_ratio(*tree.places) == 0

    def test_of_a_container_that_sees_its_own_cgroup_as_the_root(self, tree: Tree) -> None:
        tree.write("proc/self/cgroup", "0::/docker/abc\n")
        tree.write("cgroup/memory.events", "oom_kill 2\n")
        assert host_memory.kernel_kills(*tree.places) == 2

    def test_of_a_cgroup_of_the_first_version(self, tree: Tree) -> None:
        tree.write("proc/self/cgroup", "5:cpu:/x\n4:memory:/box\n0::/\n")
        tree.write("cgroup/memory/box/memory.limit_in_bytes", f"{4 * GIB}\n")
        tree.write("cgroup/memory/box/memory.usage_in_bytes", f"{3 * GIB}\n")
        tree.write("cgroup/memory/box/memory.stat", "total_inactive_file 4096\n")
        tree.write("cgroup/memory/box/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 11\n")
        assert host_memory.free_bytes(*tree.places) == GIB + 4096
        assert host_memory.kernel_kills(*tree.places) == 11
        # No limit, in the words of the first version.
        tree.write("cgroup/memory/box/memory.limit_in_bytes", f"{2**63 - 4096}\n")
        assert host_memory.free_bytes(*tree.places) == 8 * GIB

    def test_where_nothing_is_known(self, tmp_path: Path) -> None:
        nowhere = (tmp_path / "no", tmp_path / "none")
        assert host_memory.free_bytes(*nowhere) is None
        assert host_memory.total_bytes(*nowhere) == 0
        assert host_memory.cgroup_used_ratio(*nowhere) == 0
        assert host_memory.kernel_kills(*nowhere) == 0
        assert host_memory.peak_bytes(tmp_path) > 0

    @pytest.mark.skipif(sys.platform != "linux", reason="limits of this kind are Linux's")
    def test_a_limited_process_gets_no_more(self) -> None:
        program = (
            "from tenure.worker import host_memory\n"
            "before = host_memory.free_bytes()\n"
            f"host_memory.limit_this_process({256 * MIB})\n"
            "free = host_memory.free_bytes()\n"
            f"assert 0 < free < {256 * MIB} < before, (free, before)\n"
            "held = bytearray(free // 2)\n"
            "host_memory.forget_peak()\n"
            f"assert host_memory.free_bytes() < free - free // 3\n"
            "try:\n"
            "    bytearray(free)\n"
            "except MemoryError:\n"
            "    print('refused')\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "refused\n"

    def test_a_limit_is_never_above_the_one_there_is(self) -> None:
        program = (
            "import resource\n"
            "from tenure.worker import host_memory\n"
            f"resource.setrlimit(resource.RLIMIT_DATA, ({200 * MIB}, {200 * MIB}))\n"
            f"host_memory.limit_this_process({GIB})\n"
            "print(resource.getrlimit(resource.RLIMIT_DATA)[0])\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert int(done.stdout) == 200 * MIB


KILLED, ABORTED = int(signal.SIGKILL), int(signal.SIGABRT)


@pytest.mark.parametrize(
    ("exit_signal", "exit_code", "log_tail", "kernel_kills", "how"),
    [
        (KILLED, 0, "", 1, "the kernel killed it"),
        (0, 137, "", 2, "the kernel killed it"),
        (KILLED, 0, "", 0, ""),
        (0, 137, "", 0, ""),
        (int(signal.SIGSEGV), 0, "", 1, ""),
        (ABORTED, 0, "terminate called after throwing an instance of 'std::bad_alloc'\n", 0, "std::bad_alloc"),
        (0, 1, "libgomp: Out of memory allocating 80 bytes\n", 0, "libgomp"),
        (0, 1, "MemoryError\n", 0, "MemoryError"),
        (ABORTED, 0, "an assertion failed\n", 0, ""),
        # It ended by itself and well, whatever it printed.
        (0, 0, "std::bad_alloc", 1, ""),
    ],
)
def test_how_a_death_for_want_of_memory_is_told(
    exit_signal: int, exit_code: int, log_tail: str, kernel_kills: int, how: str
) -> None:
    found = died_for_memory(exit_signal, exit_code, log_tail, kernel_kills)
    assert bool(found) is bool(how)
    assert how in found


async def make_run(**expected: Any) -> Run:
    run = Run(1, pb.EvaluateRequest(task_id="t", lease_token="k", epoch=3, search="s"))
    if expected:
        run.expected_memory = ExpectedMemory(**expected)
    run.slot_memory_bytes = 8 * GIB
    return run


FAILED: dict[str, Any] = {
    "type": "failed",
    "error_class": "MemoryError",
    "message": "no",
    "retryable": True,
    "out_of_memory": True,
    "peak_bytes": 77,
}


class TestOutcomes:
    async def test_the_kernels_kill_is_out_of_memory_and_tells_what_was_expected(self) -> None:
        run = await make_run(estimated_bytes=5, limit_bytes=9, batch_size=64, micro_batches=2)
        run.kernel_kills = 1
        outcome = outcome_of(run, Exited(signal=9, code=0, killed=False, reason=""), "")
        assert outcome is not None
        assert (outcome.kind, outcome.error_class) == (pb.OUTCOME_OUT_OF_MEMORY, "ExecutorOutOfMemory")
        assert "the kernel killed it for want of memory" in outcome.error_message
        assert outcome.memory == pb.MemoryReport(estimated_bytes=5, limit_bytes=9, batch_size=64, micro_batches=2)
        assert (outcome.exit_signal, outcome.retryable, outcome.memory_needed_bytes) == (9, True, 0)

    async def test_what_the_worker_killed_itself_is_no_such_death(self) -> None:
        run = await make_run()
        run.kernel_kills = 1
        outcome = outcome_of(run, Exited(signal=9, code=0, killed=True, reason="broke the protocol"), "std::bad_alloc")
        assert outcome is not None
        assert outcome.kind == pb.OUTCOME_LOSS
        assert not outcome.HasField("memory")

    @pytest.mark.parametrize(
        ("policy", "estimated", "retryable", "needed"),
        [
            ("accumulate", 99 * GIB, True, 0),
            ("fail", 5, False, 0),
            ("elsewhere", 5, True, 8 * GIB + 1),
            ("elsewhere", 99 * GIB, True, 99 * GIB),
        ],
    )
    async def test_the_policy_decides_what_follows(
        self, policy: str, estimated: int, retryable: bool, needed: int
    ) -> None:
        run = await make_run(estimated_bytes=estimated, on_out_of_memory=policy)
        outcome = outcome_of(run, FAILED, "")
        assert outcome is not None
        assert (outcome.retryable, outcome.memory_needed_bytes) == (retryable, needed)
        assert outcome.memory.peak_bytes == 77
        # Of another end it has nothing to say.
        outcome = outcome_of(run, {**FAILED, "out_of_memory": False}, "")
        assert outcome is not None
        assert (outcome.kind, outcome.retryable, outcome.memory_needed_bytes) == (pb.OUTCOME_FAILURE, True, 0)

    async def test_a_success_tells_it_too(self) -> None:
        run = await make_run(estimated_bytes=5, micro_batches=4)
        done = {"type": "done", "metrics": {"fitness": 1.0}, "detail": "", "architecture": "", "peak_bytes": 2**70}
        outcome = outcome_of(run, done, "")
        assert outcome is not None
        assert outcome.memory == pb.MemoryReport(estimated_bytes=5, micro_batches=4, peak_bytes=2**63 - 1)


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"estimated_bytes": -1}, "memory.estimated_bytes"),
        ({"limit_bytes": 1.5}, "memory.limit_bytes"),
        ({"batch_size": 2**31}, "memory.batch_size"),
        ({"micro_batches": "2"}, "memory.micro_batches"),
        ({"on_out_of_memory": "pray"}, "memory.on_out_of_memory"),
    ],
)
def test_what_can_not_be_expected(fields: dict[str, Any], refused: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ExpectedMemory(**fields)
    assert caught.value.field == refused


class Host:
    """A machine with so much memory."""

    def __init__(self, total: int, **gpus: int | None) -> None:
        self.memory_total_bytes = total
        self._gpus = tuple(GpuFigures(name[1:], memory_total_bytes=size) for name, size in gpus.items())

    def figures(self) -> Figures:
        return Figures(cpu_ratio=0, memory_ratio=0, memory_used_bytes=0, gpus=self._gpus)


class TestSlots:
    CPU = (SlotDevices(), SlotDevices())

    def test_slots_without_gpus_share_the_hosts_memory(self) -> None:
        assert slot_memory_bytes(load_settings(), Host(16 * GIB), self.CPU) == 8 * GIB
        limited = load_settings(executor_memory_max="3GiB")
        assert executor_bytes_max(limited, Host(16 * GIB)) == 3 * GIB
        assert slot_memory_bytes(limited, Host(16 * GIB), self.CPU) == 3 * GIB
        assert executor_bytes_max(load_settings(executor_memory_max="25%"), Host(16 * GIB)) == 4 * GIB

    def test_slots_with_gpus_have_the_smallest_ones(self) -> None:
        host = Host(16 * GIB, g0=80 * GIB, g1=40 * GIB, g2=10 * GIB)
        devices = (SlotDevices(("0",)), SlotDevices(("1",)))
        assert slot_memory_bytes(load_settings(executor_memory_max="1GiB"), host, devices) == 40 * GIB

    def test_a_gpu_that_does_not_say_makes_it_unknown(self) -> None:
        assert slot_memory_bytes(load_settings(), Host(16 * GIB, g0=80 * GIB, g1=None), (SlotDevices(("0", "1")),)) == 0
