"""Files that survive a power failure, whole or not at all.

Data is on the disk after its file is flushed, and a name after its folder is. So a file is written
under another name beside its own, flushed, renamed in one step, and its folder is flushed.
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
# Of a kernel, a C library or a file system that does not know it; EPERM: of a sandbox.
_UNKNOWN = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}


def partial_for(target: Path) -> Path:
    """The name to write under: hidden, and beside the target, since only there a rename is one
    step. Too long names lose their middle."""
    name = f".{target.name}.partial"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = os.fsdecode(os.fsencode(f".{target.stem}")[:200]) + f"{target.suffix}.partial"
    return target.with_name(name)


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """A small file, whole or not at all, in place of whatever has the name; nothing is written
    through a link that has it. Raises OSError, and the old file stays."""
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
    """Another name for a file within one file system, never onto another file, which plain rename
    does in silence. Raises FileExistsError where the name is taken.

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
        flush_folder(target.parent)
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


def flush_file(path: Path) -> None:
    """Its data to the disk."""
    with _opened(path, os.O_RDONLY) as file:
        os.fsync(file)


def flush_folder(path: Path) -> None:
    """Its names to the disk."""
    with _opened(path, os.O_RDONLY | os.O_DIRECTORY) as folder:
        os.fsync(folder)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
