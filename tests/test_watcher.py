"""Watching a real folder: slow copies, renames, links, trees, lost events, lost folders."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from colordaemon.clock import Monotonic
from colordaemon.config import WatchSettings
from colordaemon.errors import ConfigError
from colordaemon.inbox import scan
from colordaemon.inbox import watcher as watching
from colordaemon.inbox.events import EventSource, Hints
from colordaemon.inbox.stability import Signature
from colordaemon.inbox.watcher import SLICE_SECONDS, Watch

PATIENCE = 60.0  # seconds, on a busy machine; only failures take them
SETTINGS = WatchSettings(settle_seconds=0.3, scan_seconds=3600, poll_seconds=0.1)


class Inbox:
    """A watched folder and everything that has settled in it, by a clock of our own."""

    def __init__(self, path: Path, settings: WatchSettings = SETTINGS) -> None:
        path.mkdir(exist_ok=True)
        self.path, self.settled = path, list[Path]()
        self.done: set[tuple[Path, int, int]] = set()
        self.watch = Watch(path, settings, self._known)
        self.now = Monotonic(0.0)
        self.watch.start(self.now)
        self.turn()

    def _known(self, path: Path, signature: Signature) -> bool:
        return (path, signature.size, signature.mtime_ns) in self.done

    def turn(self, seconds: float = 0.0) -> None:
        """As often as a daemon would within so many seconds."""
        until = self.now + seconds
        while True:
            for path, signature in self.watch.turn(self.now).items():
                self.done.add((path, signature.size, signature.mtime_ns))
                self.settled.append(path)
            if self.now >= until:
                break
            self.now = Monotonic(self.now + 0.02)

    def wait(self, count: int) -> list[str]:
        """The names that have settled, once there are so many."""
        self._wait(lambda: len(self.settled) >= count)
        return sorted(str(path.relative_to(self.path)) for path in self.settled)

    def wait_settling(self, count: int) -> None:
        """Until so many files have been noticed."""
        self._wait(lambda: self.watch.settling >= count)

    def _wait(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not condition() and time.monotonic() < until:
            self.turn(0.02)
            time.sleep(0.01)  # events come by themselves


Open = Callable[..., Inbox]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    inboxes: list[Inbox] = []

    def open_inbox(settings: WatchSettings = SETTINGS) -> Inbox:
        inboxes.append(Inbox(tmp_path / "in", settings))
        return inboxes[-1]

    yield open_inbox
    for inbox in inboxes:
        inbox.watch.stop()


def test_every_way_into_the_inbox_is_noticed(opened: Open, tmp_path: Path) -> None:
    inbox, outside = opened(), tmp_path / "outside"
    (outside / "tree" / "deep").mkdir(parents=True)
    for name in ("renamed.png", "linked.png", "tree/deep/a.png", "tree/b.mp4"):
        (outside / name).write_bytes(b"1")
    (inbox.path / "written.png").write_bytes(b"1")
    (outside / "renamed.png").rename(inbox.path / "renamed.png")
    os.link(outside / "linked.png", inbox.path / "linked.png")
    (inbox.path / ".copied.png.Xa81").write_bytes(b"1")  # as rsync does
    (inbox.path / ".copied.png.Xa81").rename(inbox.path / "copied.png")
    (outside / "tree").rename(inbox.path / "tree")
    assert inbox.wait(6) == [
        "copied.png",
        "linked.png",
        "renamed.png",
        "tree/b.mp4",
        "tree/deep/a.png",
        "written.png",
    ]


def test_what_was_there_before_settles_too(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "old.png").write_bytes(b"1")
    inbox = opened()
    assert inbox.settled == []
    assert inbox.wait(1) == ["old.png"]


def test_a_dribbled_copy_is_taken_only_when_it_is_whole(opened: Open) -> None:
    inbox = opened()
    path = inbox.path / "slow.mp4"
    for _ in range(8):  # opened anew each time, so that no open writer gives it away
        with path.open("ab") as file:
            file.write(b"x" * 1000)
        inbox.wait_settling(1)
        inbox.turn(0.15)
        assert inbox.settled == []
    inbox.wait(1)
    assert path.stat().st_size == 8000
    assert inbox.settled == [path]


def test_a_file_of_preallocated_size_is_not_taken_early(opened: Open) -> None:
    inbox = opened()
    path = inbox.path / "samba.mp4"
    with path.open("wb") as file:
        file.truncate(100_000)
    for number in range(6):
        with path.open("r+b") as file:
            file.seek(number * 1000)
            file.write(b"x" * 1000)
        inbox.wait_settling(1)
        inbox.turn(0.15)
        assert inbox.settled == []
    assert inbox.wait(1) == ["samba.mp4"]


def test_a_burst_of_files_is_found_whole_even_if_every_event_is_lost(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hints, "add", lambda hints, *_, **__: hints.lose())
    inbox = opened()
    for number in range(300):
        (inbox.path / f"{number}.png").write_bytes(b"1")
    assert len(inbox.wait(300)) == 300
    inbox.turn(0.4)
    assert len(set(inbox.settled)) == len(inbox.settled) == 300


def test_what_watchdog_logs_about_lost_events_is_heard(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hints, "add", lambda *_, **__: None)  # no event of this file comes through
    inbox = opened()
    (inbox.path / "a.png").write_bytes(b"1")
    inbox.turn(10.0)
    assert inbox.watch.settling == 0 and inbox.settled == []
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed")
    assert inbox.wait(1) == ["a.png"]


def make_chain(top: Path, length: int) -> None:
    """Folders inside each other, deeper than a path can tell."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(length):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_a_thousand_folders_inside_each_other_cost_no_event_of_others(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inbox, outside = opened(), tmp_path / "outside"
    outside.mkdir()
    try:
        make_chain(outside, 1200)
        began = time.process_time()
        make_chain(inbox.path, 1200)
        (outside / "d").rename(inbox.path / "moved")
        (inbox.path / "a.png").write_bytes(b"1")
        (inbox.path / "d" / "d" / "b.png").write_bytes(b"1")
        (inbox.path / "moved" / "c.png").write_bytes(b"1")
        assert inbox.wait(3) == ["a.png", "d/d/b.png", "moved/c.png"]
        assert time.process_time() - began < 20
        (inbox.path / "d" / "e.png").write_bytes(b"1")  # events go on
        assert inbox.wait(4)[2] == "d/e.png"
        assert "no events" not in caplog.text and "lost" not in caplog.text
        time.sleep(1.0)  # watchdog calls it an error to be stopped while it tells of many
    finally:  # pytest itself cannot
        subprocess.run(["rm", "-rf", *inbox.path.iterdir()], check=True)  # noqa: S603, S607


