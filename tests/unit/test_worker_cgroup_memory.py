"""What of a cgroup's memory counts as used: by ``memory.stat`` as real kernels wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenure.worker import host_memory

MIB, GIB = 2**20, 2**30

# Of a pod of its own, by a kernel of 2023 (GuillaumeGomez/sysinfo, issue 1219): hardly a file was read.
SECOND_VERSION = """\
anon 2472849408
file 57344
kernel_stack 458752
pagetables 7061504
percpu 0
sock 4096
shmem 0
file_mapped 0
file_dirty 0
file_writeback 0
swapcached 0
anon_thp 0
file_thp 0
shmem_thp 0
inactive_anon 2472730624
active_anon 12288
inactive_file 4096
active_file 53248
unevictable 0
slab_reclaimable 371120
slab_unreclaimable 435552
slab 806672
workingset_refault_anon 0
workingset_refault_file 0
pgfault 2503991
"""
SECOND_VERSION_BYTES = 2481475584

# By Linux 6.18, of a cgroup of 300 MiB in which a program has read a file of 292 MiB twice, and done nothing else.
FIRST_VERSION = """\
cache 306184192
rss 1056768
rss_huge 0
shmem 0
mapped_file 0
dirty 0
writeback 0
pgpgin 1325
pgpgout 0
inactive_anon 1052672
active_anon 0
inactive_file 0
active_file 306184192
unevictable 0
hierarchical_memory_limit 314572800
hierarchical_memsw_limit 9223372036854771712
total_cache 306184192
total_rss 1056768
total_rss_huge 0
total_shmem 0
total_mapped_file 0
total_dirty 0
total_writeback 0
total_pgpgin 1325
total_pgpgout 0
total_inactive_anon 1052672
total_active_anon 0
total_inactive_file 0
total_active_file 306184192
total_unevictable 0
"""
FIRST_VERSION_BYTES = 307494912

# In the same one, when the program has taken 200 MiB for itself and written 60 MiB that aren't on the disk yet.
FIRST_VERSION_DIRTY = """\
cache 96473088
rss 213594112
dirty 62918656
inactive_file 90181632
active_file 6291456
total_cache 96473088
total_rss 213594112
total_shmem 0
total_dirty 62918656
total_writeback 0
total_inactive_anon 213590016
total_active_anon 0
total_inactive_file 90181632
total_active_file 6291456
total_unevictable 0
"""
FIRST_VERSION_DIRTY_BYTES = 312479744


class Box:
    """A process's cgroup as files of the test's own."""

    def __init__(self, root: Path, *, second_version: bool) -> None:
        self.root = root
        self.places = (root / "proc", root / "cgroup")
        self._second = second_version
        self._write("proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 67108864 kB\n")
        self.is_in("box")

    def holds(self, limit: int | str, used: int, stat: str, name: str = "box") -> None:
        """From now on."""
        if self._second:
            files = {"memory.max": limit, "memory.current": used, "memory.stat": stat, "memory.events": "oom_kill 0\n"}
            folder = f"cgroup/{name}"
        else:
            files = {
                "memory.limit_in_bytes": limit,
                "memory.usage_in_bytes": used,
                "memory.stat": stat,
                "memory.oom_control": "oom_kill 0\n",
            }
            folder = f"cgroup/memory/{name}"
        for file, content in files.items():
            self._write(f"{folder}/{file}", f"{content}")

    def is_in(self, name: str) -> None:
        """The process's own, below the one that is told of."""
        self._write("proc/self/cgroup", f"0::/{name}\n" if self._second else f"4:memory:/{name}\n0::/\n")

    def _write(self, name: str, content: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def with_fields(stat: str, **fields: int) -> str:
    """The recording with other figures in some of its lines."""
    lines = [line.split() for line in stat.splitlines()]
    assert fields.keys() <= {name for name, _ in lines}, "a line that the kernel writes"
    return "".join(f"{name} {fields.get(name, number)}\n" for name, number in lines)


@pytest.mark.parametrize(("second_version", "unlimited"), [(True, "max"), (False, str(2**63 - 4096))])
class TestLimitsAbove:
    """A job's limit holds for its steps, a slice's for its units."""

    def test_the_tightest_counts(self, tmp_path: Path, second_version: bool, unlimited: str) -> None:
        box = Box(tmp_path, second_version=second_version)
        box.is_in("job/step/task")
        box.holds(unlimited, GIB, "", "job/step/task")
        box.holds(8 * GIB, 2 * GIB, "", "job/step")
        box.holds(4 * GIB, 3 * GIB, "", "job")
        assert host_memory.total_bytes(*box.places) == 4 * GIB
        assert host_memory.cgroup_used_ratio(*box.places) == 0.75
        assert host_memory.free_bytes(*box.places) == GIB

    def test_the_next_with_the_controller_is_the_process_s(
        self, tmp_path: Path, second_version: bool, unlimited: str
    ) -> None:
        """The second version's controllers needn't go down to where the process is."""
        box = Box(tmp_path, second_version=second_version)
        box.is_in("job/step/task")
        box.holds(unlimited, GIB, "", "other")
        box.holds(4 * GIB, 3 * GIB, "", "job")
        assert host_memory.cgroup_used_ratio(*box.places) == 0.75


class TestSecondVersion:
    @pytest.fixture
    def box(self, tmp_path: Path) -> Box:
        return Box(tmp_path, second_version=True)

    def test_what_a_real_one_has_in_use(self, box: Box) -> None:
        box.holds(4 * GIB, SECOND_VERSION_BYTES, SECOND_VERSION)
        used = 2481475584 - 4096 - 53248 - 371120
        assert host_memory.cgroup_used_ratio(*box.places) == used / (4 * GIB)
        assert host_memory.free_bytes(*box.places) == 4 * GIB - used

    @pytest.mark.parametrize("where", ["inactive_file", "active_file", "slab_reclaimable"])
    def test_what_can_be_dropped_is_not_used(self, box: Box, where: str) -> None:
        box.holds(8 * GIB, SECOND_VERSION_BYTES, SECOND_VERSION)
        before = host_memory.cgroup_used_ratio(*box.places)
        stat = with_fields(SECOND_VERSION, **{where: 5 * GIB})
        grown = 5 * GIB - int(SECOND_VERSION.split(f"\n{where} ")[1].split()[0])
        box.holds(8 * GIB, SECOND_VERSION_BYTES + grown, stat)
        assert host_memory.cgroup_used_ratio(*box.places) == before

    def test_shared_memory_and_tmpfs_are_used(self, box: Box) -> None:
        """The kernel has them among ``file``, but in the lists of anonymous memory: only swap could take them."""
        stat = with_fields(
            SECOND_VERSION, file=3 * GIB + 57344, shmem=3 * GIB, file_mapped=3 * GIB, active_anon=3 * GIB + 12288
        )
        box.holds(8 * GIB, SECOND_VERSION_BYTES + 3 * GIB, stat)
        used = 2481475584 - 4096 - 53248 - 371120 + 3 * GIB
        assert host_memory.cgroup_used_ratio(*box.places) == used / (8 * GIB)

    @pytest.mark.parametrize("state", ["file_dirty", "file_writeback"])
    def test_files_that_are_not_written_yet_are_used(self, box: Box, state: str) -> None:
        stat = with_fields(SECOND_VERSION, file=3 * GIB, inactive_file=2 * GIB, active_file=GIB, **{state: 2 * GIB})
        box.holds(8 * GIB, 3 * GIB, stat)
        assert host_memory.cgroup_used_ratio(*box.places) == (2 * GIB - 371120) / (8 * GIB)

    def test_it_is_never_below_nothing(self, box: Box) -> None:
        """Kernels bring ``memory.stat`` up to date only now and then: its parts may be more than the whole."""
        box.holds(8 * GIB, GIB, with_fields(SECOND_VERSION, active_file=2 * GIB))
        assert host_memory.cgroup_used_ratio(*box.places) == 0
        assert host_memory.free_bytes(*box.places) == 8 * GIB
        # More is being written, pages of swap among it, than there are files.
        stat = with_fields(SECOND_VERSION, file_writeback=3 * GIB, slab_reclaimable=0)
        box.holds(8 * GIB, 4 * GIB, stat)
        assert host_memory.cgroup_used_ratio(*box.places) == 0.5

    def test_without_particulars_all_is_used(self, box: Box) -> None:
        box.holds(8 * GIB, 2 * GIB, "")
        assert host_memory.cgroup_used_ratio(*box.places) == 0.25


class TestFirstVersion:
    @pytest.fixture
    def box(self, tmp_path: Path) -> Box:
        return Box(tmp_path, second_version=False)

    def test_a_file_that_was_read_twice_is_not_used(self, box: Box) -> None:
        box.holds(300 * MIB, FIRST_VERSION_BYTES, FIRST_VERSION)
        used = 307494912 - 306184192
        assert host_memory.cgroup_used_ratio(*box.places) == used / (300 * MIB)
        assert host_memory.free_bytes(*box.places) == 300 * MIB - used

    def test_a_program_that_has_taken_and_written_much(self, box: Box) -> None:
        box.holds(300 * MIB, FIRST_VERSION_DIRTY_BYTES, FIRST_VERSION_DIRTY)
        used = 312479744 - (90181632 + 6291456 - 62918656)
        assert host_memory.cgroup_used_ratio(*box.places) == used / (300 * MIB)
        assert host_memory.free_bytes(*box.places) == 300 * MIB - used

    def test_groups_below_count_too(self, box: Box) -> None:
        stat = with_fields(FIRST_VERSION, cache=0, active_file=0, rss=0, inactive_anon=0)
        box.holds(300 * MIB, FIRST_VERSION_BYTES, stat)
        assert host_memory.cgroup_used_ratio(*box.places) == (307494912 - 306184192) / (300 * MIB)
