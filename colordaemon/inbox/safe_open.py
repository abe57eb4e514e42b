"""Opens files in folders that other users can write to, without following their symbolic links.

A user who may write to an inbox or outbox can replace any folder in it by a symbolic link, between
the check of a path and its use, and so redirect us to files of others. So every folder of a path is
opened from the one above it, as a folder and not as a link, and a file is only used through the
descriptor of its folder.

A source is opened once and read through that descriptor for hours. If it were opened by name again
and again, there could be another file, a FIFO that blocks for ever or a link each time.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PosixPath

from colordaemon.errors import MediaError, SourceChanged
from colordaemon.inbox.stability import Signature, is_being_written, signature_from

_folder_umask = threading.Lock()

PRIVATE = 0o077  # umask of files that only we may read
_ANCHORED = re.compile(r"/proc/self/fd/\d+")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without these, opening a FIFO would wait for a writer, and a terminal would become ours.
_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_STRETCH_BYTES = 1 << 22
_SPARSE_BYTES, _LEAST_SHARE = 64 << 20, 0.01  # from this size on, so much has to be on the disk
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV}
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Obstructed(NotADirectoryError):
    """A link or a file stands where a folder should be."""


@contextmanager
def folder_beneath(top: Path, folder: Path, *, make: bool = False) -> Iterator[int]:
    """Open a folder; yields its descriptor. top: a folder that is trusted.

    make: create missing folders. Raises OSError, and Obstructed for a symbolic
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
    """Like `folder_beneath`, but yields a path that leads to this folder even if it is renamed."""
    with folder_beneath(top, folder, make=make) as handle:
        yield Path(f"/proc/self/fd/{handle}")


def flush_beneath(top: Path, folder: Path) -> None:
    """Flush the names in a folder and in all folders above it up to `top`, any of which may be new.
    Raises what `folder_beneath` does."""
    while True:
        with folder_beneath(top, folder) as handle:
            os.fsync(handle)
        if folder == top:
            return
        folder = folder.parent


@contextmanager
def umask(mask: int) -> Iterator[int]:
    """Set the umask of the process within this block; yields the one before."""
    before = os.umask(mask)
    try:
        yield before
    finally:
        os.umask(before)


@contextmanager
def umask_for_folders(mask: int) -> Iterator[None]:
    """Set the umask while folders are made, in one thread at a time: the process has only one."""
    with _folder_umask, umask(mask):
        yield


@contextmanager
def errors_by_name() -> Iterator[None]:
    """Replace descriptors by file names in OSErrors."""
    try:
        yield
    except OSError as error:
        if isinstance(name := error.filename, str) and (match := _ANCHORED.match(name)):
            with suppress(OSError):
                error.filename = f"{Path(match[0]).readlink()}{name[match.end() :]}"
        raise


def look_beneath(top: Path, path: Path) -> Signature | None:
    """Like `stability.signature_of`; None also if there is a link in the path below `top`."""
    try:
        with folder_beneath(top, path.parent) as folder:
            found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    return signature_from(found) if stat.S_ISREG(found.st_mode) else None


def is_written_beneath(top: Path, path: Path) -> bool:
    """Like `stability.is_being_written`; False also if there is a link in the path below `top`."""
    try:
        with anchored(top, path.parent) as here:
            return is_being_written(here / path.name)
    except OSError:  # just removed
        return False


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


class OpenedSource(PosixPath):
    """A path that prints as the file's name and opens its descriptor.

    `open` and `stat` call `os.fspath`, which returns the path of the descriptor. top: a folder that
    other users can write to, below which the path leads through no symbolic link; None: the file
    was named by the user.
    """

    descriptor = -1
    top: Path | None = None

    @classmethod
    def of(cls, path: Path, descriptor: int) -> OpenedSource:
        opened = cls(path)
        opened.descriptor = descriptor
        return opened

    def __fspath__(self) -> str:
        return str(self) if self.descriptor < 0 else f"/proc/self/fd/{self.descriptor}"

    def with_segments(self, *segments: str | os.PathLike[str]) -> Path:
        """Paths made from it, such as its parent, are ordinary paths."""
        return Path(*segments)


def for_others(path: Path) -> str:
    """The path of an open file or anchored folder of ours for other processes of the same user, as
    long as it is open here."""
    return os.fspath(path).replace("/proc/self/", f"/proc/{os.getpid()}/", 1)


