"""The journal: a queue on a disk, which survives whatever happens to its process."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from colordaemon.clock import UnixTime
from colordaemon.service import records
from colordaemon.service.job import Found, Job, Partial, Reason, State
from colordaemon.service.journal import CRASHES, UNFINISHED, Journal
from colordaemon.service.records import VERSION, Damaged, JournalVersion, Records, below, may_pass


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal") as journal:
        yield journal


def photo(name: str = "a.png", size: int = 1, priority: int = 0) -> Found:
    return Found(Path("/in") / name, size, 1_000, rank=0, priority=priority)


def film(name: str = "f.mp4", priority: int = 0) -> Found:
    return Found(Path("/in") / name, 1, 1_000, rank=1, priority=priority)


def claim(journal: Journal, now: float = 1.0) -> Job:
    job = journal.claim(UnixTime(now))
    assert job is not None
    return job


def test_a_file_is_queued_once_however_often_it_is_found(journal: Journal) -> None:
    assert journal.add([photo(), photo("b.png"), photo()], UnixTime(1.0)) == 2
    assert journal.add([photo()], UnixTime(2.0)) == 0
    job = claim(journal)
    journal.finish(job, UnixTime(3.0), reason="", retire="")
    assert journal.add([photo()], UnixTime(4.0)) == 0
    assert [*journal.unknown([photo(), photo("b.png"), photo("c.png")])] == [photo("c.png")]


def test_new_content_under_an_old_name_is_a_new_job(journal: Journal) -> None:
    journal.add([photo(size=1)], UnixTime(1.0))
    journal.supersede(photo().path, 2, 1_000, UnixTime(2.0))
    journal.add([photo(size=2)], UnixTime(2.0))
    assert [job.size for job in journal.jobs(State.QUEUED)] == [2]
    assert [job.code for job in journal.jobs(State.CANCELLED)] == ["changed"]


def test_photos_go_before_films_and_priority_before_both(journal: Journal) -> None:
    journal.add(
        [film("1.mp4"), photo("2.png"), film("3.mp4", priority=1), photo("4.png")], UnixTime(1.0)
    )
    order = []
    while job := journal.claim(UnixTime(2.0)):
        order.append(job.source.name)
        journal.finish(job, UnixTime(2.0), reason="", retire="")
    assert order == ["3.mp4", "2.png", "4.png", "1.mp4"]


@pytest.mark.parametrize(
    "name",
    ["ü\n\t.png", os.fsdecode(b"\xff\xfe.png"), "日本" * 40 + ".png", "'; DROP TABLE jobs;--.png"],
)
def test_any_name_comes_back_as_it_is(journal: Journal, name: str) -> None:
    journal.add([photo(name)], UnixTime(1.0))
    assert claim(journal).source == Path("/in") / name
    assert [job.source.name for job in journal.of_source(Path("/in") / name)] == [name]


def test_a_reason_may_name_a_file_whose_name_is_no_text(journal: Journal) -> None:
    journal.add([photo()], UnixTime(1.0))
    reason = f"Permission denied ({os.fsdecode(bytes([0xE9]))}.png)"
    journal.set_aside(claim(journal), State.FAILED, UnixTime(2.0), code=Reason.NONE, reason=reason)
    assert [job.reason for job in journal.jobs(State.FAILED)] == [r"Permission denied (\udce9.png)"]


def test_an_attempt_is_counted_before_the_work_begins(journal: Journal, tmp_path: Path) -> None:
    journal.add([photo()], UnixTime(1.0))
    assert claim(journal).attempts == 1
    with Records(tmp_path / "journal") as other:
        assert other.job(1).attempts == 1


def test_a_polite_stop_is_no_attempt(journal: Journal) -> None:
    journal.add([photo()], UnixTime(1.0))
    journal.requeue(claim(journal), UnixTime(2.0), code=Reason.STOPPED, reason="", counted=False)
    assert (journal.job(1).state, journal.job(1).attempts) == (State.QUEUED, 0)


def test_a_job_that_waits_is_not_due_before_its_time(journal: Journal) -> None:
    journal.add([photo()], UnixTime(1.0))
    journal.requeue(claim(journal), UnixTime(2.0), code=Reason.MACHINE, reason="", not_before=100.0)
    assert journal.claim(UnixTime(99.9)) is None
    assert claim(journal, 100.0).attempts == 2


def test_a_file_that_kills_the_worker_is_set_aside_and_its_neighbor_is_not(
    journal: Journal,
) -> None:
    journal.add([photo(), photo("b.png")], UnixTime(1.0))
    states = [journal.crashed(claim(journal), UnixTime(2.0), "signal 11") for _ in range(CRASHES)]
    assert states == [State.QUEUED, State.FAILED]
    assert "died 2 times over it: signal 11" in journal.job(1).reason
    assert claim(journal).source.name == "b.png"


def test_a_film_that_gets_on_is_not_set_aside(journal: Journal) -> None:
    journal.add([film()], UnixTime(1.0))
    for _ in range(10):
        job = claim(journal)
        journal.progress(job)
        assert journal.crashed(job, UnixTime(2.0), "out of memory") is State.QUEUED


def test_what_was_running_is_queued_again_but_not_for_ever(journal: Journal) -> None:
    journal.add([film(), film("g.mp4")], UnixTime(1.0))
    for _ in range(UNFINISHED):
        assert claim(journal).source.name == "f.mp4"
        assert journal.recover(UnixTime(2.0)) == []
    assert (journal.job(1).state, journal.job(1).code) == (State.FAILED, "unfinished")
    assert claim(journal).source.name == "g.mp4"


def test_recovery_is_told_which_file_was_being_published(journal: Journal, tmp_path: Path) -> None:
    journal.add([photo()], UnixTime(1.0))
    path = tmp_path / "x.partial"
    path.write_bytes(b"1234")
    partial = Partial.of(path)
    journal.publishing(claim(journal), tmp_path / "x.png", partial, UnixTime(2.0))
    (job,) = journal.recover(UnixTime(3.0))
    assert (job.target, job.partial) == (tmp_path / "x.png", partial)
    assert partial.is_at(path) and not partial.is_at(tmp_path)


def test_inode_numbers_of_all_64_bits_are_kept(journal: Journal) -> None:
    journal.add([photo()], UnixTime(1.0))
    partial = Partial(Path("/x"), 2**63 + 5, 7)
    journal.publishing(claim(journal), Path("/t"), partial, UnixTime(2.0))
    assert journal.job(1).partial == partial


def test_what_is_due_after_the_end_is_remembered_until_it_is_done(journal: Journal) -> None:
    journal.add([photo()], UnixTime(1.0))
    job = claim(journal)
    journal.finish(job, UnixTime(2.0), reason="ok", retire="delete")
    assert [job.retire for job in journal.to_retire()] == ["delete"]
    assert [job.id for job in journal.to_announce()] == [job.id]
    journal.retired(job)
    journal.announced(job)
    assert journal.to_retire() == journal.to_announce() == []
    journal.set_aside(job, State.FAILED, UnixTime(3.0), code=Reason.MEDIA, reason="no")
    journal.announce_nothing()
    assert journal.to_announce() == []
    journal.finish(job, UnixTime(4.0), reason="ok", retire="")
    assert journal.job(1).state is State.DONE


def test_the_operator_retries_forgets_and_cancels(journal: Journal) -> None:
    journal.add([photo(f"{number}.png") for number in range(4)], UnixTime(1.0))
    failed, skipped = claim(journal), claim(journal)
    journal.set_aside(failed, State.FAILED, UnixTime(2.0), code=Reason.MEDIA, reason="no")
    journal.set_aside(skipped, State.SKIPPED, UnixTime(2.0), code=Reason.COLOR, reason="no")
    assert journal.cancel([3, failed.id, 99], UnixTime(3.0)) == 1
    assert journal.ids(State.FAILED) == [failed.id]
    assert journal.retry(UnixTime(3.0), [failed.id, skipped.id]) == 2
    assert (journal.job(1).state, journal.job(1).attempts) == (State.QUEUED, 0)
    assert journal.forget([3, 4]) == 1  # the fourth has not come to an end
    assert [*journal.unknown([photo("2.png"), photo("3.png")])] == [photo("2.png")]


def test_what_is_put_first_is_done_first_in_the_given_order(journal: Journal) -> None:
    journal.add([photo(f"{number}.png") for number in range(3)] + [film()], UnixTime(1.0))
    assert journal.put_first([4, 3]) == 2
    assert [claim(journal).id for _ in range(4)] == [4, 3, 1, 2]


def test_what_was_put_first_stays_above_every_priority(journal: Journal) -> None:
    journal.add([photo("low.png"), photo("high.png", priority=1000)], UnixTime(1.0))
    journal.put_first([1])
    journal.add([photo("later.png", priority=1000)], UnixTime(2.0))
    assert (
        journal.prioritize([1, 2, 3], lambda source: 3 if source.name == "later.png" else 1000) == 1
    )
    assert [claim(journal).source.name for _ in range(3)] == ["low.png", "high.png", "later.png"]


def test_what_waits_takes_the_priorities_of_other_settings(journal: Journal) -> None:
    journal.add([photo("a.png"), photo("b.png"), photo("c.png")], UnixTime(1.0))
    running = claim(journal)
    assert journal.prioritize([1, 2, 3], lambda source: int(source.name == "c.png")) == 1
    assert journal.prioritize([1, 2, 3], lambda source: int(source.name == "c.png")) == 0
    assert journal.job(running.id).priority == 0
    assert claim(journal).source.name == "c.png"


def test_only_files_of_the_inboxes_asked_for_are_claimed(journal: Journal) -> None:
    names = ["in", "in-2", "in0", os.fsdecode(b"\xff"), "in/deep"]
    journal.add([Found(Path("/") / name / "a.png", 1, 1) for name in names], UnixTime(1.0))
    assert journal.claim(UnixTime(1.0), []) is None
    assert journal.claim(UnixTime(1.0), [Path("/elsewhere")]) is None
    assert [journal.queued([Path("/in")]), journal.queued([Path("/in"), Path("/in0")])] == [2, 3]
    for inbox in ("/in0", os.fsdecode(b"/\xff"), "/in-2", "/in", "/in"):
        job = journal.claim(UnixTime(1.0), [Path(inbox)])
        assert job is not None and job.source.is_relative_to(inbox)
    assert journal.claim(UnixTime(1.0), [Path("/in")]) is None


def test_a_name_that_is_about_to_be_given_is_taken(journal: Journal, tmp_path: Path) -> None:
    journal.add([photo()], UnixTime(1.0))
    (tmp_path / "x.partial").touch()
    journal.publishing(
        claim(journal), Path("/out/a"), Partial.of(tmp_path / "x.partial"), UnixTime(2.0)
    )
    assert journal.made_by_another(Path("/out/a"), photo("b.png").path)
    assert not journal.made_by_another(Path("/out/a"), photo().path)


def test_a_film_is_more_urgent_only_by_the_settings_and_until_it_was_tried(
    journal: Journal,
) -> None:
    def more_urgent() -> bool:
        return journal.has_more_urgent_film(0, UnixTime(1.0), [Path("/in")])

    journal.add([film("same.mp4"), photo(priority=5)], UnixTime(1.0))
    journal.put_first([1])
    assert not more_urgent()
    journal.add([film("urgent.mp4", priority=5)], UnixTime(1.0))
    assert more_urgent()
    assert not journal.has_more_urgent_film(5, UnixTime(1.0), [Path("/in")])
    assert not journal.has_more_urgent_film(0, UnixTime(1.0), [Path("/other")])
    journal.requeue(journal.job(3), UnixTime(1.0), code=Reason.SPACE, reason="")
    assert not more_urgent()


def test_a_file_that_was_gone_and_is_back_is_queued_again(journal: Journal) -> None:
    journal.add([photo()], UnixTime(1.0))
    journal.set_aside(claim(journal), State.CANCELLED, UnixTime(2.0), code=Reason.GONE, reason="")
    assert [*journal.unknown([photo()])] == [photo()]
    assert journal.add([photo()], UnixTime(3.0)) == 1
    assert claim(journal, 4.0).id == 1


def test_a_commit_is_on_the_disk(journal: Journal) -> None:
    settings = [
        journal._db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous")
    ]
    assert settings == ["wal", 2]


def test_a_journal_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    with pytest.raises(JournalVersion, match="made by a newer colordaemon"):
        Journal(path)


def test_no_question_that_is_asked_at_every_turn_reads_the_whole_table(journal: Journal) -> None:
    where, folders = below([Path("/in"), Path("/other")])
    questions = {
        "SELECT min(not_before) FROM jobs WHERE state = 'queued'": "due",
        "SELECT * FROM jobs WHERE announce ORDER BY changed LIMIT 1": "unannounced",
        "SELECT state, count(*) FROM jobs GROUP BY state": "COVERING INDEX",
        "SELECT id FROM jobs WHERE state = 'queued' AND +not_before <= 1 AND rank <= 1"
        " ORDER BY priority DESC, rank, id LIMIT 1": "order_of_work",
        "SELECT min(not_before) FROM jobs WHERE state = 'queued' AND BELOW": "due",
        "SELECT id FROM jobs WHERE state = 'queued' AND +not_before <= 1 AND rank <= 1"
        " AND priority >= 1 AND BELOW ORDER BY priority DESC, rank, id LIMIT 1": "order_of_work",
        "SELECT 1 FROM jobs WHERE state = 'queued' AND priority > 1 AND priority < 9 AND rank > 0"
        " AND code = '' AND +not_before <= 1 AND BELOW LIMIT 1": "order_of_work",
    }
    for question, index in questions.items():
        values = folders if "BELOW" in question else []
        asked = "EXPLAIN QUERY PLAN " + question.replace("BELOW", where)
        plan = journal._db.execute(asked, values).fetchall()
        assert [index in row["detail"] for row in plan] == [True], question


def test_ten_thousand_files_are_queued_in_one_go(journal: Journal) -> None:
    files = [photo(f"{number}.png") for number in range(10_000)]
    assert journal.add(files, UnixTime(1.0)) == 10_000
    assert [*journal.unknown(files)] == []
    assert journal.counts()[State.QUEUED] == 10_000


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.write_bytes(os.urandom(20_000)), "is damaged .*journal rebuild"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "is damaged .*journal rebuild"),
        (lambda path: (path.unlink(), path.mkdir()), "found a folder"),
    ],
    ids=["garbage", "truncated", "a folder"],
)
def test_a_journal_that_is_none_is_told_with_the_remedy(
    tmp_path: Path, spoil: Callable[[Path], object], told: str
) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.add([photo()], UnixTime(1.0))
    spoil(path)
    for kind in (Journal, Records):
        with pytest.raises(Damaged, match=told), kind(path) as opened:
            opened.counts()


def test_damage_that_shows_later_is_told_as_well(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with pytest.raises(Damaged, match="no such table: facts"), Journal(path) as journal:
        with sqlite3.connect(path) as other:
            other.execute("DROP TABLE facts")
        other.close()
        journal.note("alive", "1")


def test_a_journal_that_another_program_holds_may_be_free_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_BUSY_SECONDS", 0.1)
    path = tmp_path / "journal"
    with Journal(path):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as caught, Journal(path) as journal:
            journal.note("alive", "1")
    assert may_pass(caught.value)


def test_what_is_asked_for_each_file_takes_no_longer_with_all_that_is_known(
    journal: Journal,
) -> None:
    """Steps of SQLite, with few and with many rows in any state."""

    def steps() -> int:
        counted = []
        journal._db.set_progress_handler(lambda: counted.append(1), 1)
        journal.supersede(Path("/in/new.png"), 1, 1, UnixTime(2.0))
        journal.to_retire()
        journal.made_by_another(Path("/out/new.png"), Path("/in/new.png"))
        assert [*journal.unknown([photo("new.png")])]
        journal.claim(UnixTime(3.0), [Path("/in")])
        journal._db.set_progress_handler(None, 0)
        return len(counted)

    def more(count: int) -> None:
        before = journal.last_id
        journal.add([photo(f"{before + number}.png") for number in range(2 * count)], UnixTime(1.0))
        journal._db.execute(
            "UPDATE jobs SET state = 'done', target = source WHERE id > ? AND id % 2", (before,)
        )

    more(10)
    few = steps()
    more(1000)
    assert steps() < 2 * few
