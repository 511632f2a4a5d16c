"""What a container leaves of memory and processors, read from files as Linux writes them; the number of threads."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from unmask_model_store import Bundle, open_bundle
from unmask_service import machine
from unmask_service.machine import available_memory, available_processors

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


# --- processors ------------------------------------------------------------------------------------------------------


def test_without_a_quota_a_process_has_the_processors_of_its_affinity(root: Path) -> None:
    write(root / "sys/fs/cgroup/cpu.max", "max 100000\n")
    assert available_processors(root) == len(os.sched_getaffinity(0))


def test_the_smallest_quota_around_a_group_holds(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/pods/unmask\n")
    write(root / "sys/fs/cgroup/pods/unmask/cpu.max", "80000 100000\n")
    assert available_processors(root) == 0.8
    write(root / "sys/fs/cgroup/pods/cpu.max", "50000 100000\n")
    assert available_processors(root) == 0.5


def test_the_first_version_of_control_groups_has_quotas_too(root: Path) -> None:
    write(root / "proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n")
    for name, value in (("quota", "70000"), ("period", "100000")):
        write(root / f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us", f"{value}\n")
    assert available_processors(root) == 0.7
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    assert available_processors(root) == len(os.sched_getaffinity(0))


@pytest.fixture
def quota() -> Iterator[Path]:
    """A real control group with half a processor; skipped where none can be made."""
    group = Path(f"/sys/fs/cgroup/cpu/unmask-test-{os.getpid()}")
    if not (group.parent / "cpu.cfs_quota_us").exists() or not os.access(group.parent, os.W_OK):
        pytest.skip("no control group can be made here")
    group.mkdir()
    try:
        (group / "cpu.cfs_quota_us").write_text("50000")
        yield group
    finally:
        group.rmdir()


def test_a_real_quota_is_seen(quota: Path) -> None:
    print_it = "from unmask_service.machine import available_processors; print(available_processors())"
    command = f'echo $$ > {quota}/cgroup.procs && exec {sys.executable} -c "{print_it}"'
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert float(ended.stdout) == 0.5


class Threads:
    """torch's threads, of which one is enough for so many canvases."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, processors: float, enough_for: int) -> None:
        self.now = 4
        self.enough_for = enough_for
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.now)
        monkeypatch.setattr(torch, "set_num_threads", self.change)
        monkeypatch.setattr(machine, "available_processors", lambda: processors)
        self.measured: list[int] = []
        monkeypatch.setattr(machine, "_one_thread_is_enough", self.is_enough)

    def change(self, threads: int) -> None:
        self.now = threads

    def is_enough(self, _: Bundle, canvases: int, most: int) -> bool:
        assert most == self.now
        self.measured.append(canvases)
        return canvases <= self.enough_for


@pytest.mark.parametrize(
    ("processors", "enough_for", "threads"), [(4.0, 0, 4), (4.0, 1, 4), (4.0, 8, 1), (2.5, 0, 2), (0.5, 0, 1)]
)
def test_one_thread_is_taken_where_it_loses_nothing(
    processors: float, enough_for: int, threads: int, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_threads = Threads(monkeypatch, processors, enough_for)
    machine.set_threads(None, open_bundle(bundles / "writer"), (1, 8))
    assert torch_threads.now == threads


def test_a_number_that_somebody_has_set_is_taken(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_threads = Threads(monkeypatch, 1.0, 8)
    bundle = open_bundle(bundles / "writer")
    machine.set_threads(3, bundle, (1,))
    assert torch_threads.now == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    torch_threads.now = 4
    machine.set_threads(None, bundle, (1,))
    assert torch_threads.now == 4
    assert torch_threads.measured == []


def test_workers_with_one_fingerprint_and_exact_models_do_not_measure(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_threads = Threads(monkeypatch, 4.0, 8)
    machine.set_threads(None, open_bundle(bundles / "writer"))
    machine.set_threads(None, open_bundle(bundles / "table"), (1, 8))
    assert (torch_threads.now, torch_threads.measured) == (4, [])


@pytest.mark.parametrize(("single", "several", "enough"), [(1.0, 1.0, True), (1.0, 0.5, False), (1.0, 9.0, True)])
def test_evaluations_are_timed(
    single: float, several: float, enough: bool, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes as fast as there are threads."""
    threads = Threads(monkeypatch, 4.0, 0)
    monkeypatch.undo()
    monkeypatch.setattr(torch, "set_num_threads", threads.change)
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.01 * (single if threads.now == 1 else several)
        return now

    monkeypatch.setattr(time, "perf_counter", clock)
    assert machine._one_thread_is_enough(open_bundle(bundles / "writer"), 8, 4) == enough
