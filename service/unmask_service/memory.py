"""How much memory a process may still take: what its container leaves, or its machine."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# (limit, usage, the line of memory.stat that counts what the kernel gives back when asked) of cgroups v2 and v1
FILES_V2 = ("memory.max", "memory.current", "inactive_file")
FILES_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take, by the kernel's account and by every limit of its control groups.

    Args:
        root: where /proc and /sys are.
    """
    return max(0, min([_machine(root), *_containers(root)]))


def _machine(root: Path) -> int:
    """Linux' MemAvailable; elsewhere all of the machine's memory."""
    try:
        return _counts(root / "proc/meminfo")["MemAvailable:"] * 1024
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _containers(root: Path) -> Iterator[int]:
    """What is left under each limit that holds for this process' group and the groups around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield from _left(root / "sys/fs/cgroup", group, *FILES_V2)
        elif "memory" in controllers.split(","):
            yield from _left(root / "sys/fs/cgroup/memory", group, *FILES_V1)


def _left(mount: Path, group: str, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    """In a container the group's path is often one of the host, and what is mounted is the group itself."""
    path = PurePosixPath(group.lstrip("/"))
    for each in (path, *path.parents):
        folder = mount / each
        try:
            most = int((folder / limit).read_text())
            used = int((folder / usage).read_text())
            given_back = _counts(folder / "memory.stat").get(reclaimable, 0)
        except (OSError, ValueError):  # no such group here, or "max": no limit
            continue
        yield most - used + given_back


def _counts(file: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    return {name: int(number) for name, number, *_ in map(str.split, file.read_text().splitlines())}
