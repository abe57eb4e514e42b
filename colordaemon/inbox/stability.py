"""When a file is whole: nothing has happened to it for a while.

The size says little: Samba shows the full size when one percent of a copy is there, and rsync and
scp stall. So a file has to be quiet, with the same inode, size and times throughout. A copy may
stall for longer than that; what then looks damaged is given more time, see `quiet_seconds`.
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


@dataclass(frozen=True)
class Signature:
    """All that changes when a file does. ctime tells even of a copy that sets the old mtime.

    inode: 0 where a journal of an older version has not written it down.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def is_same(self, queued: Signature) -> bool:
        """Whether this is the file that was queued.

        A disk that was mounted anew has another device number, and a share other inodes as well:
        there size and mtime decide.
        """
        if (self.size, self.mtime_ns) != (queued.size, queued.mtime_ns):
            return False
        return self.device != queued.device or not queued.inode or self.inode == queued.inode

    def is_untouched(self, queued: Signature) -> bool:
        """Whether nothing has been done to it since, which a new mode or a new link is, too."""
        known = queued.inode and self.device == queued.device
        return self.is_same(queued) and (not known or self.ctime_ns == queued.ctime_ns)


def signature_of(path: Path) -> Signature | None:
    """None if there is no regular file. Links are not followed, and a FIFO would wait for ever."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return signature_from(found) if stat.S_ISREG(found.st_mode) else None


def signature_from(found: os.stat_result) -> Signature:
    times = _in_64_bits(found.st_mtime_ns), _in_64_bits(found.st_ctime_ns)
    return Signature(found.st_dev, found.st_ino, found.st_size, *times)


def _in_64_bits(nanoseconds: int) -> int:
    """A time as the journal can hold it: SQLite's integers end in the year 2262, and file systems
    go on. It only has to tell one state of a file from another."""
    return (nanoseconds + (1 << 63)) % (1 << 64) - (1 << 63)


def quiet_seconds(path: Path, wall: float) -> float:
    """For how long nothing has happened to a file, by its ctime: a copy sets mtime at will.

    wall: Unix seconds. Infinite if the file is gone, or if the clock has been set back.
    """
    try:
        seconds = wall - path.lstat().st_ctime
    except OSError:
        return math.inf
    return seconds if seconds >= 0 else math.inf


class Verdict(Enum):
    """What a look at a file that has been quiet says."""

    SETTLED = auto()
    WAIT = auto()
    EMPTY = auto()  # for longer than anybody takes to begin writing
    GONE = auto()


@dataclass
class _Watched:
    signature: Signature | None
    since: float  # when it was first empty, or first seen
    due: float


class StabilityTracker:
    """Files that are settling. `now` is in seconds of a clock that never jumps."""

    def __init__(self, settle_seconds: float, empty_seconds: float) -> None:
        self._settle, self._empty = settle_seconds, empty_seconds
        self._files: dict[Path, _Watched] = {}
        self._due: list[tuple[float, Path]] = []  # a heap; entries that are too early are skipped

    def __len__(self) -> int:
        return len(self._files)

    def touch(self, path: Path, signature: Signature | None, now: float) -> None:
        """Something happened to a file: its quiet time begins anew."""
        known = self._files.get(path)
        if known is None:
            known = self._files[path] = _Watched(signature, now, 0.0)
        known.signature = signature
        self._wait(path, known, now)

    def notice(self, path: Path, signature: Signature, now: float) -> None:
        """A scan came upon a file; if nothing has changed, its quiet time goes on."""
        known = self._files.get(path)
        if known is None or known.signature != signature:
            self.touch(path, signature, now)

    def due(self, now: float, most: int = 100) -> list[Path]:
        """Files that have been quiet long enough to be looked at; `judge` each of them.

        most: of them at once, since a look over a share takes a millisecond; the rest stay due.
        """
        found = list[Path]()
        while self._due and self._due[0][0] <= now and len(found) < most:
            due, path = heapq.heappop(self._due)
            known = self._files.get(path)
            if known is not None and known.due == due:
                found.append(path)
        return found

    @property
    def next_due(self) -> float | None:
        return self._due[0][0] if self._due else None

    def judge(
        self, path: Path, signature: Signature | None, now: float, *, written: bool = False
    ) -> Verdict:
        """Whether a quiet file is whole, by another look; whoever is settled or gone is forgotten.

        written: somebody has it open for writing.
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

    def _wait(self, path: Path, known: _Watched, now: float) -> None:
        due = now + self._settle
        if due != known.due:
            known.due = due
            heapq.heappush(self._due, (due, path))


def is_being_written(path: Path) -> bool:
    """Whether somebody has the file open for writing, as far as the system tells us.

    A read lease is refused then. It is also refused to whoever does not own the file, and on
    network file systems, so no answer means nothing. The holder of a lease is sent SIGIO when
    somebody wants to write, which ends a process that does not ignore it; the daemon does.
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
