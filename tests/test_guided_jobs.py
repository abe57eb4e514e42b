"""What a daemon does with pictures that guide colors: it waits for them, moves them along with
their sources, and says which have come too late."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from conftest import Start
from daemons import Daemon
from films import SIZE, make_film
from photos import save

from colordaemon.clock import Clock, Monotonic, UnixTime
from colordaemon.config import AfterSettings, Config, WatchSettings
from colordaemon.convert.routing import Routing
from colordaemon.errors import ConfigError
from colordaemon.inbox.folders import Folders
from colordaemon.inbox.scan import list_ignored, scan
from colordaemon.inbox.stability import signature_of
from colordaemon.inbox.watcher import Watch
from colordaemon.service.control import Commands
from colordaemon.service.job import Found, Job, Reason, State
from colordaemon.service.journal import Journal
from colordaemon.service.late_sidecars import CHECK_SECONDS, LateSidecars
from colordaemon.service.lifecycle import JobLifecycle
from colordaemon.service.messages import Finished
from colordaemon.service.publisher import tag_of
from colordaemon.service.status import status_text

SETTLE = 5.0  # seconds
HOUR = 3600.0


class House:
    """Folders and a journal, in which work on `film.mp4` may begin. wall: by default now, or later
    by as many seconds as a test says."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.folders = Folders(root / "in", root / "out", root / "state", root / "archive")
        for folder in (
            self.folders.inbox,
            self.folders.outbox,
            self.folders.state,
            root / "archive",
        ):
            folder.mkdir(parents=True)
        self.inbox = self.folders.inbox
        watch = WatchSettings(settle_seconds=SETTLE)
        config = Config(inbox=self.inbox, outbox=self.folders.outbox, watch=watch, **settings)
        self.journal = Journal(self.folders.journal)
        self.lifecycle = JobLifecycle(self.journal, self.folders, Routing(config))
        self.late = LateSidecars(self.journal, self.inbox, SETTLE)
        self.film = self.drop("film.mp4")

    def drop(self, name: str, contents: bytes = b"gray") -> Path:
        path = self.inbox / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contents)
        return path

    def queue(self, path: Path | None = None) -> None:
        path = path or self.film
        found = signature_of(path)
        assert found is not None
        times = found.device, found.inode, found.ctime_ns
        self.journal.add(
            [Found(path, found.size, found.mtime_ns, 1, 0, *times)], UnixTime(time.time())
        )

    def claim(self, later: float = HOUR) -> Job:
        job = self.journal.claim(UnixTime(time.time() + later))
        assert job is not None
        return job

    def finish(self, job: Job, result: bytes = b"colored") -> None:
        partial = self.folders.outbox / f"{tag_of(self.journal.token, job.id)}.partial"
        partial.write_bytes(result)
        target = self.folders.outbox / "film.color.mp4"
        self.lifecycle.finished(
            job, Finished(job.id, partial, target, "", "", ()), 1.0, UnixTime(time.time())
        )

    def results(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folders.outbox.iterdir()}

    def look(self, *paths: Path, later: float = CHECK_SECONDS + SETTLE) -> list[str]:
        """A scan finds these; returns the status of all that are late."""
        for path in paths:
            self.late.notice(path)
        self.late.turn(UnixTime(time.time() + later))
        return [f"{Path(each['path']).name} {each['why']}" for each in self.late.as_json()]


Build = Callable[..., House]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    houses: list[House] = []

    def build(**settings: Any) -> House:
        houses.append(House(tmp_path / str(len(houses)), **settings))
        return houses[-1]

    yield build
    for house in houses:
        house.journal.__exit__(None, None, None)


# In the inbox


def test_what_guides_colors_is_never_taken_for_a_photo(tmp_path: Path) -> None:
    names = ("film.mp4", "film.hints.png", "film.mp4.reference.2.jpg", "a/x.reference.mp4",
             "a/references/1.png", "a/film.references/b/1.png", "film.references.png")  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    told: dict[str, str] = {}
    found = {str(path.relative_to(tmp_path)) for path, _ in scan(tmp_path, told.__setitem__)}
    assert found == {"film.mp4", "a/x.reference.mp4", "film.references.png"}
    assert {os.path.relpath(path, tmp_path) for path in told} == {
        "film.hints.png", "film.mp4.reference.2.jpg", "a/references", "a/film.references",
    }  # fmt: skip