def test_a_folder_that_comes_back_under_another_name_is_listened_to(
    opened: Open, tmp_path: Path
) -> None:
    inbox = opened()
    (inbox.path / "before" / "deep").mkdir(parents=True)
    (inbox.path / "before" / "deep" / "a.png").write_bytes(b"1")
    inbox.wait(1)
    (inbox.path / "before").rename(tmp_path / "away")
    inbox.turn()
    (tmp_path / "away").rename(inbox.path / "after")
    assert inbox.wait(2) == ["after/deep/a.png", "before/deep/a.png"]
    (inbox.path / "after" / "deep" / "b.png").write_bytes(b"1")
    assert inbox.wait(3)[1] == "after/deep/b.png"


def test_polling_finds_files_without_events(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    inbox = opened(SETTINGS.model_copy(update={"poll": "always"}))
    (inbox.path / "a.png").write_bytes(b"1")
    assert "by repeated scans" in caplog.text
    assert inbox.wait(1) == ["a.png"]


def test_an_inbox_that_vanishes_is_waited_for(opened: Open) -> None:
    inbox = opened()
    (inbox.path / "a.png").write_bytes(b"1")
    inbox.wait(1)
    away = inbox.path.with_name("away")
    inbox.path.rename(away)
    inbox.watch.rescan(inbox.now)
    inbox.turn()
    assert inbox.watch.is_gone
    inbox.path.mkdir()  # as if the share were not mounted
    inbox.watch.rescan(inbox.now)
    inbox.turn()
    assert inbox.watch.is_gone
    inbox.path.rmdir()
    away.rename(inbox.path)
    (inbox.path / "b.png").write_bytes(b"1")
    assert inbox.wait(2) == ["a.png", "b.png"]
    assert not inbox.watch.is_gone
    (inbox.path / "c.png").write_bytes(b"1")  # events are back as well
    assert inbox.wait(3) == ["a.png", "b.png", "c.png"]


def test_an_inbox_that_is_missing_at_the_start_is_waited_for(tmp_path: Path) -> None:
    entered: list[str] = []
    path, problem = tmp_path / "disk" / "in", [True]

    def enter() -> None:
        if problem:
            raise ConfigError("another daemon works with it")
        entered.append("in")

    watch = Watch(
        path, SETTINGS, lambda *_: False, enter=enter, leave=lambda: entered.append("out")
    )
    watch.start(Monotonic(0.0))
    assert watch.trouble == "No such file or directory"
    assert watch.turn(Monotonic(0.2)) == {}
    path.mkdir(parents=True)
    (path / "a.png").write_bytes(b"1")
    watch.turn(Monotonic(0.4))
    assert watch.trouble == "another daemon works with it"
    problem.clear()
    watch.turn(Monotonic(0.6))
    assert not watch.is_gone and entered == ["in"]
    assert [each for now in (0.7, 0.8, 1.2) for each in watch.turn(Monotonic(now))] == [
        path / "a.png"
    ]
    (path / "a.png").unlink()
    path.rmdir()
    watch.rescan(Monotonic(2.0))
    watch.turn(Monotonic(2.0))
    assert watch.is_gone and entered == ["in", "out"]
    watch.stop()
    assert entered == ["in", "out"]


def test_a_file_that_changes_is_settled_again(opened: Open) -> None:
    inbox = opened()
    path = inbox.path / "a.png"
    path.write_bytes(b"1")
    inbox.wait(1)
    path.write_bytes(b"22")
    assert inbox.wait(2) == ["a.png", "a.png"]


def test_a_large_inbox_is_looked_at_a_little_in_each_turn(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(b"1")
    seen, clock = list[Path](), count(0.0, SLICE_SECONDS / 8)

    def known(path: Path, signature: Signature) -> bool:
        seen.append(path)
        return True

    settings = SETTINGS.model_copy(update={"poll": "always"})
    watch = Watch(tmp_path, settings, known, clock=lambda: next(clock))
    watch.start(Monotonic(0.0))
    turns = 0
    while not turns or watch.is_busy:
        before = len(seen)
        watch.turn(Monotonic(0.0))
        turns += 1
        assert len(seen) - before <= 10
    assert len(seen) == 40 and turns >= 4
    watch.rescan(Monotonic(1.0))
    watch.turn(Monotonic(1.0))
    watch.rescan(Monotonic(1.0))  # while a look goes on: another one is to follow
    while watch.is_busy:
        watch.turn(1.0)
    watch.turn(Monotonic(1.0))
    while watch.is_busy:
        watch.turn(1.0)
    assert len(seen) == 120


def test_a_look_that_is_given_up_holds_no_folder_open(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(b"1")
    clock = count(0.0, SLICE_SECONDS / 8)
    settings = SETTINGS.model_copy(update={"poll": "always"})
    watch = Watch(tmp_path, settings, lambda path, found: True, clock=lambda: next(clock))
    watch.start(Monotonic(0.0))
    watch.turn(Monotonic(0.0))
    assert tmp_path in open_folders()
    watch.stop()
    assert tmp_path not in open_folders()


def open_folders() -> set[Path]:
    return {Path(os.path.realpath(handle)) for handle in Path("/proc/self/fd").iterdir()}


def scans_counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A list that grows by a folder whenever a walk through it begins."""
    begun = list[Path]()

    def walk(folder: Path, *rest: object) -> object:
        begun.append(folder)
        return real_walk(folder, *rest)

    real_walk: Any = scan.walk
    monkeypatch.setattr(watching, "walk", walk)
    return begun


def test_folders_without_events_are_looked_at_often_and_told_of_once(
    opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "is_short_of_watches", lambda: True)
    scans = scans_counted(monkeypatch)
    inbox = opened(SETTINGS.model_copy(update={"poll_seconds": 10.0}))
    before, now = len(scans), inbox.now
    for second in range(100):
        inbox.watch.turn(Monotonic(now + second))
    assert 9 <= len(scans) - before <= 11
    assert caplog.text.count("fs.inotify.max_user_watches") == 1
    monkeypatch.setattr(watching, "is_short_of_watches", lambda: False)
    inbox.watch.turn(Monotonic(now + 110))
    before = len(scans)
    for second in range(110, int(SETTINGS.scan_seconds)):
        inbox.watch.turn(Monotonic(now + second))
    assert len(scans) == before


def test_what_cannot_be_listened_to_is_looked_at_without_a_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(source: object) -> None:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    monkeypatch.setattr(EventSource, "start", refuse)
    scans = scans_counted(monkeypatch)
    settings = SETTINGS.model_copy(update={"poll_seconds": 10.0})
    watch = Watch(tmp_path, settings, lambda *_: True)
    watch.start(Monotonic(0.0))
    for quarter in range(400):
        watch.turn(Monotonic(quarter / 4))
    assert 9 <= len(scans) <= 11
    assert caplog.text.count("inotify instance limit reached") == 1
    watch.stop()
