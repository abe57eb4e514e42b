"""A new journal in place of a damaged one: nothing that is published is colored again."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from colordaemon.clock import UnixTime
from colordaemon.config import Config
from colordaemon.errors import ConfigError
from colordaemon.inbox.folders import find_folders
from colordaemon.inbox.stability import signature_of
from colordaemon.service.job import Found, Partial, State
from colordaemon.service.journal import Journal
from colordaemon.service.journal_upkeep import check, rebuild
from colordaemon.service.records import Damaged, Records

COUNT = 200


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A journal of many photos that are done, whose sources and results are there."""
    config = Config(inbox=tmp_path / "in", outbox=tmp_path / "out", state_dir=tmp_path / "state")
    for folder in ("in/sub", "out/sub", "state"):
        (tmp_path / folder).mkdir(parents=True)
    with Journal(tmp_path / "state" / "journal.sqlite3") as journal:
        journal._db.execute("PRAGMA synchronous = OFF")
        journal.note("token", "abcd")
        for number in range(COUNT):
            source, result = (
                tmp_path / "in" / "sub" / f"{number}.png",
                tmp_path / "out" / "sub" / f"{number}.color.png",
            )
            source.write_bytes(b"gray")
            result.write_bytes(b"color")
            os.utime(result, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
            found = signature_of(source)
            assert found is not None
            journal.add([Found(source, found.size, found.mtime_ns)], UnixTime(1.0))
            job = journal.claim(UnixTime(1.0))
            assert job is not None
            journal.publishing(job, result, Partial.of(result), UnixTime(1.0))
            journal.finish(job, UnixTime(1.0), reason="", retire="")
    return config


def damage(journal: Path) -> None:
    """Pages in the middle; the first one and the schema stay."""
    with closing(sqlite3.connect(journal)) as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    with journal.open("r+b") as file:
        file.seek(4096 * (pages // 2))
        file.write(os.urandom(2 * 4096))


def done(journal: Path) -> set[str]:
    with Records(journal) as records:
        return {job.source.name for job in records.jobs(State.DONE)}


def test_a_journal_that_is_well_says_its_size(config: Config) -> None:
    assert f"no damage; {COUNT} jobs" in check(config)
    assert "-wal" not in check(config)


def test_what_a_running_daemon_has_written_beside_the_journal_is_counted(config: Config) -> None:
    path = find_folders(config)[0].journal
    with Journal(path) as running:
        running.note("alive", "1")
        size = path.with_name(f"{path.name}-wal").stat().st_size
        assert size > 0 and f" bytes (and {size} in {path.name}-wal), " in check(config)


@pytest.mark.parametrize("is_garbage", [False, True])
def test_a_damaged_journal_begins_anew_and_forgets_nothing(
    config: Config, tmp_path: Path, is_garbage: bool
) -> None:
    journal = tmp_path / "state" / "journal.sqlite3"
    if is_garbage:
        journal.write_bytes(os.urandom(20_000))
    else:
        damage(journal)
    with pytest.raises(Damaged, match="journal rebuild"):
        check(config)
    rebuilt = rebuild(config)
    assert (rebuilt.kept == 0) is is_garbage
    assert rebuilt.kept < COUNT and rebuilt.kept + rebuilt.recognized == COUNT
    assert rebuilt.old is not None and rebuilt.old.exists()
    assert done(journal) == {f"{number}.png" for number in range(COUNT)}
    assert f"no damage; {COUNT} jobs" in check(config)
    with Records(journal) as records:
        assert not records.to_announce()
        assert (records.fact("token") != "abcd") is is_garbage


def test_a_source_whose_result_is_another_files_is_new(config: Config, tmp_path: Path) -> None:
    (tmp_path / "state" / "journal.sqlite3").write_bytes(b"no journal")
    os.utime(tmp_path / "out" / "sub" / "7.color.png", (5, 5))
    (tmp_path / "out" / "sub" / "8.color.png").unlink()
    assert rebuild(config).recognized == COUNT - 2


def test_a_newer_journal_is_left_behind_with_all_that_is_known_of_it(
    config: Config, tmp_path: Path
) -> None:
    journal = tmp_path / "state" / "journal.sqlite3"
    with closing(sqlite3.connect(journal)) as db:
        db.executescript("PRAGMA user_version = 99; ALTER TABLE jobs ADD COLUMN mood TEXT;")
    with pytest.raises(ConfigError, match="made by a newer colordaemon"), Journal(journal):
        pass
    assert rebuild(config).kept == COUNT
    assert len(done(journal)) == COUNT