def test_events_take_it_for_no_photo_either_and_report_it(tmp_path: Path) -> None:
    reported: list[Path] = []
    inbox = tmp_path / "in"
    inbox.mkdir()
    settings = WatchSettings(settle_seconds=0.0, scan_seconds=3600)
    watch = Watch(inbox, settings, lambda *_: False, guides=reported.append)
    watch.start(Monotonic(0.0))
    settled: dict[Path, object] = {}
    try:
        watch.turn(Monotonic(0.0))
        (inbox / "film.hints.png").write_bytes(b"dabs")
        (inbox / "references").mkdir()
        (inbox / "references" / "1.png").write_bytes(b"coat")
        (inbox / "photo.png").write_bytes(b"gray")
        until = time.monotonic() + 60
        while len({*reported}) < 2 or not settled:
            assert time.monotonic() < until
            settled |= watch.turn(Monotonic(time.monotonic()))
            time.sleep(0.01)
    finally:
        watch.stop()
    assert {*reported} == {inbox / "film.hints.png", inbox / "references"}
    assert {*settled} == {inbox / "photo.png"}


def test_the_list_of_ignored_files_says_where_there_is_nothing_to_guide(tmp_path: Path) -> None:
    for name in (
        "in/film.mp4",
        "in/film.hints.png",
        "in/film.mp4.hints.2.png",
        "in/party.reference.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    config = Config(inbox=tmp_path / "in", outbox=tmp_path / "out", state_dir=tmp_path / "state")
    told = {Path(path).name: reason for path, reason in list_ignored(config)}
    assert {name: "rename it" in reason for name, reason in told.items()} == {
        "film.hints.png": False, "film.mp4.hints.2.png": False, "party.reference.jpg": True,
    }  # fmt: skip
    assert all("guides the colors" in reason for reason in told.values())


def test_a_setting_that_names_nothing_is_told_at_the_start(tmp_path: Path) -> None:
    for section in ("references", "candidates"):
        with pytest.raises(ConfigError, match=f"{section}: faces: no .*nothing"):
            Routing(Config.model_validate({section: {"faces": tmp_path / "nothing"}}))


# Waiting


def test_a_job_waits_until_what_is_beside_its_file_is_left_alone(build: Build) -> None:
    house = build()
    house.drop("film.references/1.png")
    house.queue()
    job, now = house.claim(0.0), Clock().time()
    assert not house.lifecycle.guide_is_quiet(job, now)
    waiting = house.journal.job(job.id)
    assert (waiting.state, waiting.code, waiting.attempts) == (State.QUEUED, Reason.GUIDE, 0)
    assert "1.png may still be copied" in waiting.reason
    assert now < waiting.not_before <= now + SETTLE
    assert house.journal.claim(now) is None
    assert house.lifecycle.guide_is_quiet(house.claim(2 * SETTLE), UnixTime(now + 2 * SETTLE))


def test_a_job_waits_for_a_picture_that_a_program_has_open_for_writing(build: Build) -> None:
    house = build()
    with house.drop("film.hints.png").open("ab"):
        house.queue()
        assert not house.lifecycle.guide_is_quiet(house.claim(HOUR), UnixTime(time.time() + HOUR))
    assert house.lifecycle.guide_is_quiet(house.claim(2 * HOUR), UnixTime(time.time() + HOUR))


def test_a_job_waits_for_no_picture_of_another_file(build: Build) -> None:
    house = build()
    house.drop("other.hints.png")
    house.queue()
    assert house.lifecycle.guide_is_quiet(house.claim(), UnixTime(time.time()))


def test_a_picture_that_looks_damaged_soon_after_it_came_may_still_be_copied(build: Build) -> None:
    house = build()
    house.drop("film.reference.png")
    os.utime(house.film)
    house.queue()
    job = house.claim()
    later = UnixTime(time.time() + house.lifecycle._config.jobs.retry_seconds - 1)
    assert house.lifecycle.may_be_incomplete(job, "found half a picture", later)
    assert not house.lifecycle.may_be_incomplete(
        house.claim(), "found half a picture", UnixTime(later + 2)
    )


# Late ones


def test_a_picture_that_was_there_in_time_is_not_late(build: Build) -> None:
    house = build()
    hints = house.drop("film.hints.png")
    house.queue()
    house.finish(house.claim())
    assert house.look(hints) == []


def test_a_late_picture_is_told_with_the_command_that_uses_it(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    house = build()
    house.queue()
    job = house.claim(-1.0)
    hints = house.drop("film.hints.png")
    assert house.look(hints) == []  # the film runs
    house.finish(job)
    assert house.look(later=0.0) == []  # it may still be copied
    (told,) = house.look()
    assert "film.hints.png came or changed after work on film.mp4 had begun" in told
    assert f"`colordaemon retry {job.id}`" in told
    assert caplog.text.count(told) == 1
    house.look(hints)  # the next scan
    assert caplog.text.count(told) == 1
    commands = Commands(house.journal, Clock().time)
    assert commands.run({"verb": "retry", "jobs": [job.id]}) == {"count": 1}
    assert house.look(hints) == []
    house.finish(house.claim())
    assert house.look(hints) == []


def test_a_late_folder_is_told_of_all_files_beside_it(build: Build) -> None:
    house = build()
    house.queue()
    house.queue(house.drop("photo.jpg"))
    house.queue(house.drop("sub/photo.jpg"))
    for _ in range(3):
        house.journal.finish(house.claim(-1.0), UnixTime(time.time()), reason="", retire="")
    picture = house.drop("references/1.png")
    (told,) = house.look(picture.parent)
    assert "references came" in told and "2 files" in told and "retry 2 1`" in told


def test_a_picture_of_another_file_is_late_for_none(build: Build) -> None:
    house = build()
    house.queue()
    house.finish(house.claim(-1.0))
    assert house.look(house.drop("fil.hints.png"), house.drop("film.mp.hints.png")) == []
    assert len(house.look(house.drop("film.mp4.hints.png"), later=HOUR)) == 1


# Done


def test_a_retried_film_takes_the_place_of_its_result(build: Build) -> None:
    house = build()
    house.queue()
    house.finish(house.claim(), b"brown")
    commands = Commands(house.journal, Clock().time)
    assert commands.run({"verb": "retry", "jobs": [1]}) == {"count": 1}
    house.finish(house.claim(), b"green")
    assert house.results() == {"film.color.mp4": b"green"}


def test_a_result_that_somebody_has_changed_is_kept_at_a_retry(build: Build) -> None:
    house = build()
    house.queue()
    house.finish(house.claim(), b"brown")
    (house.folders.outbox / "film.color.mp4").write_bytes(b"trimmed")
    Commands(house.journal, Clock().time).run({"verb": "retry", "jobs": [1]})
    house.finish(house.claim(), b"green")
    assert house.results() == {"film.color.mp4": b"trimmed", "film.color (2).mp4": b"green"}


def test_a_retried_film_takes_the_place_of_its_result_under_a_number(build: Build) -> None:
    house = build()
    (house.folders.outbox / "film.color.mp4").write_bytes(b"of another program")
    house.queue()
    for result in (b"brown", b"green"):
        house.finish(house.claim(), result)
        Commands(house.journal, Clock().time).run({"verb": "retry", "jobs": [1]})
    assert house.results() == {
        "film.color.mp4": b"of another program", "film.color (2).mp4": b"green",
    }  # fmt: skip


def test_a_film_whose_source_is_gone_stays_done(build: Build) -> None:
    house = build()
    house.queue()
    house.finish(house.claim())
    house.film.unlink()
    said = Commands(house.journal, Clock().time).run({"verb": "retry", "jobs": [1]})
    assert said == {"count": 0, "why": "job 1 is done, and its source is no longer there"}
    assert house.journal.job(1).state is State.DONE


@pytest.mark.parametrize("action", ["move", "trash"])
def test_own_pictures_go_along_with_a_source_and_shared_ones_stay(
    build: Build, action: str
) -> None:
    house = build(after=AfterSettings(source=action, archive="archive"))  # type: ignore[arg-type]
    for name in ("film.hints.png", "film.references/1.png", "references/2.png", "film.srt"):
        house.drop(name)
    house.queue()
    house.finish(house.claim())
    home = house.folders.archive if action == "move" else house.inbox / ".Trash-colordaemon"
    assert home is not None
    assert sorted(path.name for path in home.rglob("*")) == [
        "1.png", "film.hints.png", "film.mp4", "film.references",
    ]  # fmt: skip
    left = sorted(path.name for path in house.inbox.iterdir() if path != home)
    assert left == ["film.srt", "references"]


def test_pictures_that_another_film_shares_by_its_name_stay(build: Build) -> None:
    house = build(after=AfterSettings(source="trash"))
    for name in ("film.hints.png", "film.avi"):
        house.drop(name)
    house.queue()
    house.finish(house.claim())
    assert sorted(path.name for path in house.inbox.glob("film*")) == ["film.avi", "film.hints.png"]


def test_a_link_in_place_of_a_picture_is_not_moved(build: Build, tmp_path: Path) -> None:
    house = build(after=AfterSettings(source="move", archive=Path("archive")))
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"of others")
    (house.inbox / "film.hints.png").symlink_to(secret)
    house.queue()
    house.finish(house.claim())
    assert house.folders.archive is not None
    assert [path.name for path in house.folders.archive.iterdir()] == ["film.mp4"]
    assert secret.stat().st_nlink == 1


def test_pictures_stay_where_a_source_is_deleted(build: Build) -> None:
    house = build(after=AfterSettings(source="delete"))
    hints = house.drop("film.hints.png")
    house.queue()
    house.finish(house.claim())
    assert hints.exists() and not house.film.exists()


# A running daemon


def dabs(*color: int) -> np.ndarray:
    """Three dabs on transparent ground, (H, W, 4), as large as the films."""
    width, height = SIZE
    pixels = np.zeros((height, width, 4), np.uint8)
    for share in (0.2, 0.5, 0.8):
        row, column = int(height * share), int(width * share)
        pixels[row - 3 : row + 3, column - 3 : column + 3] = *color, 255
    return pixels


def wait_for_segment(daemon: Daemon, number: int) -> None:
    daemon.wait(lambda: number in daemon.segments_begun("film.mp4"))


def put(daemon: Daemon, name: str, pixels: np.ndarray) -> Path:
    """A picture arrives in one step, as a rename."""
    path = daemon.inbox / name
    save(daemon.root / f"made{path.suffix}", pixels).rename(path)
    return path


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as film:
        return np.stack([frame.to_ndarray(format="yuv420p") for frame in film.decode(video=0)])


@pytest.mark.parametrize("change", ["replaced", "removed", "new"])
def test_a_film_whose_guide_changes_begins_anew_and_never_has_two(
    start: Start, change: str
) -> None:
    daemon = start(frame_seconds=0.01)
    hints = daemon.inbox / "film.hints.png"
    if change != "new":
        put(daemon, hints.name, dabs(200, 30, 40))
    source = make_film(daemon.root / "made.mp4", 300)
    shutil.copy(source, daemon.root / "other.mp4")
    source.rename(daemon.inbox / "film.mp4")
    daemon.start()
    wait_for_segment(daemon, 2)
    if change != "removed":
        put(daemon, "film.hints.png", dabs(30, 60, 200))
        put(daemon, "other.hints.png", dabs(30, 60, 200))
    else:
        hints.unlink()
    daemon.wait_for_ends(1)
    (daemon.root / "other.mp4").rename(daemon.inbox / "other.mp4")
    daemon.wait_for_ends(2)
    assert daemon.stop() == 0
    assert daemon.results == ["film.color.mp4", "other.color.mp4"]
    begun = daemon.segments_begun("film.mp4")
    assert begun.count(0) == 2 and begun[begun.index(0, 1) :] == [*range(max(begun) + 1)]
    words = {"replaced": "was changed", "removed": "was removed", "new": "came while work on"}
    assert "begins anew" in daemon.said() and words[change] in daemon.said()
    film, other = (decoded(daemon.outbox / f"{name}.color.mp4") for name in ("film", "other"))
    assert np.array_equal(film, other)


def test_hints_that_come_late_are_told_and_used_at_a_retry(start: Start) -> None:
    daemon = start()
    make_film(daemon.root / "film.mp4", 30).rename(daemon.inbox / "film.mp4")
    daemon.start()
    daemon.wait_for_ends(1)
    before = decoded(daemon.outbox / "film.color.mp4")
    put(daemon, "film.hints.png", dabs(200, 30, 40))
    daemon.wait(lambda: daemon.ask("status")["daemon"]["inboxes"][0]["late"])
    (late,) = daemon.ask("status")["daemon"]["inboxes"][0]["late"]
    assert f"{daemon.inbox}/film.hints.png {late['why']}" in status_text(daemon.ask("status"))
    assert late["jobs"] == [1] and "`colordaemon retry 1`" in daemon.said()
    assert daemon.ask("retry", jobs=[1]) == {"count": 1}
    daemon.wait(lambda: [job.attempts for job in daemon.jobs(State.DONE)] == [1])
    assert not daemon.ask("status")["daemon"]["inboxes"][0]["late"]
    assert daemon.stop() == 0
    assert daemon.results == ["film.color.mp4"]
    assert not np.array_equal(decoded(daemon.outbox / "film.color.mp4"), before)


def test_a_picture_that_does_not_fit_fails_its_file_with_a_reason_that_names_it(
    start: Start,
) -> None:
    daemon = start()
    put(daemon, "film.hints.png", dabs(200, 30, 40)[:, :20])
    make_film(daemon.root / "film.mp4", 6).rename(daemon.inbox / "film.mp4")
    daemon.start()
    daemon.wait_for_ends(1)
    assert daemon.stop() == 0
    (job,) = daemon.jobs(State.FAILED)
    assert "film.hints.png: found 20 x 48 pixels, expected the shape" in job.reason
