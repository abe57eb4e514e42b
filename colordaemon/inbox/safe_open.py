"""Files in folders that others write to, reached step by step from a folder of the configuration.

Whoever may write to an inbox or outbox can put a symbolic link in place of any folder in it,
between a look at a path and its use, and so lead whoever goes by the whole path to files of others.
So every folder on the way is opened from the one above it, as a folder and not as a link, and what
is done to a file is done from the descriptor of the folder that it lies in.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from colordaemon.inbox.stability import Signature, signature_from

PRIVATE = 0o077  # the umask of files that are nobody else's business
_ANCHORED = re.compile(r"/proc/self/fd/\d+")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Obstructed(NotADirectoryError):
    """A link or a file stands where a folder should be."""


@contextmanager
def folder_beneath(top: Path, folder: Path, *, make: bool = False) -> Iterator[int]:
    """A folder's descriptor, for as long as it is needed. top: a folder that is to be trusted.

    make: whether folders that are missing are made. Raises OSError, and Obstructed for a symbolic
    link or a file below `top`.
    """
    handle, way = os.open(top, _FOLDER), top
    try:
        for name in folder.relative_to(top).parts:
            way /= name
            below = _step(handle, name, way, make)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


@contextmanager
def anchored(top: Path, folder: Path, *, make: bool = False) -> Iterator[Path]:
    """As `folder_beneath`: a path that leads to this very folder, whatever becomes of its name."""
    with folder_beneath(top, folder, make=make) as handle:
        yield Path(f"/proc/self/fd/{handle}")


def flush_beneath(top: Path, folder: Path) -> None:
    """Flush the names in a folder, and in all above it up to `top`: folders are names too, and any
    of them may be as new as a file that was put there. Raises what `folder_beneath` does."""
    while True:
        with folder_beneath(top, folder) as handle:
            os.fsync(handle)
        if folder == top:
            return
        folder = folder.parent


@contextmanager
def umask(mask: int) -> Iterator[int]:
    """Another mask for the modes of new files, in the whole process; gives the one before."""
    before = os.umask(mask)
    try:
        yield before
    finally:
        os.umask(before)


@contextmanager
def errors_by_name() -> Iterator[None]:
    """Errors of the system tell of files by their names in place of descriptors."""
    try:
        yield
    except OSError as error:
        if isinstance(name := error.filename, str) and (match := _ANCHORED.match(name)):
            with suppress(OSError):
                error.filename = f"{Path(match[0]).readlink()}{name[match.end() :]}"
        raise


def look_beneath(top: Path, path: Path) -> Signature | None:
    """What is there, as `settle.signature_of`; None if it can only be reached over a link."""
    try:
        with folder_beneath(top, path.parent) as folder:
            found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    return signature_from(found) if stat.S_ISREG(found.st_mode) else None


def _step(above: int, name: str, way: Path, make: bool) -> int:
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=above)
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
    except OSError as error:
        reason = error.strerror
        if _is_link(above, name):
            reason = "it is a symbolic link, and those are not followed; expected a folder"
        elif isinstance(error, NotADirectoryError):
            reason = "it is a file, expected a folder"
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise Obstructed(error.errno, reason, os.fspath(way)) from None
        raise OSError(error.errno, reason, os.fspath(way)) from None


def _is_link(above: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
    except OSError:
        return False