def by_ourselves(name: object) -> object:
    """The reverse, of the file name of an OSError: what `errors_by_name` knows."""
    prefix = f"/proc/{os.getpid()}/"
    return name.replace(prefix, "/proc/self/", 1) if isinstance(name, str) else name


@contextmanager
def opened_elsewhere(path: Path, other: str) -> Iterator[OpenedSource]:
    """Open what another process of ours has open under the path `other`; see `for_others`."""
    with _kept(os.open(other, _READING), path) as (source, _):
        yield source


@contextmanager
def opened(path: Path) -> Iterator[OpenedSource]:
    """Open a file named by the user. Raises OSError, and MediaError if it is not a regular file."""
    with _kept(os.open(path, _READING), path) as (source, found):
        _check_file(path, found, "a film or photo")
        yield source


@contextmanager
def opened_picture(path: Path, top: Path | None) -> Iterator[OpenedSource]:
    """Open a picture that guides colors. top: a folder below which no symbolic link is followed;
    None: it was named by the user. Raises OSError, and MediaError if it is not a regular file."""
    with _kept(_open_below(top, path), path) as (source, found):
        _check_file(path, found, "a picture")
        yield source


@contextmanager
def opened_for_another(name: Path, path: Path, top: Path | None) -> Iterator[OpenedSource]:
    """Open on this machine what another one of ours has open. name: of the file there, for
    messages. top: as `OpenedSource.top`. Raises OSError, SourceChanged, and MediaError if it is not
    a regular file."""
    if top is not None and not path.is_relative_to(top):
        raise SourceChanged(f"{name}: it is now {path}, expected a file in {top}")
    file = _open_below(None, path) if top is None else _open_in_inbox(top, path)
    with _kept(file, name) as (source, found):
        _check_file(name, found, "a film or photo")
        yield source


@contextmanager
def opened_beneath(inbox: Path, path: Path, queued: Signature) -> Iterator[OpenedSource]:
    """Open a file of an inbox, if it is still what was queued. Raises OSError and SourceChanged."""
    with _kept(_open_in_inbox(inbox, path), path) as (source, found):
        if not stat.S_ISREG(found.st_mode) or not signature_from(found).is_untouched(queued):
            raise SourceChanged(f"{path}: it is no longer the file that was queued")
        _refuse_hole(path, found)
        source.top = inbox
        yield source


def _open_in_inbox(inbox: Path, path: Path) -> int:
    """Raises OSError and SourceChanged."""
    try:
        return _open_below(inbox, path)
    except OSError as error:
        if error.errno in _ABSENT:
            raise SourceChanged(f"{path}: it is no longer there ({error.strerror})") from error
        raise


def _open_below(top: Path | None, path: Path) -> int:
    """top: a folder below which no symbolic link is followed; None: all are."""
    if top is None:
        return os.open(path, _READING)
    with folder_beneath(top, path.parent) as folder:
        return os.open(path.name, _READING | os.O_NOFOLLOW, dir_fd=folder)


def _check_file(path: Path, found: os.stat_result, expected: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise MediaError(f"{path}: found {kind}, expected {expected}")
    _refuse_hole(path, found)


def _refuse_hole(path: Path, found: os.stat_result) -> None:
    """Raises MediaError for a file that is almost all hole: a terabyte of it is made at once, and
    takes days to read.

    Zeros that a file system has compressed look the same, but no film consists of zeros. Some file
    systems do not say how much is on the disk.
    """
    there = found.st_blocks * 512
    if found.st_size > _SPARSE_BYTES and 0 < there < _LEAST_SHARE * found.st_size:
        raise MediaError(
            f"{path}: found {there} bytes of {found.st_size} on the disk, expected a whole file"
        )


def read_through(path: Path, heartbeat: Callable[[], None]) -> None:
    """Read a whole file, without its holes, before it is called damaged: for FFmpeg a file ends
    where a disk or share cannot be read. heartbeat: called for every few MiB. Raises OSError."""
    file = os.open(path, _READING)
    try:
        at = 0
        while at < os.fstat(file).st_size:
            at = os.lseek(file, at, os.SEEK_DATA)
            at += len(os.pread(file, _STRETCH_BYTES, at)) or _STRETCH_BYTES
            heartbeat()
    except OSError as error:
        if error.errno != errno.ENXIO:  # only a hole is left up to the end
            raise
    finally:
        os.close(file)


@contextmanager
def _kept(file: int, path: Path) -> Iterator[tuple[OpenedSource, os.stat_result]]:
    try:
        yield OpenedSource.of(path, file), os.fstat(file)
    finally:
        os.close(file)
