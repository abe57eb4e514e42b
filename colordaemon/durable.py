"""Writes and renames files so that they survive a power failure, complete or not at all.

Data is on the disk once its file is flushed, and a name once its folder is. So a file is written
under a temporary name, flushed and renamed in one step; then its folder is flushed.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST_NAME = 255  # bytes, on every file system in use
LONGEST_PATH = 4095  # bytes that the kernel takes
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
_NOT_OF_LINKS = {errno.EEXIST, errno.EXDEV, errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# Errors of a kernel, C library or file system without this call; EPERM: of a sandbox.
_UNKNOWN = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}


def partial_for(target: Path) -> Path:
    """The temporary name: hidden, and in the folder of the target, since only there a rename is one
    step. A name that is too long loses its middle."""
    name = f".{target.name}.partial"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = os.fsdecode(os.fsencode(f".{target.stem}")[:200]) + f"{target.suffix}.partial"
    return target.with_name(name)


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Write a small file, complete or not at all, in place of any file or link of that name. If
    this raises OSError, the old file stays."""
    partial = partial_for(path)
    partial.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(partial, flags, 0o666), "wb") as file:  # noqa: PTH123
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def rename_new(source: Path, target: Path) -> None:
    """Rename a file within one file system without ever replacing another, as plain rename would.
    Raises FileExistsError if the name is taken.

    Done with a hard link if possible: the old name is removed once the new one is flushed, because
    the disk may store changes of two folders in either order. exFAT and vfat have no links, but
    support a rename that does not replace; FUSE does not even support that.
    """
    try:
        os.link(source, target)  # which follows no link of that name
    except OSError as error:
        if error.errno in _NOT_OF_LINKS:
            raise
    else:
        flush_folder(target.parent)
        source.unlink()
        return
    refused = rename_noreplace(source, target)
    if refused in _UNKNOWN:
        # A placeholder would be mistaken for a result, so there is none, and a file that appears
        # under the name in these microseconds is replaced.
        refused = errno.EEXIST if os.path.lexists(target) else 0
        if not refused:
            source.rename(target)
    if refused:
        raise OSError(refused, os.strerror(refused), os.fspath(target))


def rename_noreplace(source: Path, target: Path) -> int:
    """Rename in one step and replace nothing. Returns the error number, or 0."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return errno.ENOSYS
    one, other = os.fsencode(source), os.fsencode(target)
    if library.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_NOREPLACE) == 0:
        return 0
    return ctypes.get_errno()


def flush_file(path: Path) -> None:
    """Flush the data of a file to the disk."""
    with _opened(path, os.O_RDONLY) as file:
        os.fsync(file)


def flush_folder(path: Path) -> None:
    """Flush the names in a folder to the disk."""
    with _opened(path, os.O_RDONLY | os.O_DIRECTORY) as folder:
        os.fsync(folder)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
