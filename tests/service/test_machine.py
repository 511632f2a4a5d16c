"""What a container leaves, read from files as Linux writes them."""

from pathlib import Path

import pytest
from unmask_service.machine import available_memory

GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 8 GiB free, where nothing is limited."""
    write(tmp_path / "proc/meminfo", f"MemTotal:       33554432 kB\nMemFree:  1 kB\nMemAvailable:   {8 << 20} kB\n")
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def limit_v2(folder: Path, most: str, used: int, inactive: int = 0) -> None:
    write(folder / "memory.max", f"{most}\n")
    write(folder / "memory.current", f"{used}\n")
    write(folder / "memory.stat", f"anon 1\ninactive_file {inactive}\n")


def test_without_a_limit_it_is_what_the_machine_has(root: Path) -> None:
    assert available_memory(root) == 8 * GIB
    limit_v2(root / "sys/fs/cgroup", "max", GIB)
    assert available_memory(root) == 8 * GIB
    (root / "proc/self/cgroup").unlink()
    assert available_memory(root) == 8 * GIB


def test_a_container_has_what_its_limit_leaves(root: Path) -> None:
    limit_v2(root / "sys/fs/cgroup", str(4 * GIB), 3 * GIB, inactive=2 * GIB)
    assert available_memory(root) == 3 * GIB, "files that were read can be dropped"


def test_the_limits_around_a_group_hold_for_it_too(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/system.slice/unmask.service\n")
    limit_v2(root / "sys/fs/cgroup/system.slice/unmask.service", str(6 * GIB), GIB)
    assert available_memory(root) == 5 * GIB
    limit_v2(root / "sys/fs/cgroup/system.slice", str(3 * GIB), GIB)
    assert available_memory(root) == 2 * GIB


def test_a_container_sees_its_own_group_at_the_root_of_what_is_mounted(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/../../kubepods/pod1234\n")
    limit_v2(root / "sys/fs/cgroup", str(2 * GIB), GIB)
    assert available_memory(root) == GIB


def test_the_first_version_of_control_groups_is_read_too(root: Path) -> None:
    write(root / "proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/docker/abc\n")
    folder = root / "sys/fs/cgroup/memory"
    write(folder / "memory.limit_in_bytes", f"{5 * GIB}\n")
    write(folder / "memory.usage_in_bytes", f"{2 * GIB}\n")
    write(folder / "memory.stat", f"total_inactive_file {GIB}\n")
    assert available_memory(root) == 4 * GIB


def test_a_limit_that_is_used_up_leaves_nothing(root: Path) -> None:
    limit_v2(root / "sys/fs/cgroup", str(GIB), 2 * GIB)
    assert available_memory(root) == 0


def test_this_machine_has_some() -> None:
    assert available_memory() > 0
