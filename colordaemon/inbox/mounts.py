"""Which file system a folder is on, as far as it matters for watching it."""

from __future__ import annotations

import os
import re
from pathlib import Path

# The kernel reports only what this machine does to them, and nothing of what others do.
_REMOTE = re.compile(r"nfs\d?|cifs|smb\d?|smbfs|ceph|glusterfs|lustre|9p|afs|virtiofs|fuse(\..+)?")


def is_remote(path: Path) -> bool:
    """Whether events of a folder cannot be relied on; a local disk if nothing is known of it."""
    return bool(_REMOTE.fullmatch(file_system_of(path)))


def file_system_of(path: Path) -> str:
    """The type of file system, such as ext4; the longest mount point that the path starts with."""
    try:
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return ""
    return _find(os.path.realpath(path), table)


def _find(path: str, table: str) -> str:
    best, kind = "", ""
    for line in table.splitlines():
        fields, _, described = line.partition(" - ")
        point = _unescaped(fields.split(" ")[4])
        # The last of several mounts on one point is the one that is seen.
        if len(point) >= len(best) and (path == point or path.startswith(point.rstrip("/") + "/")):
            best, kind = point, described.split(" ")[0]
    return kind


def _unescaped(point: str) -> str:
    r"""Spaces, tabs, line ends and backslashes are written as \040 and the like."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
