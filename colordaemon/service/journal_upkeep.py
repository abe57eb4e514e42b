"""Checks the journal, replaces a damaged one, and deletes old jobs.

| the power fails …             | on disk afterwards                 | the next rebuild           |
|-------------------------------|------------------------------------|----------------------------|
| while the new one is filled   | the old one, half a new one        | begins the new one anew    |
| after the old one was renamed | both, under other names            | finds results on the disks |
| after the new one was renamed | the new one, the old one beside it | has nothing to do          |

Jobs whose rows cannot be read are recognized by their results, which have the times of their
sources.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from colordaemon.clock import Clock, Monotonic, UnixTime
from colordaemon.config import Config, JournalSettings
from colordaemon.convert.publish import result_name
from colordaemon.convert.routing import Routing
from colordaemon.durable import flush_folder
from colordaemon.errors import ConfigError
from colordaemon.inbox.folders import Folders, find_folders, locked_state
from colordaemon.inbox.scan import rank_of, scan
from colordaemon.inbox.stability import Signature
from colordaemon.logs import counted
from colordaemon.service.job import ENDS, NO_INVENTORY, Found, Job, Partial, State
from colordaemon.service.journal import Journal
from colordaemon.service.lifecycle import JobLifecycle
from colordaemon.service.records import Damaged, Records

log = logging.getLogger(__name__)

_LEAST_ROW_BYTES = 40  # by which the size of a damaged file bounds the number of its rows
_TIME_SECONDS = 2.0  # steps in which FAT keeps times
DAY = 86400.0  # seconds; also from one pass of pruning to the next
PAUSE_SECONDS = 1.0  # between two slices of pruning
SLICE_SECONDS = 0.05  # on a share, checking a file takes a millisecond
ROWS, PAGES = 200, 500  # of a slice, at most


@dataclass(frozen=True)
class Rebuilt:
    """kept: rows of the old journal. recognized: results on the disk that had no row. old: the path
    of the old journal now, if there was one."""

    kept: int
    recognized: int
    old: Path | None


def check(config: Config) -> str:
    """Check the journal; returns a line about it. Raises Damaged and ConfigError."""
    path = _existing(config)
    log_file = path.with_name(f"{path.name}-wal")  # gone when the last process closes the journal
    with Records(path) as records:
        if mistakes := records.mistakes():
            raise Damaged(f"{path}: {mistakes[0]}; `colordaemon journal rebuild` begins a new one")
        rows, size = sum(records.counts().values()), path.stat().st_size
        waiting = log_file.stat().st_size if log_file.exists() else 0
        free, can_shrink = records.free_bytes, records.can_shrink
    beside = f" (and {waiting} in {log_file.name})" if waiting else ""
    each = f", {size / rows:.0f} bytes each" if rows else ""
    jobs = counted(rows, "job")
    said = f"{path}: no damage; {jobs}, {size} bytes{beside}{each}, {free} of them free"
    return (
        said if can_shrink else f"{said}; `colordaemon journal vacuum` gives them back to the disk"
    )


def vacuum(config: Config) -> str:
    """Rewrite the journal without free pages, which one of an older version does not give back by
    itself. Needs as much space again meanwhile. Raises Damaged and ConfigError."""
    path = _existing(config)
    before = path.stat().st_size
    with locked_state(path.parent), Journal(path) as journal:
        journal.compact()
    return f"{path}: {path.stat().st_size} bytes, {before} before"


def _existing(config: Config) -> Path:
    path = find_folders(config)[0].journal
    if not path.exists():
        raise ConfigError(
            f"state_dir: there is no journal in {path.parent} yet; `colordaemon watch` begins it"
        )
    return path


def rebuild(config: Config) -> Rebuilt:
    """Start a new journal with all that can be read of the old one. Raises ConfigError and
    OSError."""
    all_folders, routing = find_folders(config), Routing(config)
    old = all_folders[0].journal
    new = old.with_name(f"{old.name}.new")
    with locked_state(old.parent):
        _move_journal(new, None)
        with Journal(new) as journal:
            kept = journal.adopt(*_readable(old)) if old.is_file() else 0
            recognized = sum(_recognize(journal, folders, routing) for folders in all_folders)
        if os.geteuid() == 0:  # run by root, the file must still belong to the daemon
            owner = old.parent.stat()
            os.chown(new, owner.st_uid, owner.st_gid)
        aside = old.with_name(f"{old.name}.old-{time.time():.0f}") if old.exists() else None
        if aside is not None:
            _move_journal(old, aside)
        _move_journal(new, old)
        flush_folder(old.parent)
    return Rebuilt(kept, recognized, aside)


def _move_journal(path: Path, target: Path | None) -> None:
    """Rename a journal with the two files that SQLite keeps beside it. target: None removes
    them."""
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if target is None:
            part.unlink(missing_ok=True)
        else:
            with suppress(FileNotFoundError):
                part.rename(target.with_name(target.name + suffix))


def _readable(path: Path) -> tuple[list[sqlite3.Row], list[sqlite3.Row]]:
    """The rows of jobs and facts that SQLite can still read."""
    jobs, facts = list[sqlite3.Row](), list[sqlite3.Row]()
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as db:
        db.row_factory = sqlite3.Row
        with suppress(sqlite3.DatabaseError):
            facts = db.execute("SELECT * FROM facts").fetchall()
        try:
            jobs = db.execute("SELECT * FROM jobs").fetchall()
        except sqlite3.DatabaseError:  # read them one by one, without those that are damaged
            most = path.stat().st_size // _LEAST_ROW_BYTES
            jobs = [row for number in range(1, most) for row in _row(db, number)]
    return [row for row in jobs if _is_sound(row)], facts


def _is_sound(row: sqlite3.Row) -> bool:
    kinds = {"source": bytes, "size": int, "mtime_ns": int, "changed": float}
    is_typed = all(isinstance(row[name], kind) for name, kind in kinds.items())
    return is_typed and row["state"] in [*State]


def _row(db: sqlite3.Connection, number: int) -> list[sqlite3.Row]:
    try:
        return db.execute("SELECT * FROM jobs WHERE id = ?", (number,)).fetchall()
    except sqlite3.DatabaseError:
        return []


def _recognize(journal: Journal, folders: Folders, routing: Routing) -> int:
    """Add done jobs for sources that have results already; returns how many."""
    count, now = 0, Clock().time()
    for path, signature in scan(folders.inbox):
        found = _found(path, signature)
        if not [*journal.unknown([found])]:
            continue
        for result in _results(path, signature, folders, routing):
            journal.add([found], now)
            (job, *_) = journal.of_source(path)
            journal.publishing(job, result, Partial.of(result), now)
            journal.finish(job, now, reason="found beside the results", retire="")
            count += 1
            break
    journal.announce_nothing()
    return count


def _found(path: Path, signature: Signature) -> Found:
    times = signature.device, signature.inode, signature.ctime_ns
    return Found(path, signature.size, signature.mtime_ns, rank_of(path), 0, *times)


def _results(
    source: Path, signature: Signature, folders: Folders, routing: Routing
) -> Iterator[Path]:
    """Files in the outbox that have the name and time of a source's result."""
    folder = (folders.outbox / folders.relative(source)).parent
    stem = result_name(source, "", routing.config_for(source))
    called = re.compile(rf"{re.escape(stem)}( \(\d+\))?\.\w+")
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if called.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                apart = abs(entry.stat(follow_symlinks=False).st_mtime_ns - signature.mtime_ns)
                if apart <= _TIME_SECONDS * 1e9:
                    yield Path(entry.path)


