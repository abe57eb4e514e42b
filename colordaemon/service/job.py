"""A job: what the journal knows of one file."""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from colordaemon.inbox.stability import Signature, signature_from, signature_of

NO_INVENTORY = "[]"


class State(StrEnum):
    """The state of a job. A file that is settling has no job yet; the last four states are
    final."""

    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHING = "publishing"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a job is in its state: the `code` of its JSON. NONE: it came there in the usual way."""

    NONE = ""
    # Cancelled
    ASKED = "asked"  # by command
    GONE = "gone"  # the source; it may come back
    CHANGED = "changed"  # the source is another file by now
    # Failed or skipped
    COLOR = "color"  # the source has real color already
    MEDIA = "media"  # it can never be colored
    EMPTY = "empty"
    CRASH = "crash"  # the worker died twice while it worked on it
    UNFORESEEN = "unforeseen"  # an unexpected error, twice
    UNFINISHED = "unfinished"  # begun again and again, and the daemon ended each time
    MACHINE = "machine"  # not its own fault, but tried often enough
    PUBLISH = "publish"  # its result could not be given its name
    # Queued again
    INBOX = "inbox"  # the inbox is gone
    TOUCHED = "touched"  # the source was changed in mode or links, so it has to settle again
    GUIDE = "guide"  # its references or hints have changed, or may still be copied
    HALF = "half"  # it looks damaged and may still be copied
    LOST = "lost"  # the result, before it was published
    SPACE = "space"  # there was no room for the result
    MEMORY = "memory"  # it needs more than there is beside other files; it is made alone
    WAY = "way"  # something stands where its folder in the outbox belongs
    SETTINGS = "settings"  # no file can be colored with these
    STOPPED = "stopped"  # by a pause, a restart or a more urgent film


ENDS = (State.DONE, State.FAILED, State.SKIPPED, State.CANCELLED)


@dataclass(frozen=True)
class Found:
    """A settled file. rank: 0 for photos, 1 for films, which wait for all photos. device, inode,
    ctime_ns: see `Signature`; by these a file that replaced another of its name is recognized."""

    path: Path
    size: int
    mtime_ns: int
    rank: int = 0
    priority: int = 0
    device: int = 0
    inode: int = 0
    ctime_ns: int = 0

    def columns(self) -> dict[str, Any]:
        """As the journal keeps it; `job_of` reads it back."""
        return {
            "source": os.fsencode(self.path),
            "size": self.size,
            "mtime_ns": self.mtime_ns,
            "rank": self.rank,
            "priority": self.priority,
            "device": _signed(self.device),
            "inode": _signed(self.inode),
            "ctime_ns": self.ctime_ns,
        }


@dataclass(frozen=True)
class Partial:
    """A finished file before it gets its name: where it is, and what identifies it.

    The device number does not: it changes when a disk is mounted again. mtime_ns: that of the
    source, which a result gets before it gets its name; 0 in journals that did not write it down.
    digest: the checksum of its bytes, or "" if the settings ask for none.
    """

    path: Path
    inode: int
    size: int
    mtime_ns: int = 0
    digest: str = ""

    @classmethod
    def of(cls, path: Path, digest: str = "") -> Partial:
        found = signature_from(path.lstat())
        return cls(path, found.inode, found.size, found.mtime_ns, digest)

    def columns(self) -> dict[str, Any]:
        """As the journal keeps it; `job_of` reads it back."""
        return {
            "partial": os.fsencode(self.path),
            "partial_inode": _signed(self.inode),
            "partial_size": self.size,
            "partial_mtime_ns": self.mtime_ns,
            "partial_sha256": self.digest,
        }

    def is_at(self, path: Path) -> bool:
        """Whether the file at a path is this one, by size and time. Inode numbers would not do: FAT
        has none, and makes up others at every mount."""
        found = signature_of(path)
        if found is None or found.size != self.size:
            return False
        if not self.mtime_ns:
            return found.inode == self.inode
        return found.mtime_ns == self.mtime_ns


@dataclass(frozen=True)
class Job:
    """A row of the journal. attempts, crashes: starts, and deaths of the worker, since the last
    progress.

    not_before, changed: Unix seconds. code: for programs; reason: a sentence for people.
    retire: what is still to be done with the source. announce: whether the hook is still to run.
    inventory: JSON, a list of what the source holds and what became of it.
    """

    id: int
    source: Path
    size: int
    mtime_ns: int
    rank: int
    priority: int
    state: State
    attempts: int
    crashes: int
    not_before: float
    changed: float
    code: Reason
    reason: str
    target: Path | None
    partial: Partial | None
    retire: str
    announce: bool
    inventory: str
    device: int
    inode: int
    ctime_ns: int

    def as_json(self) -> dict[str, Any]:
        """What hooks read. Bytes of names that are not UTF-8 are written as \\udcXX."""
        return {
            "version": 1,
            "id": self.id,
            "state": str(self.state),
            "code": self.code,
            "reason": self.reason,
            "source": os.fspath(self.source),
            "target": os.fspath(self.target) if self.target and self.state == "done" else None,
            "attempts": self.attempts,
            "time": self.changed,
            "inventory": json.loads(self.inventory),
        }

    @property
    def queued(self) -> Signature:
        """What identified the source when it was queued."""
        return Signature(self.device, self.inode, self.size, self.mtime_ns, self.ctime_ns)


def job_of(row: sqlite3.Row) -> Job:
    partial = None
    if row["partial"] is not None:
        partial = Partial(
            Path(os.fsdecode(row["partial"])),
            _unsigned(row["partial_inode"]),
            row["partial_size"],
            row["partial_mtime_ns"],
            row["partial_sha256"],
        )
    return Job(
        id=row["id"],
        source=Path(os.fsdecode(row["source"])),
        size=row["size"],
        mtime_ns=row["mtime_ns"],
        rank=row["rank"],
        priority=row["priority"],
        state=State(row["state"]),
        attempts=row["attempts"],
        crashes=row["crashes"],
        not_before=row["not_before"],
        changed=row["changed"],
        code=reason_of(row["code"]),
        reason=row["reason"],
        target=Path(os.fsdecode(row["target"])) if row["target"] is not None else None,
        partial=partial,
        retire=row["retire"],
        announce=bool(row["announce"]),
        inventory=row["inventory"],
        device=_unsigned(row["device"]),
        inode=_unsigned(row["inode"]),
        ctime_ns=row["ctime_ns"],
    )


def _signed(number: int) -> int:
    """SQLite's integers are signed; inode numbers of some file systems use all 64 bits."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _unsigned(number: int) -> int:
    return number % (1 << 64)


def reason_of(code: str) -> Reason:
    """Journals of other versions may know codes that we do not."""
    return Reason(code) if code in {*Reason} else Reason.NONE
