"""The durable queue: one SQLite table with a row for every file that was ever queued.

A file that is still being copied has no row: after a crash the scan finds it again, so nothing has
to be remembered.

| the power fails …             | on disk afterwards              | next start             |
|-------------------------------|---------------------------------|------------------------|
| while a file is copied in     | the file, no row                | seen, settles          |
| after `add`                   | row queued                      | claimed                |
| while it is worked on         | row running, work folder        | queued; films go on    |
| after `publishing`            | row, with which file it will be | see `deliver`          |
| after the link                | the target, row publishing      | recognized, done       |
| after `finish`                | row done, the source            | source is dealt with   |
| after the source is dealt with | row done, nothing due          | nothing                |

A file is identified by its path, size and mtime. Not by its inode: a share that is mounted again
gives other numbers to all files, and the whole archive would be colored a second time. The numbers
are recorded all the same, so that no other file is read or deleted in place of the one that was
queued.

WAL with synchronous=FULL: with NORMAL the last commits before a power failure may be gone, and a
file would be published twice. WAL does not work on a network file system.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colordaemon.clock import UnixTime
from colordaemon.inbox.stability import Identity
from colordaemon.logs import printable
from colordaemon.media.inventory import Inventory, as_plain
from colordaemon.service.job import NO_INVENTORY, Found, Job, Partial, Reason, State, job_of
from colordaemon.service.records import ABSENT, FIRST, Records, identity_fact, next_query, upgrade

CRASHES = 2  # a file that has killed the worker this often has failed
LARGEST_LOG = 16 << 20  # bytes of the write-ahead log that are kept after a large transaction
UNFINISHED = 10  # starts without progress, whatever ended them, after which a file has failed


class Journal(Records):
    """Every change of a job. Only one process writes."""

    _mode = "rwc"

    def _open(self, path: Path) -> None:
        self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file, before its first page
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA journal_size_limit = {LARGEST_LOG}")
        self._db.execute("PRAGMA synchronous = FULL")
        upgrade(self._db, str(path))
        if not self.fact("token"):
            self.note("token", secrets.token_hex(4))

    def remember(self, inbox: Path, identity: Identity) -> None:
        """Record which folder an inbox is; see `identity_of`."""
        self.note(identity_fact(inbox), " ".join(map(str, identity)))

    def note(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # New jobs

    def add(self, files: Sequence[Found], now: UnixTime) -> int:
        """Queue files; returns how many were new. All in one transaction, but if one row is
        refused, the others are still added."""
        added = 0
        with self._transaction():
            for file in files:
                columns = file.columns()
                added += self._db.execute(
                    f"INSERT INTO jobs ({', '.join(columns)}, state, changed)"  # noqa: S608
                    f" VALUES ({', '.join('?' * len(columns))}, 'queued', ?)"
                    " ON CONFLICT DO UPDATE"
                    " SET state = 'queued', priority = excluded.priority, code = '', reason = '',"
                    " attempts = 0, crashes = 0, changed = excluded.changed,"
                    " device = excluded.device, inode = excluded.inode,"
                    " ctime_ns = excluded.ctime_ns"
                    f" WHERE state = 'cancelled' AND code IN {ABSENT}",
                    (*columns.values(), now),
                ).rowcount
        return added

    def adopt(self, jobs: Sequence[sqlite3.Row], facts: Sequence[sqlite3.Row]) -> int:
        """Copy rows of another journal, of any version; returns how many jobs were copied."""
        adopted = 0
        with self._transaction():
            for table, rows in (("facts", facts), ("jobs", jobs)):
                ours = {row["name"] for row in self._db.execute(f"PRAGMA table_info({table})")}
                for row in rows:
                    values = {name: row[name] for name in row.keys() if name in ours}  # noqa: SIM118
                    marks = ", ".join("?" * len(values))
                    try:
                        self._db.execute(
                            f"INSERT OR REPLACE INTO {table} ({', '.join(values)})"  # noqa: S608
                            f" VALUES ({marks})",
                            [*values.values()],
                        )
                    except sqlite3.IntegrityError:  # an incomplete row
                        continue
                    adopted += table == "jobs"
        return adopted

    def supersede(self, source: Path, size: int, mtime_ns: int, now: UnixTime) -> list[Job]:
        """Cancel queued jobs for older versions of this file; returns them."""
        # The + keeps SQLite from using the index of states, which would visit every queued job.
        rows = self._db.execute(
            "UPDATE jobs SET state = 'cancelled', code = ?, changed = ?,"
            " reason = 'the file has changed since' WHERE source = ? AND +state = 'queued'"
            " AND (size, mtime_ns) != (?, ?) RETURNING *",
            (Reason.CHANGED, now, os.fsencode(source), size, mtime_ns),
        )
        return [job_of(row) for row in rows]

    # Work on jobs

    def claim(
        self,
        now: UnixTime,
        inboxes: Sequence[Path] | None = None,
        *,
        most_rank: int = 99,
        least_priority: int = -FIRST,
        least_rank: int = 0,
    ) -> Job | None:
        """Start the next job that is due and whose source is below one of these folders (None:
        any).

        The attempt is counted before any work begins: a file that crashes the whole machine must
        not do so for ever.
        """
        query, values = next_query(now, inboxes, most_rank, least_priority, least_rank)
        row = self._db.execute(
            "UPDATE jobs SET state = 'running', attempts = attempts + 1, changed = ?, claimed = ?"  # noqa: S608
            f" WHERE id = ({query}) RETURNING *",
            (now, now, *values),
        ).fetchone()
        return job_of(row) if row else None

    def touched(self, job: Job, ctime_ns: int) -> None:
        """Record that a queued file was changed in its mode or links, and is otherwise the same."""
        self._db.execute("UPDATE jobs SET ctime_ns = ? WHERE id = ?", (ctime_ns, job.id))

    def progress(self, job: Job) -> None:
        """Part of the work is finished, so earlier failures no longer count."""
        self._set(job, State.RUNNING, attempts=1, crashes=0)

    def requeue(
        self, job: Job, now: UnixTime, *, code: Reason, reason: str, not_before: float = 0.0,
        counted: bool = True,
    ) -> None:  # fmt: skip
        """Queue a job again. counted: whether this was an attempt, which a stop on request is
        not."""
        attempts = self.job(job.id).attempts - (not counted)
        self._set(
            job, State.QUEUED, now, attempts=max(0, attempts), code=code, reason=reason,
            not_before=not_before,
        )  # fmt: skip

    def crashed(
        self, job: Job, now: UnixTime, reason: str, not_before: float = 0.0, *,
        code: Reason = Reason.CRASH, what: str = "the worker died",
    ) -> State:  # fmt: skip
        """The worker died while it worked on a job; the job fails when that happens a second time.

        what: another event that counts in the same way.
        """
        crashes = self.job(job.id).crashes + 1
        if crashes >= CRASHES:
            state, reason = State.FAILED, f"{what} {crashes} times over it: {reason}"
        else:
            state = State.QUEUED
        announce = int(state is State.FAILED)
        self._set(
            job, state, now, crashes=crashes, code=code, reason=reason, not_before=not_before,
            announce=announce,
        )  # fmt: skip
        return state

    def publishing(
        self, job: Job, target: Path, partial: Partial, now: UnixTime, *, is_whole: bool = True
    ) -> None:
        """Record which name a file is about to get, so that a later start recognizes it.

        is_whole: whether every picture of the source is in it; if not, the source is kept.
        """
        columns = partial.columns()
        retire = "" if is_whole else "keep"
        self._set(job, State.PUBLISHING, now, target=os.fsencode(target), retire=retire, **columns)

    def finish(
        self, job: Job, now: UnixTime, *, reason: str, retire: str, inventory: Inventory = ()
    ) -> None:
        """Done: the target is on the disk. retire: what is left to do with the source, or ''.

        inventory: all that the source holds, and what became of it.
        """
        self._set(
            job, State.DONE, now, code=Reason.NONE, reason=reason, retire=retire, announce=1,
            not_before=0.0, inventory=json.dumps(as_plain(inventory)),
        )  # fmt: skip

    def set_aside(
        self, job: Job, state: State, now: UnixTime, *, code: Reason, reason: str
    ) -> None:
        """Failed, skipped or cancelled."""
        announce = int(state is not State.CANCELLED)
        self._set(job, state, now, code=code, reason=reason, announce=announce)

    def retired(self, job: Job) -> None:
        self._db.execute("UPDATE jobs SET retire = '' WHERE id = ?", (job.id,))

    def announced(self, job: Job) -> None:
        self._db.execute("UPDATE jobs SET announce = 0 WHERE id = ?", (job.id,))

    def announce_nothing(self) -> None:
        """Run no hooks for jobs that have ended so far."""
        self._db.execute("UPDATE jobs SET announce = 0 WHERE announce")

    def recover(self, now: UnixTime) -> list[Job]:
        """Queue what was running when the daemon died; returns what was being published.

        An unfinished start counts as an attempt; after UNFINISHED of them without progress a file
        has failed.
        """
        self._db.execute(
            "UPDATE jobs SET state = 'failed', code = ?, changed = ?, announce = 1,"
            " reason = attempts || ' times begun, and something ended the daemon each time'"
            " WHERE state = 'running' AND attempts >= ?",
            (Reason.UNFINISHED, now, UNFINISHED),
        )
        self._db.execute(
            "UPDATE jobs SET state = 'queued', changed = ? WHERE state = 'running'", (now,)
        )
        return self.jobs(State.PUBLISHING)

    def bring_forward(self, latest: float) -> int:
        """Make jobs due now that would wait until after `latest`; returns how many."""
        query = "UPDATE jobs SET not_before = 0 WHERE state = 'queued' AND not_before > ?"
        return self._db.execute(query, (latest,)).rowcount

    # Commands of the operator

    def retry(self, now: UnixTime, ids: Sequence[int]) -> int:
        """Queue failed, skipped, cancelled and done jobs again, and make queued ones due now.
        Returns how many."""
        query = (
            "UPDATE jobs SET state = 'queued', attempts = 0, crashes = 0, not_before = 0,"
            " changed = ? WHERE id = ?"
            " AND state IN ('failed', 'skipped', 'cancelled', 'queued', 'done')"
        )
        with self._transaction():
            return sum(self._db.execute(query, (now, number)).rowcount for number in ids)

    def forget(self, ids: Sequence[int]) -> int:
        """Delete rows of finished jobs; if their files are still in the inbox, they are new
        then."""
        ends = "('done', 'failed', 'skipped', 'cancelled')"
        query = f"DELETE FROM jobs WHERE id = ? AND state IN {ends}"  # noqa: S608
        with self._transaction():
            return sum(self._db.execute(query, (number,)).rowcount for number in ids)

    def drop_inventories(self, ids: Sequence[int]) -> None:
        """Delete the inventories of finished jobs, and keep their rows."""
        with self._transaction():
            self._db.executemany(
                "UPDATE jobs SET inventory = ? WHERE id = ?",
                [(NO_INVENTORY, number) for number in ids],
            )

    def shrink(self, pages: int) -> bool:
        """Give up to `pages` free pages back to the disk, at the next checkpoint. Returns whether
        there were any."""
        if not self.can_shrink or not self.free_bytes:
            return False
        # As a script, since `execute` would run only the first of its many steps.
        self._db.executescript(f"PRAGMA incremental_vacuum({pages})")
        return True

    def compact(self) -> None:
        """Rewrite the file without free pages; from then on `shrink` works."""
        self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("VACUUM")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def cancel(self, ids: Sequence[int], now: UnixTime) -> int:
        """Cancel queued jobs; returns how many."""
        query = (
            "UPDATE jobs SET state = 'cancelled', code = ?, reason = 'cancelled by command',"
            " changed = ? WHERE id = ? AND state = 'queued'"
        )
        with self._transaction():
            done = (self._db.execute(query, (Reason.ASKED, now, number)) for number in ids)
            return sum(each.rowcount for each in done)

    def put_first(self, ids: Sequence[int]) -> int:
        """Move jobs to the front of the queue, in this order; returns how many."""
        query = (
            "UPDATE jobs SET not_before = 0, priority ="
            " 1 + (SELECT max(?, max(priority)) FROM jobs WHERE state = 'queued')"
            " WHERE id = ? AND state = 'queued'"
        )
        with self._transaction():
            return sum(
                self._db.execute(query, (FIRST, number)).rowcount for number in reversed(ids)
            )

    def prioritize(self, ids: Sequence[int], priority_of: Callable[[Path], int]) -> int:
        """Set the priorities of queued jobs by the settings; jobs that were put first stay
        first."""
        query = (
            "SELECT id, source, priority FROM jobs"  # noqa: S608  (the +: by their numbers)
            f" WHERE id IN ({', '.join('?' * len(ids))}) AND +state = 'queued' AND priority < ?"
        )
        with self._transaction():
            rows = self._db.execute(query, (*ids, FIRST)).fetchall()
            changed = [
                (priority, row["id"])
                for row in rows
                if (priority := priority_of(Path(os.fsdecode(row["source"])))) != row["priority"]
            ]
            self._db.executemany("UPDATE jobs SET priority = ? WHERE id = ?", changed)
        return len(changed)

    def _set(self, job: Job, state: State, now: UnixTime | None = None, **values: Any) -> None:
        if now is not None:
            values["changed"] = now
        if "reason" in values:  # it may hold a file name that is not UTF-8, which SQLite refuses
            values["reason"] = printable(values["reason"])
        values["state"] = state
        columns = ", ".join(f"{name} = ?" for name in values)
        query = f"UPDATE jobs SET {columns} WHERE id = ?"  # noqa: S608  (our own names)
        self._db.execute(query, (*values.values(), job.id))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
