"""Publishing with the journal as witness: ended at any step, there is exactly one whole result."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from colordaemon.clock import UnixTime
from colordaemon.config import AfterSettings, Config, OutputSettings
from colordaemon.convert.publish import PREVIEW, held
from colordaemon.convert.routing import Routing
from colordaemon.inbox.folders import Folders
from colordaemon.inbox.stability import signature_of
from colordaemon.service import source_action
from colordaemon.service.job import Found, Job, State
from colordaemon.service.journal import Journal
from colordaemon.service.lifecycle import JobLifecycle
from colordaemon.service.messages import Finished
from colordaemon.service.publisher import private_folder, sweep, tag_of

RESULT, PICTURE = b"a whole result", b"before and after"


class House:
    """Folders, a journal and one file that is being worked on."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.folders = Folders(root / "in", root / "out", root / "state")
        for folder in (self.folders.inbox, self.folders.outbox, self.folders.state):
            folder.mkdir(parents=True)
        self.config = Config(**settings)
        self.source = self.folders.inbox / "film.mp4"
        self.source.write_bytes(b"the source")
        self.open()
        found = signature_of(self.source)
        assert found is not None
        self.journal.add([Found(self.source, found.size, found.mtime_ns)], UnixTime(1.0))

    def open(self) -> None:
        self.journal = Journal(self.folders.journal)
        self.ends = JobLifecycle(self.journal, self.folders, Routing(self.config))

    def color(self) -> None:
        """What the worker does, and what the daemon does with it."""
        job = self.journal.claim(UnixTime(2.0))
        assert job is not None
        self.finish(job)

    def finish(self, job: Job, digest: str = "", *, is_whole: bool = True) -> None:
        work = private_folder(self.folders.outbox, tag_of(self.journal.token, job.id))
        partial = work / "result.partial"
        partial.write_bytes(RESULT)
        held(work, PREVIEW).write_bytes(PICTURE)
        target = self.folders.outbox / "film.color.mp4"
        said = Finished(job.id, partial, target, digest, "6 frames", (), is_whole=is_whole)
        self.ends.finished(job, said, 1.0, UnixTime(3.0))

    def restart(self) -> None:
        """Another daemon comes after one that was killed."""
        self.journal.__exit__(None, None, None)
        self.open()
        for job in self.journal.recover(UnixTime(4.0)):
            self.ends.recover(job, UnixTime(4.0))
        self.retire_all()
        waiting = self.journal.jobs(State.QUEUED)
        sweep(self.folders.outbox, self.journal.token, {job.id for job in waiting})
        if waiting:
            self.color()

    def retire_all(self) -> None:
        for _ in self.ends.retire_all():
            pass

    @property
    def results(self) -> list[str]:
        """Without the picture beside each, which the worker has made."""
        found = sorted(path.name for path in self.folders.outbox.iterdir())
        pictures = [name for name in found if name.endswith(PREVIEW)]
        ours = (path for path in self.folders.outbox.iterdir() if path.read_bytes() == RESULT)
        assert pictures == sorted(f"{path.name}{PREVIEW}" for path in ours)
        assert all((self.folders.outbox / name).read_bytes() == PICTURE for name in pictures)
        return [name for name in found if name not in pictures]


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


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


STEPS = [
    *((os, name) for name in ("link", "unlink", "replace", "fsync", "utime")),
    *((Journal, name) for name in ("requeue", "publishing", "finish", "set_aside", "retired")),
]


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> list[str]:
    """End the process right before so many operations on files and the journal were done."""
    done: list[str] = []

    def mortal(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if len(done) == step:
                raise Killed
            done.append(name)
            return operation(*arguments, **options)

        return run

    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, mortal(name, getattr(owner, name)))
    return done


@pytest.mark.parametrize("taken", [False, True], ids=["the name is free", "the name is taken"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"after": AfterSettings(source="delete")},
        {"after": AfterSettings(source="trash", checksum=True)},
        {"output": OutputSettings(overwrite=True)},
    ],
    ids=["keep", "delete", "trash", "overwrite"],
)
def test_killed_at_any_step_there_is_one_result_and_nothing_is_lost(
    build: Build, settings: dict[str, Any], taken: bool
) -> None:
    step = 0
    while True:
        house = build(**settings)
        if taken:
            (house.folders.outbox / "film.color.mp4").write_bytes(b"another's")
        with pytest.MonkeyPatch.context() as patch:
            done = kill_at(patch, step)
            with suppress(Killed):
                house.color()
            finished = len(done) < step
        house.restart()
        results = [name for name in house.results if not name.endswith(".sha256")]
        replaces = "output" in settings
        if taken and not replaces:
            assert results == ["film.color (2).mp4", "film.color.mp4"]
            assert (house.folders.outbox / "film.color.mp4").read_bytes() == b"another's"
        else:
            assert results == ["film.color.mp4"]
        assert (house.folders.outbox / results[0]).read_bytes() == RESULT
        assert house.journal.counts()[State.DONE] == 1
        kept = not settings or replaces
        assert house.source.exists() == kept
        if finished:
            break
        step += 1
    assert step > 4