class Pruning:
    """Deletes jobs that ended long ago, a few at a time, and gives their pages back to the disk.

    Age alone is not enough. As long as the source is in the inbox, its row prevents that the file
    is colored again; and if results may be replaced, it prevents that one source's result replaces
    that of another. Such a row stays, without its inventory, which is most of its size. A source
    that cannot be checked, because its disk is not mounted for instance, counts as being there.


    lifecycle_of: of a source; None if its inbox is no longer in the configuration. clock: measures
    a slice.
    """

    def __init__(
        self,
        journal: Journal,
        settings: JournalSettings,
        lifecycle_of: Callable[[Path], JobLifecycle | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal, self._lifecycle_of, self._clock = journal, lifecycle_of, clock
        self.reload(settings)

    def reload(self, settings: JournalSettings) -> None:
        self._seconds = (settings.keep_days or math.inf) * DAY
        self._behind = self._forgotten = 0
        self._tells = False  # whether hooks are still to run
        self.due_at = 0.0 if settings.keep_days else math.inf

    def turn(self, now: Monotonic, wall: UnixTime) -> None:
        """Do the next slice, if it is due."""
        if now < self.due_at:
            return
        is_through = self._prune(wall)
        if self._journal.shrink(PAGES) or not is_through:
            self.due_at = now + PAUSE_SECONDS
            return
        if self._forgotten:
            log.info(
                "deleted %s from the journal that ended long ago", counted(self._forgotten, "job")
            )
        self._behind = self._forgotten = 0
        self.due_at = now + DAY

    def _prune(self, wall: UnixTime) -> bool:
        """Check the next jobs; returns whether these were the last."""
        jobs = self._journal.following(self._behind, ROWS)
        last = self._journal.last_id  # is kept, or another file would get its number
        self._tells = self._journal.has_hook
        to_forget, to_shorten = list[int](), list[int]()
        until = self._clock() + SLICE_SECONDS
        for job in jobs:
            if self._is_over(job, wall):
                if job.id != last and not self._is_needed(job):
                    to_forget.append(job.id)
                elif job.inventory != NO_INVENTORY:
                    to_shorten.append(job.id)
            self._behind = job.id
            if self._clock() >= until:
                break
        if to_shorten:
            self._journal.drop_inventories(to_shorten)
        if to_forget:
            self._forgotten += self._journal.forget(to_forget)
        return len(jobs) < ROWS and (not jobs or self._behind == jobs[-1].id)

    def _is_over(self, job: Job, wall: UnixTime) -> bool:
        """Whether a job ended long ago and neither a hook nor a source action is left to do."""
        is_due = (job.announce and self._tells) or (job.state is State.DONE and job.retire)
        return job.state in ENDS and not is_due and wall - job.changed > self._seconds

    def _is_needed(self, job: Job) -> bool:
        lifecycle = self._lifecycle_of(job.source)
        return lifecycle is None or lifecycle.needs(job)
