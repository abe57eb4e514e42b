"""A source while it is worked on: opened once, and read by nothing but that descriptor.

By name it would be opened again and again, for hours: each time another file, a FIFO that blocks
for ever or a link may stand there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PosixPath

from colordaemon.errors import MediaError, SourceChanged
from colordaemon.inbox.safe_open import folder_beneath
from colordaemon.inbox.stability import Signature, signature_from

# Opening a FIFO waits for a writer, and a terminal would become ours, without these.
_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_STRETCH_BYTES = 1 << 22
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV}
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class OpenedSource(PosixPath):
    """A path by which a file is named and told of, and that leads to a descriptor of it.

    What opens or looks at it asks for its `os.fspath`, and gets the descriptor's.
    """

    descriptor = -1

    @classmethod
    def of(cls, path: Path, descriptor: int) -> OpenedSource:
        opened = cls(path)
        opened.descriptor = descriptor
        return opened

    def __fspath__(self) -> str:
        return str(self) if self.descriptor < 0 else f"/proc/self/fd/{self.descriptor}"

    def with_segments(self, *segments: str | os.PathLike[str]) -> Path:
        """Its folder, for instance, is a path as any other."""
        return Path(*segments)


@contextmanager
def opened(path: Path) -> Iterator[OpenedSource]:
    """A file that its owner has named. Raises OSError, and MediaError for what is no file."""
    with _kept(os.open(path, _READING), path) as (source, found):
        if not stat.S_ISREG(found.st_mode):
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
            raise MediaError(f"{path}: found {kind}, expected a film or photo")
        yield source


@contextmanager
def opened_beneath(inbox: Path, path: Path, queued: Signature) -> Iterator[OpenedSource]:
    """A file of an inbox, if it still is what was queued. Raises OSError and SourceChanged."""
    try:
        with folder_beneath(inbox, path.parent) as folder:
            file = os.open(path.name, _READING | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno in _ABSENT:
            raise SourceChanged(f"{path}: it is not there any more ({error.strerror})") from error
        raise
    with _kept(file, path) as (source, found):
        if not stat.S_ISREG(found.st_mode) or not signature_from(found).is_untouched(queued):
            raise SourceChanged(f"{path}: it is not the file any more that was queued")
        yield source


def read_through(path: Path, heartbeat: Callable[[], None]) -> None:
    """Read all that a file holds, but for holes, before it is called damaged: FFmpeg takes what a
    disk or share cannot read for the file's end. heartbeat: called now and then. Raises OSError."""
    file = os.open(path, _READING)
    try:
        at = 0
        while at < os.fstat(file).st_size:
            at = os.lseek(file, at, os.SEEK_DATA)
            at += len(os.pread(file, _STRETCH_BYTES, at)) or _STRETCH_BYTES
            heartbeat()
    except OSError as error:
        if error.errno != errno.ENXIO:  # there is nothing but a hole up to the end
            raise
    finally:
        os.close(file)


@contextmanager
def _kept(file: int, path: Path) -> Iterator[tuple[OpenedSource, os.stat_result]]:
    try:
        yield OpenedSource.of(path, file), os.fstat(file)
    finally:
        os.close(file)
