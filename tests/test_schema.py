"""A journal that an older version has left is taken over with all it knows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from colordaemon.clock import UnixTime
from colordaemon.service.journal import Journal
from colordaemon.service.records import UPGRADES, VERSION, Records


def test_a_journal_of_the_first_version_keeps_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"{UPGRADES[0]} PRAGMA user_version = 1;")
        db.execute(
            "INSERT INTO jobs (source, size, mtime_ns, rank, priority, state, changed, partial,"
            " partial_device, partial_inode, partial_size)"
            " VALUES (x'2f61', 1, 2, 0, 0, 'publishing', 3.0, x'2f62', 4, 5, 6)"
        )
        db.commit()
    with Journal(path) as journal:
        (job,) = journal.recover(UnixTime(4.0))
        assert job.source == Path("/a") and job.partial is not None
        assert (job.queued.size, job.queued.inode) == (1, 0)
        assert (job.partial.path, job.partial.size, job.partial.digest) == (Path("/b"), 6, "")
    with Records(path) as records:  # which refuses any other version
        assert records.job(1).partial == job.partial
    assert sorted(UPGRADES) == [*range(VERSION)]
