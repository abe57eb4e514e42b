"""The tables of the journal, their upgrades, and all queries.

For everything that only reads the journal: the status, tests, and `Journal`, which adds the writes.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from colordaemon.clock import UnixTime
from colordaemon.errors import ConfigError
from colordaemon.inbox.stability import Identity
from colordaemon.service.job import ENDS, Found, Job, Reason, State, job_of, reason_of

VERSION = 7
_SCHEMA = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    source BLOB NOT NULL,           -- the bytes of the path, which need not be text
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    changed REAL NOT NULL,
    code TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    target BLOB,
    partial BLOB,
    partial_device INTEGER,
    partial_inode INTEGER,
    partial_size INTEGER,
    retire TEXT NOT NULL DEFAULT '',
    announce INTEGER NOT NULL DEFAULT 0,
    UNIQUE (source, size, mtime_ns)
);
CREATE INDEX order_of_work ON jobs (state, priority DESC, rank, id);
CREATE INDEX due ON jobs (state, not_before);
CREATE INDEX unannounced ON jobs (changed) WHERE announce;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
FIRST = 1_000_000  # the lowest priority of jobs that the operator has put first, above any setting
# Codes of jobs that were given up because their files were gone or others; they may come back.
ABSENT = (str(Reason.GONE), str(Reason.CHANGED))
# Errors of a full or failing disk, or of another program that has locked the journal.
_PASSING = frozenset(
    (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY,
     sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CANTOPEN)
)  # fmt: skip
_ORDER_OF_WORK = "ORDER BY priority DESC, rank, id"
_INCREMENTAL = 2  # PRAGMA auto_vacuum
_BUSY_SECONDS = 30.0  # to wait for a backup or another reader; well below the watchdog's time
# From each version to the next; a journal of version n runs all that follow from n on.
UPGRADES: dict[int, str] = {
    0: _SCHEMA,
    1: "ALTER TABLE jobs ADD COLUMN partial_sha256 TEXT NOT NULL DEFAULT '';",
    2: "ALTER TABLE jobs ADD COLUMN inventory TEXT NOT NULL DEFAULT '[]';",
    # Which file it is, for jobs that were queued before: unknown. partial_device is out of use.
    3: "ALTER TABLE jobs ADD COLUMN device INTEGER NOT NULL DEFAULT 0;"
    " ALTER TABLE jobs ADD COLUMN inode INTEGER NOT NULL DEFAULT 0;"
    " ALTER TABLE jobs ADD COLUMN ctime_ns INTEGER NOT NULL DEFAULT 0;"
    " ALTER TABLE jobs ADD COLUMN partial_mtime_ns INTEGER NOT NULL DEFAULT 0;",
    # Frequent queries must not become slower with every file that was ever done.
    4: "CREATE INDEX unretired ON jobs (id) WHERE retire != '';"
    " CREATE INDEX results ON jobs (target) WHERE target IS NOT NULL;",
    # What guides the colors of a file is looked for then. Unknown of older jobs: at the latest.
    5: "ALTER TABLE jobs ADD COLUMN claimed REAL NOT NULL DEFAULT 0;"
    " UPDATE jobs SET claimed = changed;",
    # The latest of a state, and a search in their names, read this index and not the rows.
    6: "CREATE INDEX latest ON jobs (state, changed, id, source);",
}


class JournalVersion(ConfigError):
    """A journal of another version: newer, or not upgraded yet."""


def upgrade(db: sqlite3.Connection, name: str = "the journal") -> None:
    """Upgrade a journal to this version, each step in one transaction. Raises JournalVersion.

    name: of the file, for the message.
    """
    version = version_of(db)
    if version > VERSION:
        raise JournalVersion(
            f"{name}: version {version}, expected {VERSION}: made by a newer colordaemon; install "
            "that again, or start a new one with `colordaemon journal rebuild`"
        )
    for step in range(version, VERSION):
        db.executescript(
            f"BEGIN IMMEDIATE; {UPGRADES[step]} PRAGMA user_version = {step + 1}; COMMIT;"
        )


def version_of(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


class Damaged(ConfigError):
    """The file is damaged, or not a journal at all."""


def may_pass(error: sqlite3.Error) -> bool:
    """Whether an error may go away by itself, so that trying later makes sense."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING


class Span(NamedTuple):
    """When a job was worked on, in Unix seconds. size: of its source, in bytes."""

    rank: int
    size: int
    began: float
    ended: float