def test_a_place_without_hard_links_is_no_worse(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    for step in range(12):
        house = build()
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, step)
            with suppress(Killed):
                house.color()
        house.restart()
        assert house.results == ["film.color.mp4"]
        assert (house.folders.outbox / "film.color.mp4").read_bytes() == RESULT


def test_the_checksum_of_a_large_film_outlives_a_crash(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon must not read gigabytes at its start, for longer than its watchdog waits."""
    house = build(after=AfterSettings(checksum=True))
    job = house.journal.claim(UnixTime(2.0))
    assert job is not None
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("colordaemon.service.lifecycle.write_checksum", _die)
        house.finish(job, digest="ab" * 32)
    house.restart()
    said = (house.folders.outbox / "film.color.mp4.sha256").read_text()
    assert said == f"{'ab' * 32}  film.color.mp4\n"


def _die(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_a_source_that_changed_or_went_meanwhile_has_no_result(build: Build, change: str) -> None:
    house = build()
    job = house.journal.claim(UnixTime(2.0))
    assert job is not None
    if change == "gone":
        house.source.unlink()
    else:
        house.source.write_bytes(b"something else by now")
    house.finish(job)
    assert house.results == []
    assert [job.code for job in house.journal.jobs(State.CANCELLED)] == [change]


def test_a_source_that_is_again_what_it_was_is_colored_after_all(build: Build) -> None:
    house = build()
    job = house.journal.claim(UnixTime(2.0))
    assert job is not None
    found = signature_of(house.source)
    assert found is not None
    house.source.rename(house.source.with_name("away"))
    house.source.write_bytes(b"something else for a while")
    house.finish(job)
    house.source.with_name("away").replace(house.source)
    again = Found(house.source, found.size, found.mtime_ns)
    assert [*house.journal.unknown([again])] == [again]
    assert house.journal.add([again], UnixTime(3.0)) == 1
    house.color()
    assert house.results == ["film.color.mp4"]
    assert [job.attempts for job in house.journal.jobs(State.DONE)] == [1]


def test_a_source_that_changed_after_it_was_done_is_not_removed(build: Build) -> None:
    house = build(after=AfterSettings(source="delete"))
    job = house.journal.claim(UnixTime(2.0))
    assert job is not None
    house.journal.finish(job, UnixTime(3.0), reason="", retire="delete")
    house.source.write_bytes(b"a new film under the old name")
    house.retire_all()
    assert house.source.exists()
    assert house.journal.to_retire() == []


def test_a_source_that_is_moved_never_replaces_another(build: Build) -> None:
    house = build(after=AfterSettings(source="trash"))
    trash = house.folders.inbox / ".Trash-colordaemon"
    trash.mkdir()
    (trash / "film.mp4").write_bytes(b"an older one")
    house.color()
    assert {path.name: path.read_bytes() for path in trash.iterdir()} == {
        "film.mp4": b"an older one",
        "film (2).mp4": b"the source",
    }


@pytest.mark.parametrize("killed", [False, True])
def test_a_source_with_more_pictures_than_its_result_is_never_removed(
    build: Build, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    house = build(after=AfterSettings(source="delete"))
    job = house.journal.claim(UnixTime(2.0))
    assert job is not None
    if killed:  # after the journal was told of the name, before the file got it
        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            context.setattr("colordaemon.service.publisher.publish", _kill)
            house.finish(job, is_whole=False)
        house.restart()
    else:
        house.finish(job, is_whole=False)
    assert house.results == ["film.color.mp4"] and house.source.exists()


def _kill(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_source_that_could_not_be_moved_is_moved_later(
    build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    house = build(after=AfterSettings(source="trash"))
    with monkeypatch.context() as patch:
        patch.setattr(source_action, "rename_new", refuse)
        house.color()
    assert house.source.exists() and "could not trash the source" in caplog.text
    assert [job.source for job in house.journal.to_retire()] == [house.source]
    house.retire_all()
    assert not house.source.exists() and house.journal.to_retire() == []
