"""Jobs that ended long ago are forgotten where nothing on the disks depends on them."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from daemons import Daemon
from programs import stand_in

from colordaemon.clock import Monotonic, UnixTime
from colordaemon.config import Config, JournalSettings, OutputSettings
from colordaemon.convert.routing import Routing
from colordaemon.inbox.folders import Folders
from colordaemon.inbox.stability import signature_of
from colordaemon.media.inventory import Entry
from colordaemon.service import journal_upkeep
from colordaemon.service.inboxes import Intake
from colordaemon.service.job import ENDS, NO_INVENTORY, Found, Job, Reason, State
from colordaemon.service.journal import Journal
from colordaemon.service.journal_upkeep import DAY, PAUSE_SECONDS, Pruning, check, rebuild, vacuum
from colordaemon.service.lifecycle import JobLifecycle
from colordaemon.service.records import UPGRADES, Records

LATE = UnixTime(1e9)  # Unix seconds, long after all that happens here
INVENTORY = (Entry("sound", "AAC"),)


class House:
    """Folders and a journal. Its clock stands still, or goes on by `step` at each look."""

    def __init__(self, root: Path, config: Config, step: float = 0.0) -> None:
        self.folders = Folders(root / "in", root / "out", root / "state")
        for folder in (self.folders.inbox, self.folders.outbox, self.folders.state):
            folder.mkdir(exist_ok=True)
        self.config = config
        self.journal = Journal(self.folders.journal)
        self.ends = JobLifecycle(self.journal, self.folders, Routing(config))
        self.now = Monotonic(0.0)
        clock = count(0.0, step)
        self.pruning = Pruning(
            self.journal, config.journal, lambda source: self.ends, lambda: next(clock)
        )

    def end(self, name: str, state: State = State.DONE, retire: str = "") -> Job:
        """A source that came to this end."""
        source = self.folders.inbox / name
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(b"gray")
        found = signature_of(source)
        assert found is not None
        times = found.device, found.inode, found.ctime_ns
        self.journal.add([Found(source, found.size, found.mtime_ns, 0, 0, *times)], UnixTime(1.0))
        (job, *_) = self.journal.of_source(source)
        if state is State.DONE:
            self.journal.finish(job, UnixTime(2.0), reason="", retire=retire, inventory=INVENTORY)
        elif state in ENDS:
            self.journal.set_aside(job, state, UnixTime(2.0), code=Reason.ASKED, reason="")
        self.journal.announced(job)
        return job

    def prune(self, wall: UnixTime = LATE) -> list[str]:
        """One look through the whole journal; returns whose jobs are left."""
        self.now = Monotonic(self.now + DAY)
        self.pruning.turn(self.now, wall)
        while self.pruning.due_at < self.now + DAY:
            self.now = Monotonic(self.pruning.due_at)
            self.pruning.turn(self.now, wall)
        return [job.source.name for job in self.journal.following(0, 10_000)]

    def knows(self, job: Job) -> bool:
        return Intake(self.journal).knows(job.source, job.queued)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, Config())
    with house.journal:
        yield house


@pytest.mark.parametrize("state", ENDS)
def test_what_ended_long_ago_goes_with_its_source(house: House, state: State) -> None:
    kept, gone = house.end("kept.png", state), house.end("gone.png", state)
    house.end("last.png")
    gone.source.unlink()
    assert house.prune() == ["kept.png", "last.png"]
    assert house.knows(kept) and not house.knows(gone)


def test_a_row_that_has_to_stay_loses_its_inventory(house: House) -> None:
    old = house.end("old.png")
    assert house.journal.job(old.id).inventory != NO_INVENTORY
    house.prune()
    assert house.journal.job(old.id).inventory == NO_INVENTORY


@pytest.mark.parametrize("days", [None, 0.0, 20_000.0])
def test_what_is_young_enough_stays_as_it_is(tmp_path: Path, days: float | None) -> None:
    house = House(tmp_path, Config(journal=JournalSettings(keep_days=days)))
    with house.journal:
        for name in ("a.png", "b.png"):
            house.end(name).source.unlink()
        assert house.prune() == ["a.png", "b.png"]
        assert all(job.inventory != NO_INVENTORY for job in house.journal.jobs(State.DONE))


@pytest.mark.parametrize("has_hook", [False, True])
def test_what_is_still_to_be_done_or_told_stays_whole(house: House, has_hook: bool) -> None:
    house.journal.note("hook", "yes" if has_hook else "")
    house.end("queued.png", State.QUEUED).source.unlink()
    house.end("due.png", retire="move").source.unlink()
    untold = house.end("untold.png")
    untold.source.unlink()
    house.journal.finish(untold, UnixTime(2.0), reason="", retire="", inventory=INVENTORY)
    house.end("last.png")
    left = house.prune()
    assert left == ["queued.png", "due.png", *["untold.png"] * has_hook, "last.png"]
    if has_hook:
        assert house.journal.job(untold.id).inventory != NO_INVENTORY


def move_inbox(house: House) -> None:
    house.folders.inbox.rename(house.folders.inbox.with_name("elsewhere"))


def replace_inbox(house: House) -> None:
    move_inbox(house)
    house.folders.inbox.mkdir()


def link_folder(house: House) -> None:
    folder = house.folders.inbox / "sub"
    folder.rename(house.folders.outbox / "sub")
    folder.symlink_to(house.folders.outbox / "sub")


def lie_on_another_disk(house: House) -> None:
    (house.folders.inbox / "sub" / "a.png").unlink()
    house.journal._db.execute("UPDATE jobs SET device = device + 1")


@pytest.mark.parametrize("hide", [move_inbox, replace_inbox, link_folder, lie_on_another_disk])
def test_what_cannot_be_seen_may_be_there(house: House, hide: Callable[[House], None]) -> None:
    found = house.folders.inbox.stat()
    house.journal.remember(house.folders.inbox, (found.st_dev, found.st_ino))
    job = house.end("sub/a.png")
    house.end("last.png")
    hide(house)
    assert house.prune() == ["a.png", "last.png"]
    assert house.knows(job)


def test_a_source_that_has_new_content_keeps_nothing_of_the_old(house: House) -> None:
    house.end("a.png").source.write_bytes(b"another")
    house.end("last.png")
    assert house.prune() == ["last.png"]


def test_results_that_others_could_replace_stay_known(tmp_path: Path) -> None:
    house = House(tmp_path, Config(output=OutputSettings(overwrite=True)))
    with house.journal:
        house.end("done.png").source.unlink()
        house.end("failed.png", State.FAILED).source.unlink()
        house.end("last.png")
        assert house.prune() == ["done.png", "last.png"]


def test_the_number_of_a_job_is_never_given_to_another(house: House) -> None:
    last = house.end("last.png")
    last.source.unlink()
    assert house.prune() == ["last.png"]
    assert house.end("next.png").id == last.id + 1
    assert house.prune() == ["next.png"]


@pytest.mark.parametrize("step", [0.0, 2 * journal_upkeep.SLICE_SECONDS])
def test_a_turn_looks_at_a_few_jobs_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """Few in number, and one alone where a look at a file takes long."""
    monkeypatch.setattr(journal_upkeep, "ROWS", 3)
    house = House(tmp_path, Config(), step)
    with house.journal:
        for number in range(8):
            house.end(f"{number}.png").source.unlink()
        left = []
        while house.pruning.due_at <= house.now:
            house.pruning.turn(house.now, LATE)
            left.append(sum(house.journal.counts().values()))
            house.now = Monotonic(house.now + PAUSE_SECONDS)
    assert left[:3] == ([7, 6, 5] if step else [5, 2, 1])
    assert left[-1] == 1


def fill(house: House, jobs: int = 300) -> int:
    """Long lists of what sources held that are gone; returns the bytes of the journal."""
    house.journal._db.execute("PRAGMA synchronous = OFF")
    for number in range(jobs):
        house.end(f"{number}.png").source.unlink()
    house.journal._db.execute("UPDATE jobs SET inventory = printf('[%.4000c]', ' ')")
    house.journal._db.execute("PRAGMA wal_checkpoint")
    return house.folders.journal.stat().st_size


def test_the_disk_gets_the_space_back(house: House) -> None:
    before = fill(house)
    assert house.prune() == ["299.png"]
    assert house.journal.free_bytes == 0
    house.journal._db.execute("PRAGMA wal_checkpoint")
    assert house.folders.journal.stat().st_size < before / 20


def test_a_journal_of_an_older_version_gives_space_back_once_it_was_vacuumed(
    tmp_path: Path,
) -> None:
    (tmp_path / "state").mkdir()
    with closing(sqlite3.connect(tmp_path / "state" / "journal.sqlite3")) as db:
        db.executescript(f"{UPGRADES[0]} PRAGMA user_version = 1;")
    house = House(tmp_path, Config())
    with house.journal:
        before = fill(house)
        assert house.prune() == ["299.png"] and house.journal.free_bytes > before / 2
    folders = house.folders
    config = Config(inbox=folders.inbox, outbox=folders.outbox, state_dir=folders.state)
    assert "journal vacuum" in check(config)
    vacuum(config)
    assert folders.journal.stat().st_size < before / 20
    assert "0 of them free" in check(config) and "vacuum" not in check(config)
    assert rebuild(config).kept == 1


def test_a_daemon_forgets_what_is_gone_and_colors_nothing_twice(tmp_path: Path) -> None:
    """A real daemon: those that lie there are known, and the others are forgotten."""
    more = "journal: {keep_days: 0.000001}"
    daemon = Daemon(tmp_path / "place", Path("none"), more=more, work=stand_in.main)
    with closing(daemon):
        daemon.start()
        names = ("kept.png", "gone.png", "last.png")
        for number, name in enumerate(names):
            (daemon.inbox / name).write_bytes(b"gray")
            daemon.wait_for_ends(number + 1)
        (daemon.inbox / "gone.png").unlink()
        daemon.signal(signal.SIGHUP)  # which looks through the journal anew
        daemon.wait(lambda: {job.source.name for job in daemon.jobs()} == {"kept.png", "last.png"})
        assert daemon.ask("status")["counts"]["done"] == 2
        assert daemon.stop() == 0
        daemon.start()  # and looks at the whole inbox
        (daemon.inbox / "new.png").write_bytes(b"gray")
        daemon.wait_for_ends(3)
        assert daemon.stop() == 0
        with Records(daemon.root / "state" / "journal.sqlite3") as records:
            assert sorted(job.id for job in records.jobs(State.DONE)) == [1, 3, 4]
    results = [f"{name}.color.png" for name in ("gone", "kept", "last", "new")]
    assert daemon.results == results