class Records:
    """Every query of the journal; any process may read at any time."""

    _mode = "ro"

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists():
            _check_file(path, os.R_OK if self._mode == "ro" else os.R_OK | os.W_OK)
        uri = f"{path.absolute().as_uri()}?mode={self._mode}"
        self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
        self._db.row_factory = sqlite3.Row
        try:
            self._open(path)
        except BaseException as error:
            self._db.close()
            self._raise_if_damaged(error)
            raise

    def _open(self, path: Path) -> None:
        if (version := version_of(self._db)) != VERSION:
            raise JournalVersion(f"{path}: version {version}, expected {VERSION}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        self._db.close()
        self._raise_if_damaged(error)

    def _raise_if_damaged(self, error: BaseException | None) -> None:
        """Raises Damaged in place of SQLite's error, unless that may pass."""
        if type(error) not in (sqlite3.DatabaseError, sqlite3.OperationalError):
            return  # programming errors, for instance
        assert isinstance(error, sqlite3.Error)
        if not may_pass(error):
            raise Damaged(
                f"{self._path}: the journal is damaged ({error}); "
                "`colordaemon journal rebuild` begins a new one and keeps what can be read"
            ) from error

    # Facts about the daemon itself

    @property
    def token(self) -> str:
        """Part of the names of work files: another journal may use the same outbox."""
        return self.fact("token")

    def identity_of(self, inbox: Path) -> Identity | None:
        """Which folder an inbox was when it was last seen; None if it never was.

        Where a share is not mounted, an empty folder of the same name stands in its place; its
        files are not gone then.
        """
        device, _, inode = self.fact(identity_fact(inbox)).partition(" ")
        return (int(device), int(inode)) if inode else None

    def is_there(self, inbox: Path) -> bool:
        """Whether an inbox exists and is still the same folder."""
        try:
            found = inbox.stat()
        except OSError:
            return False
        return self.identity_of(inbox) in (None, (found.st_dev, found.st_ino))

    def fact(self, name: str) -> str:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row["value"]) if row else ""

    @property
    def has_hook(self) -> bool:
        """Whether hooks run when jobs end; see `HookRunner`."""
        return self.fact("hook") == "yes"

    def mistakes(self) -> list[str]:
        """The errors that SQLite finds in a complete check."""
        found = [str(row[0]) for row in self._db.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    @property
    def free_bytes(self) -> int:
        """Free bytes in the file, which the next rows use or `shrink` gives back."""
        return self._number("freelist_count") * self._number("page_size")

    @property
    def can_shrink(self) -> bool:
        """Whether `shrink` works, which it does not in a file of an older version; see
        `compact`."""
        return self._number("auto_vacuum") == _INCREMENTAL

    def _number(self, pragma: str) -> int:
        return int(self._db.execute(f"PRAGMA {pragma}").fetchone()[0])

    # Jobs

    def unknown(self, files: Iterable[Found]) -> Iterator[Found]:
        """The files that have no row, or one that was cancelled because the file was missing."""
        query = "SELECT state, code FROM jobs WHERE source = ? AND size = ? AND mtime_ns = ?"
        for file in files:
            key = os.fsencode(file.path), file.size, file.mtime_ns
            row = self._db.execute(query, key).fetchone()
            if row is None or (row["state"] == State.CANCELLED and row["code"] in ABSENT):
                yield file

    def job(self, number: int) -> Job:
        """Raises KeyError."""
        row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise KeyError(number)
        return job_of(row)

    def ids(self, *states: State, behind: int = 0, limit: int = -1) -> list[int]:
        """Job numbers, in ascending order."""
        marks = ", ".join("?" * len(states))
        query = f"SELECT id FROM jobs WHERE state IN ({marks}) AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
        return [row["id"] for row in self._db.execute(query, (*states, behind, limit))]

    @property
    def last_id(self) -> int:
        """The highest job number; 0 if there is no job."""
        return int(self._db.execute("SELECT ifnull(max(id), 0) FROM jobs").fetchone()[0])

    def following(self, number: int, limit: int) -> list[Job]:
        """Jobs of any state with higher numbers than this, in order."""
        query = "SELECT * FROM jobs WHERE id > ? ORDER BY id LIMIT ?"
        return [job_of(row) for row in self._db.execute(query, (number, limit))]

    def jobs(self, *states: State, limit: int = -1) -> list[Job]:
        """In the order of work."""
        # State by state, since of several together SQLite would sort all.
        query = f"SELECT * FROM jobs WHERE state = ? {_ORDER_OF_WORK} LIMIT ?"  # noqa: S608
        rows = [row for state in states for row in self._db.execute(query, (state, limit))]
        rows.sort(key=lambda row: (-row["priority"], row["rank"], row["id"]))
        return [job_of(row) for row in (rows if limit < 0 else rows[:limit])]

    def listed(
        self, state: State, search: str = "", *, limit: int = -1, offset: int = 0
    ) -> list[Job]:
        """Jobs of one state: those that are still to be done in the order of work, others the
        latest first. search: what their paths contain; case counts beyond ASCII only."""
        order = "ORDER BY changed DESC, id DESC" if state in ENDS else _ORDER_OF_WORK
        where, values = _among(state, search)
        query = f"SELECT * FROM jobs WHERE {where} {order} LIMIT ? OFFSET ?"  # noqa: S608
        return [job_of(row) for row in self._db.execute(query, (*values, limit, offset))]

    def found(self, state: State, search: str) -> int:
        """How many jobs `listed` finds."""
        where, values = _among(state, search)
        query = f"SELECT count(*) FROM jobs WHERE {where}"  # noqa: S608
        return int(self._db.execute(query, values).fetchone()[0])

    def codes(self, state: State) -> dict[Reason, int]:
        """How many jobs of a state there are with each code."""
        query = "SELECT code, count(*) FROM jobs WHERE state = ? GROUP BY code"
        rows = self._db.execute(query, (state,)).fetchall()
        return {reason_of(code): count for code, count in rows}

    @property
    def last_change(self) -> float:
        """When a job last came into its state, in Unix seconds; 0 if there is no job."""
        query = "SELECT ifnull(max(changed), 0) FROM jobs WHERE state = ?"
        return max(float(self._db.execute(query, (state,)).fetchone()[0]) for state in State)

    def waiting(self) -> dict[int, tuple[int, int]]:
        """What is queued, by rank: how many jobs, and how many bytes."""
        query = "SELECT rank, count(*), sum(size) FROM jobs WHERE state = 'queued' GROUP BY rank"
        return {rank: (count, size) for rank, count, size in self._db.execute(query)}

    def of_source(self, source: Path) -> list[Job]:
        """All jobs of a path, the latest first."""
        rows = self._db.execute(
            "SELECT * FROM jobs WHERE source = ? ORDER BY id DESC", (os.fsencode(source),)
        )
        return [job_of(row) for row in rows]

    def begun_before(self, folder: Path, base: str, wall: float, limit: int = 100) -> list[Job]:
        """Jobs whose work began before this time, of files right in a folder: those that have this
        name or stem (empty: any). Not those that are still to be done, or were given up."""
        start = os.fsencode(folder / base) if base else os.fsencode(folder) + b"/"
        end = start + b"/" if base else os.fsencode(folder) + b"0"  # 0 follows /, and / follows .
        rows = self._db.execute(
            "SELECT * FROM jobs WHERE source >= ? AND source < ? AND claimed > 0 AND claimed < ?"
            " AND +state NOT IN ('queued', 'cancelled')"
            " AND instr(substr(source, ?), x'2f') = 0 ORDER BY +id DESC LIMIT ?",
            (start, end, wall, len(os.fsencode(folder)) + 2, limit),
        )
        found = (job_of(row) for row in rows)
        return [job for job in found if not base or base in (job.source.name, job.source.stem)]

    def made_by_another(self, target: Path, source: Path) -> bool:
        """Whether a name belongs to the result of another source, or will as soon as it is
        published."""
        row = self._db.execute(
            "SELECT 1 FROM jobs WHERE target = ? AND source != ?"
            " AND +state IN ('done', 'publishing') LIMIT 1",
            (os.fsencode(target), os.fsencode(source)),
        ).fetchone()
        return row is not None

    def to_retire(self, behind: int = 0, limit: int = 100) -> list[Job]:
        """Jobs whose sources are still to be moved or removed; those behind a job number, in
        order."""
        rows = self._db.execute(
            "SELECT * FROM jobs WHERE +state = 'done' AND retire != '' AND id > ?"
            " ORDER BY id LIMIT ?",
            (behind, limit),
        )
        return [job_of(row) for row in rows]

    def to_announce(self, limit: int = 100) -> list[Job]:
        rows = self._db.execute(
            "SELECT * FROM jobs WHERE announce ORDER BY changed LIMIT ?", (limit,)
        )
        return [job_of(row) for row in rows]

    def spans(self, limit: int) -> list[Span]:
        """When the latest done jobs were worked on; not of those of which that is unknown."""
        rows = self._db.execute(
            "SELECT rank, size, claimed, changed FROM jobs WHERE state = 'done'"
            " ORDER BY changed DESC, id DESC LIMIT ?",
            (limit,),
        )
        return [Span(*row) for row in rows if 0 < row["claimed"] < row["changed"]]

    def counts(self) -> dict[State, int]:
        rows = self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state")
        found = {State(state): count for state, count in rows}
        return {state: found.get(state, 0) for state in State}

    def next_due(self, now: UnixTime, inboxes: Sequence[Path] | None = None) -> int | None:
        """The number of the job that `Journal.claim` would start; None if there is none."""
        query, values = next_query(now, inboxes)
        row = self._db.execute(query, values).fetchone()
        return int(row[0]) if row else None

    def has_more_urgent_film(self, priority: int, now: UnixTime, inboxes: Sequence[Path]) -> bool:
        """Whether a film of higher priority than this is queued and due.

        Only films that have not been tried count: one that fails again and again would stop the
        others every time.
        """
        where, folders = below(inboxes)
        query = (
            "SELECT 1 FROM jobs WHERE state = 'queued' AND priority > ? AND priority < ?"  # noqa: S608
            f" AND rank > 0 AND code = '' AND +not_before <= ? AND {where} LIMIT 1"
        )
        return self._db.execute(query, (priority, FIRST, now, *folders)).fetchone() is not None

    def queued(self, inboxes: Sequence[Path] | None = None) -> int:
        """How many jobs are queued below these folders, or in all."""
        where, folders = below(inboxes)
        query = f"SELECT count(*) FROM jobs WHERE state = 'queued' AND {where}"  # noqa: S608
        return int(self._db.execute(query, folders).fetchone()[0])


def _among(state: State, search: str) -> tuple[str, tuple[str, ...]]:
    """SQL for "one of `Records.listed`", and its values."""
    if not search:
        return "state = ?", (state,)
    # Names are bytes that need not be text. The inner query reads nothing but the index.
    like = re.sub(r"([%_\\])", r"\\\1", os.fsencode(search).decode(errors="replace"))
    found = (
        "SELECT id FROM jobs INDEXED BY latest WHERE state = ?"
        " AND CAST(source AS TEXT) LIKE ? ESCAPE '\\'"
    )
    return f"id IN ({found})", (state, f"%{like}%")


def _check_file(path: Path, access: int) -> None:
    """Check what SQLite reports with one and the same error. Raises Damaged and ConfigError."""
    if not path.is_file():
        raise Damaged(f"{path}: found a folder or device, expected a file; move it away")
    if not os.access(path, access) and not os.statvfs(path).f_flag & os.ST_RDONLY:
        raise ConfigError(f"{path}: may not be read or written by this user")


def below(folders: Sequence[Path] | None) -> tuple[str, list[bytes]]:
    """SQL for "the source lies below one of these folders", and its values; None is everywhere.

    The + keeps SQLite from using the index of sources, and then sorting all that it finds.
    """
    if folders is None:
        return "1", []
    starts = [os.fsencode(folder).rstrip(b"/") for folder in folders]
    ranges = " OR ".join(["+source > ? AND +source < ?"] * len(starts)) or "0"
    return f"({ranges})", [start + end for start in starts for end in (b"/", b"0")]  # 0 follows /


def next_query(
    now: UnixTime,
    inboxes: Sequence[Path] | None,
    most_rank: int = 99,
    least_priority: int = -FIRST,
    least_rank: int = 0,
) -> tuple[str, tuple[object, ...]]:
    """SQL for the number of the job that is next, and its values; see `Journal.claim`."""
    where, folders = below(inboxes)
    # The + keeps SQLite from using the index of times, and then sorting all that is due.
    query = (
        "SELECT id FROM jobs WHERE state = 'queued' AND +not_before <= ? AND rank BETWEEN ? AND ?"  # noqa: S608
        f" AND priority >= ? AND {where} ORDER BY priority DESC, rank, id LIMIT 1"
    )
    return query, (now, least_rank, most_rank, least_priority, *folders)


def identity_fact(inbox: Path) -> str:
    """The name of the fact that holds the identity of an inbox. A path need not be UTF-8, its URI
    is."""
    return f"inbox {inbox.as_uri()}"
