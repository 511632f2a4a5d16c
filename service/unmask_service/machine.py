"""What this process may use of its machine or container: memory and processors."""

import ctypes
import logging
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unmask_model_store import Bundle

logger = logging.getLogger("unmask")

# (limit, usage, the line of memory.stat that counts what the kernel can reclaim) of cgroups v2 and v1
FILES_V2 = ("memory.max", "memory.current", "inactive_file")
FILES_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
# parameters of glibc's mallopt(3)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
SINGLE_THREAD_BONUS = 1.1  # one thread is chosen where it takes at most this many times as long as several
LONG_EVALUATION = 1.0  # seconds; where an evaluation takes longer, several threads are faster: nothing is measured
MEASURED_TURNS, MEASURED_TOKENS = 5, 1024


def keep_freed_memory() -> None:
    """Make glibc keep freed memory: otherwise each evaluation returns its buffers and faults them in again."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(M_ARENA_MAX, 1)  # arenas of other threads are returned whatever the threshold


def return_freed_memory() -> None:
    """Give back all that is free now: after something rare and large."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take: the least of what the machine has free and its control groups allow.

    `root` is the folder that holds /proc and /sys.
    """
    try:
        free = _counts(root / "proc/meminfo")["MemAvailable:"] * 1024
    except OSError:  # not Linux: all of the machine's memory
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(0, min([free, *_memory_limits(root)]))


def _memory_limits(root: Path) -> Iterator[int]:
    for folder, version in _control_groups(root, "memory"):
        limit, usage, reclaimable = FILES_V2 if version == 2 else FILES_V1
        try:
            most = int((folder / limit).read_text())
            used = int((folder / usage).read_text())
            reclaimed = _counts(folder / "memory.stat").get(reclaimable, 0)
        except (OSError, ValueError):  # no such group here, or "max": no limit
            continue
        yield most - used + reclaimed


def _control_groups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Folders of this process' control group and of the groups around it, each with its version of cgroups."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            mount, version = root / "sys/fs/cgroup", 2
        elif controller in controllers.split(","):
            mount, version = root / "sys/fs/cgroup" / controller, 1
        else:
            continue
        # in a container the group's path is often one of the host, and what is mounted is the group itself
        path = PurePosixPath(group.lstrip("/"))
        for each in (path, *path.parents):
            yield mount / each, version


def _counts(file: Path) -> dict[str, int]:
    return {name: int(number) for name, number, *_ in map(str.split, file.read_text().splitlines())}


def available_processors(root: Path = Path("/")) -> float:
    """Processors that this process may use: by its affinity and by every CPU quota of its control groups.

    `root` is the folder that holds /proc and /sys.
    """
    return min([float(processors_of_affinity()), *cpu_quotas(root)])


def processors_of_affinity() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quotas(root: Path = Path("/")) -> Iterator[float]:
    """The CPU quotas of this process' control groups, in processors.

    `root` is the folder that holds /proc and /sys.
    """
    for folder, version in _control_groups(root, "cpu"):
        try:
            if version == 2:
                quota, period = map(int, (folder / "cpu.max").read_text().split())
            else:
                quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        except (OSError, ValueError):  # no such group here, or "max": no quota
            continue
        if quota > 0 and period > 0:  # -1: no quota
            yield quota / period


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait for each other; call it before torch is imported.

    They spin otherwise, and beside other busy processes each operation then waits for the scheduler: ten times slower.
    The environment wins: OMP_WAIT_POLICY=active, GOMP_SPINCOUNT or KMP_BLOCKTIME.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def set_threads(threads: int | None, bundle: "Bundle", canvases: Sequence[int] = ()) -> None:
    """Set the number of threads of this thread's arithmetic, and of threads that start later.

    That is the number given, or OMP_NUM_THREADS, or torch's choice within the container's CPU quota. The latter is
    measured against a single thread, which wins where it loses nothing in evaluations of these numbers of canvases: a
    small model gains nothing from more threads. Without `canvases` nothing is measured.
    """
    import torch

    most = most_threads(threads)
    torch.set_num_threads(most)
    given = threads is not None or "OMP_NUM_THREADS" in os.environ
    network_on_cpu = bundle.device.type == "cpu" and isinstance(bundle.denoiser, torch.nn.Module)
    if most > 1 and canvases and network_on_cpu and not given:
        one_is_enough = all(_one_thread_is_enough(bundle, count, most) for count in canvases)
        torch.set_num_threads(1 if one_is_enough else most)
        logger.info("threads of the arithmetic: %d of %d", torch.get_num_threads(), most)


def most_threads(threads: int | None) -> int:
    """The number given, or OMP_NUM_THREADS, or torch's choice within the container's CPU quota."""
    import torch

    if threads is not None:
        return threads
    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    return max(1, min(torch.get_num_threads(), int(available_processors())))


def _one_thread_is_enough(bundle: "Bundle", canvases: int, most: int) -> bool:
    """Whether an evaluation of so many canvases takes about as long with one thread as with the most."""
    import torch

    length = bundle.denoiser.length
    count = max(1, min(canvases, MEASURED_TOKENS // length))
    digits = torch.zeros(length, bundle.sub_tokenizer.sub_tokens_per_token, dtype=torch.int64)
    digits[0] = bundle.sub_tokenizer.mask_id
    rows = torch.zeros(1, dtype=torch.int64)

    @torch.inference_mode()
    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        begun = time.perf_counter()
        bundle.denoiser.head(bundle.denoiser.trunk([digits] * count, [rows] * count))
        return time.perf_counter() - begun

    seconds(1)  # the first time takes longer
    if seconds(most) > LONG_EVALUATION:
        return False
    turns = [(seconds(1), seconds(most)) for _ in range(MEASURED_TURNS)]
    one, several = (statistics.median(turn[i] for turn in turns) for i in range(2))
    return one <= SINGLE_THREAD_BONUS * several
