"""The tables of the journal, and how those of older versions become them."""

from __future__ import annotations

import sqlite3

from colordaemon.errors import ConfigError

VERSION = 5
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
    # What is asked for again and again must not take longer with every file that was ever done.
    4: "CREATE INDEX unretired ON jobs (id) WHERE retire != '';"
    " CREATE INDEX results ON jobs (target) WHERE target IS NOT NULL;",
}


class JournalVersion(ConfigError):
    """A journal of another version: newer, or not upgraded yet."""


def upgrade(db: sqlite3.Connection, name: str = "the journal") -> None:
    """Bring a journal to this version, each step in one transaction. Raises JournalVersion.

    name: which it is.
    """
    version = version_of(db)
    if version > VERSION:
        raise JournalVersion(
            f"{name}: version {version}, expected {VERSION}: made by a newer colordaemon; install "
            "that again, or begin anew with `colordaemon journal rebuild`"
        )
    for step in range(version, VERSION):
        db.executescript(
            f"BEGIN IMMEDIATE; {UPGRADES[step]} PRAGMA user_version = {step + 1}; COMMIT;"
        )


def version_of(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
