"""Another name for a file, and never onto another file, which plain rename does in silence."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
_NOT_OF_LINKS = {errno.EEXIST, errno.EXDEV, errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# Of a kernel, a C library or a file system that does not know it; EPERM: of a sandbox.
_UNKNOWN = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}


def rename_new(source: Path, target: Path) -> None:
    """Within one file system. Raises FileExistsError where the name is taken.

    By a link where that is possible, and the old name ends when the new one is on the disk, which
    may keep the changes of two folders in either order. exFAT and vfat have no links, but know a
    rename that does not replace; over FUSE not even that.
    """
    try:
        os.link(source, target)  # which follows no link of that name
    except OSError as error:
        if error.errno in _NOT_OF_LINKS:
            raise
    else:
        _flush(target.parent)
        source.unlink()
        return
    refused = rename_noreplace(source, target)
    if refused in _UNKNOWN:
        # An empty file that keeps the name would be taken for a result, so what appears under it in
        # these microseconds is replaced.
        refused = errno.EEXIST if os.path.lexists(target) else 0
        if not refused:
            source.rename(target)
    if refused:
        raise OSError(refused, os.strerror(refused), os.fspath(target))


def rename_noreplace(source: Path, target: Path) -> int:
    """In one step. Returns the error, or 0."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return errno.ENOSYS
    one, other = os.fsencode(source), os.fsencode(target)
    if library.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_NOREPLACE) == 0:
        return 0
    return ctypes.get_errno()


def stands_under_another_name(path: Path) -> bool:
    """Whether a file is there whose name is written otherwise, as "A.png" is found for "a.png"
    where a file system does not tell cases apart."""
    return os.path.lexists(path) and path.name not in os.listdir(path.parent)  # noqa: PTH208


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
