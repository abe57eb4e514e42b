"""Decides when a file is complete: when it has not changed for a while.

The size is not enough: Samba shows the full size when one percent of a copy is written, and rsync
and scp stall. So inode, size and times all have to stay the same. A copy may stall for longer than
that; a file that then looks damaged gets more time, see `quiet_seconds`.
"""

from __future__ import annotations

import fcntl
import heapq
import math
import os
import stat
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from colordaemon.clock import Monotonic, UnixTime

Identity = tuple[int, int]  # of a folder: its device and inode


@dataclass(frozen=True)
class Signature:
    """Everything that changes when a file changes; ctime even for a copy that sets the old mtime.

    inode: 0 if the journal of an older version did not record it.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def is_same(self, queued: Signature) -> bool:
        """Whether this is the file that was queued.

        A disk that was mounted again may have another device number, and a share other inodes as
        well: then size and mtime decide.
        """
        if (self.size, self.mtime_ns) != (queued.size, queued.mtime_ns):
            return False
        return self.device != queued.device or not queued.inode or self.inode == queued.inode

    def is_untouched(self, queued: Signature) -> bool:
        """Whether it was not changed since then, not even in its mode or links."""
        known = queued.inode and self.device == queued.device
        return self.is_same(queued) and (not known or self.ctime_ns == queued.ctime_ns)


def signature_of(path: Path) -> Signature | None:
    """The signature of a regular file, else None. Follows no links and opens nothing: opening a
    FIFO would block."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return signature_from(found) if stat.S_ISREG(found.st_mode) else None


def signature_from(found: os.stat_result) -> Signature:
    times = _in_64_bits(found.st_mtime_ns), _in_64_bits(found.st_ctime_ns)
    return Signature(found.st_dev, found.st_ino, found.st_size, *times)


def _in_64_bits(nanoseconds: int) -> int:
    """A time as the journal can store it: SQLite's integers end in the year 2262, those of file
    systems do not. It only has to differ between two states of a file."""
    return (nanoseconds + (1 << 63)) % (1 << 64) - (1 << 63)


def quiet_seconds(path: Path, wall: UnixTime) -> float:
    """How long a file has not changed, by its ctime, since programs can set mtime freely.

    wall: time.time(). Infinite if the file is gone, or if the clock has been set back.
    """
    try:
        seconds = wall - path.lstat().st_ctime
    except OSError:
        return math.inf
    return seconds if seconds >= 0 else math.inf


class Verdict(Enum):
    """The result of checking a file that has not changed for a while."""

    SETTLED = auto()
    WAIT = auto()
    EMPTY = auto()  # for so long that nothing is going to be written
    GONE = auto()


@dataclass
class _Watched:
    signature: Signature | None
    since: float  # when it was first empty, or first seen
    due: float


class StabilityTracker:
    """Files that are settling."""

    def __init__(self, settle_seconds: float, empty_seconds: float) -> None:
        self._settle, self._empty = settle_seconds, empty_seconds
        self._files: dict[Path, _Watched] = {}
        self._due: list[tuple[float, Path]] = []  # a heap; entries that are too early are skipped

    def __len__(self) -> int:
        return len(self._files)

    def touch(self, path: Path, signature: Signature | None, now: Monotonic) -> None:
        """A file has changed: its settle time begins again."""
        known = self._files.get(path)
        if known is None:
            known = self._files[path] = _Watched(signature, now, 0.0)
        known.signature = signature
        self._wait(path, known, now)

    def notice(self, path: Path, signature: Signature, now: Monotonic) -> None:
        """A scan has found a file: if it has not changed, its settle time goes on."""
        known = self._files.get(path)
        if known is None or known.signature != signature:
            self.touch(path, signature, now)

    def due(self, now: Monotonic, most: int = 100) -> list[Path]:
        """Files that have not changed for long enough; call `judge` for each of them.

        most: at once, since a check over a share takes a millisecond; the rest stay due.
        """
        found = list[Path]()
        while self._due and self._due[0][0] <= now and len(found) < most:
            due, path = heapq.heappop(self._due)
            known = self._files.get(path)
            if known is not None and known.due == due:
                found.append(path)
        return found

    def judge(
        self, path: Path, signature: Signature | None, now: Monotonic, *, written: bool = False
    ) -> Verdict:
        """Whether a file is complete, by its current signature. Once settled or gone it is no
        longer tracked.

        written: a program has it open for writing.
        """
        known = self._files[path]
        if signature is None:
            del self._files[path]
            return Verdict.GONE
        if signature != known.signature or written:
            known.signature = signature
            self._wait(path, known, now)
            return Verdict.WAIT
        if signature.size == 0 and now - known.since < self._empty:
            self._wait(path, known, now)
            return Verdict.WAIT
        del self._files[path]
        return Verdict.SETTLED if signature.size else Verdict.EMPTY

    def clear(self) -> None:
        self._files.clear()
        self._due.clear()

    def _wait(self, path: Path, known: _Watched, now: Monotonic) -> None:
        due = now + self._settle
        if due != known.due:
            known.due = due
            heapq.heappush(self._due, (due, path))


def is_being_written(path: Path) -> bool:
    """Whether a program has the file open for writing, if the kernel can tell.

    The kernel refuses a read lease then. It also refuses one, with another error, if we do not own
    the file, and on network file systems; then the answer is False. When a program opens the file
    for writing, the holder of a lease gets SIGIO, which the daemon ignores.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False
