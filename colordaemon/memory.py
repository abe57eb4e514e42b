"""How much memory there is for work: of this machine, or of the control group that it runs in."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

SHARE = 0.7  # of all memory; the rest is for the system, its caches and other programs
_GROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def limit_bytes(memory_mib: int | None) -> int:
    """What one file may take. memory_mib: as the setting has it; None: a share of all there is."""
    if memory_mib is not None:
        return memory_mib << 20
    return int(SHARE * min([_machine_bytes(), *_group_bytes(_GROUPS, _ROOT)]))


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_bytes(groups: Path, root: Path) -> Iterator[int]:
    """The limits of our control group and of all that it is in, versions 1 and 2. Inside of
    containers the names are often those outside, and the group's own files lie at the root."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            top, file = root, "memory.max"
        elif "memory" in controllers.split(","):
            top, file = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = top / name.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                try:
                    yield int((folder / file).read_text())
                except (OSError, ValueError):  # no such file, or "max"
                    continue


def release_free_heaps() -> None:
    """Give what is free in the heaps back to the system: an encoder that ends leaves gigabytes
    there, which the next one does not find, since its threads have other heaps."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # of glibc
        library.malloc_trim(0)
