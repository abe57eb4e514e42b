"""Whenever the power fails, the next start brings about one whole result, and loses no source."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from powerloss import Recorder
from wrecks import Wreck

from colordaemon import durable
from colordaemon.clock import Monotonic, UnixTime
from colordaemon.config import AfterSettings, Config, JobSettings, OutputSettings
from colordaemon.convert.publish import seal
from colordaemon.convert.routing import Routing
from colordaemon.inbox.folders import Folders
from colordaemon.inbox.scan import scan
from colordaemon.service.inboxes import Intake
from colordaemon.service.job import State
from colordaemon.service.journal import Journal
from colordaemon.service.messages import Finished, FromWorker, Order, Ready, Started, ToWorker
from colordaemon.service.publisher import sweep
from colordaemon.service.scheduler import Scheduler
from colordaemon.service.supervisor import WorkerProcess

SOURCE, RESULT, OTHER = b"the source", b"a whole result", b"another's file"
NAME = "reel/film.color.mp4"


class Hand(WorkerProcess):
    """Does to the disk what the worker does, at once."""

    def __init__(self) -> None:
        self._saying: list[FromWorker] = [Ready("a test")]

    def send(self, message: ToWorker) -> None:
        assert isinstance(message, Order)
        message.folder.mkdir(parents=True, exist_ok=True)
        partial = message.folder / f"{message.tag}.partial"
        partial.write_bytes(RESULT)
        seal(partial, message.source)
        target = message.folder / "film.color.mp4"
        self._saying += [
            Started(message.job),
            Finished(message.job, partial, target, "", "6 frames", ()),
        ]

    def receive(self) -> list[FromWorker]:
        said, self._saying = self._saying, []
        return said

    @property
    def is_dead(self) -> bool:
        return False

    def close(self, seconds: float = 0.0) -> None:
        pass


class House:
    """Folders with one film, whose journal lies beside them."""

    def __init__(self, base: Path, config: Config) -> None:
        self.root, self.config = base / "disk", config
        archive = self.root / "archive" if config.after.source == "move" else None
        self.folders = Folders(self.root / "in", self.root / "out", base / "state", archive)
        for folder in (self.folders.inbox / "reel", self.folders.outbox, self.folders.state):
            folder.mkdir(parents=True)
        if archive:
            archive.mkdir()
        (self.folders.inbox / "reel/film.mp4").write_bytes(SOURCE)

    def run(self) -> dict[State, int]:
        """One life of a daemon, from its start until nothing is left to do."""
        with Journal(self.folders.journal) as journal:
            routing = Routing(self.config)
            dispatcher = Scheduler(journal, [self.folders], routing, lambda *_: Hand())
            intake, now = Intake(journal), 100.0
            dispatcher.recover(UnixTime(now))
            ends = dispatcher.lifecycle_of(self.folders.inbox)
            assert ends is not None
            for _ in ends.retire_all():
                pass
            states = State.QUEUED, State.RUNNING, State.PUBLISHING
            sweep(self.folders.outbox, journal.token, {*journal.ids(*states)})
            found = {
                path: signature
                for path, signature in scan(self.folders.inbox)
                if not intake.knows(path, signature)
            }
            intake.take(found, ends, UnixTime(now))
            turns = 0
            while turns < 2 or journal.jobs(*states):
                now, turns = now + 1.0, turns + 1
                dispatcher.turn(Monotonic(now), UnixTime(now))
                assert turns < 20, journal.jobs(*states)
            return {state: count for state, count in journal.counts().items() if count}

    def all_files(self) -> list[dict[str, bytes]]:
        """Of the outbox, the inbox and the archive, hidden or not."""
        ours = self.folders
        folders = [ours.outbox, ours.inbox, *([ours.archive] if ours.archive else [])]
        return [
            {
                str(path.relative_to(folder)): path.read_bytes()
                for path in folder.rglob("*")
                if path.is_file()
            }
            for folder in folders
        ]


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: thousands of flushes, none of which has to be real."""
    memory = Path("/dev/shm")  # noqa: S108
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


WAYS: dict[str, dict[str, Any]] = {
    "keep": {"after": AfterSettings(checksum=True)},
    "delete": {"after": AfterSettings(source="delete")},
    "trash": {"after": AfterSettings(source="trash")},
    "move": {"after": AfterSettings(source="move", archive=Path("archive"))},
    "overwrite": {"output": OutputSettings(overwrite=True)},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["free", "taken", "without links", "with plain rename only"])
def test_the_power_may_fail_after_every_step(
    base: Path, way: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, name = _furnish(base, way, place, monkeypatch)
    recorder, ended = _record(house)
    assert ended[0][name] == RESULT
    sources = [data for files in ended for data in files.values() if data == SOURCE]
    assert len(sources) == (way != "delete")
    wrecks = [*recorder.wrecks()]
    assert len(wrecks) > 8
    for wreck in wrecks:
        recorder.rebuild(wreck)
        _check_nothing_is_lost(wreck, way, name)
        assert house.run() == {State.DONE: 1}, wreck
        assert house.all_files() == ended, wreck


@pytest.mark.parametrize(("way", "place"), [("move", "free"), ("delete", "without links")])
def test_the_power_may_fail_again_while_the_first_failure_is_mended(
    base: Path, way: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, name = _furnish(base, way, place, monkeypatch)
    recorder, ended = _record(house)
    for first in [*recorder.wrecks()]:
        recorder.rebuild(first)
        again, _ = _record(house)
        for second in [*again.wrecks()]:
            again.rebuild(second)
            _check_nothing_is_lost(second, way, name)
            assert house.run() == {State.DONE: 1}, (first, second)
            assert house.all_files() == ended, (first, second)


def _furnish(
    base: Path, way: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[House, str]:
    """A house, and the name that the result will have under its outbox."""
    house = House(base, Config(jobs=JobSettings(free_mib=0), **WAYS[way]))
    if place in ("without links", "with plain rename only"):
        monkeypatch.setattr(os, "link", _refuse)
    if place == "with plain rename only":
        monkeypatch.setattr(durable, "rename_noreplace", lambda *_: errno.ENOSYS)
    if place == "taken":
        target = house.folders.outbox / NAME
        target.parent.mkdir()
        target.write_bytes(OTHER)
        if way != "overwrite":
            return house, "reel/film.color (2).mp4"
    return house, NAME


def _record(house: House) -> tuple[Recorder, list[dict[str, bytes]]]:
    recorder = Recorder(house.root, house.folders.journal)
    with pytest.MonkeyPatch.context() as patch:
        recorder.recording(patch)
        assert house.run() == {State.DONE: 1}
    return recorder, house.all_files()


def _check_nothing_is_lost(wreck: Wreck, way: str, name: str) -> None:
    """Nothing torn under the final name, and no source gone for whose result nobody vouches."""
    left = wreck.contents()
    found = left.get(f"out/{name}", RESULT)
    assert found in (RESULT, OTHER), left
    if SOURCE not in left.values():
        assert way == "delete" and left[f"out/{name}"] == RESULT, left


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError("no hard links here")
