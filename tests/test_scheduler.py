"""Who works on what, and what follows from every way in which that can end."""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av.error
import pytest

from colordaemon.clock import Monotonic, UnixTime
from colordaemon.config import AfterSettings, Config, JobSettings, OutputSettings
from colordaemon.convert.routing import Routing
from colordaemon.errors import ModelError, WorkerLost
from colordaemon.inbox.folders import Folders
from colordaemon.inbox.safe_open import Obstructed
from colordaemon.inbox.scan import rank_of
from colordaemon.inbox.stability import signature_of
from colordaemon.service.coloring import _is_of_the_machine
from colordaemon.service.job import Found, Job, Partial, Reason, State
from colordaemon.service.journal import Journal
from colordaemon.service.messages import (
    Environment,
    Failed,
    Fault,
    Finished,
    FromWorker,
    Heartbeat,
    Order,
    Progress,
    Ready,
    Segment,
    Started,
    StartFailed,
    Stop,
    ToWorker,
)
from colordaemon.service.pauses import BREAK_SECONDS, Pauses
from colordaemon.service.running import Pace
from colordaemon.service.scheduler import Scheduler
from colordaemon.service.supervisor import WorkerProcess


class Puppet(WorkerProcess):
    """A worker that does and says only what a test wants."""

    def __init__(self, *said: FromWorker) -> None:
        self.saying, self.heard = list(said), list[ToWorker]()
        self.dead = False

    pid = 1

    def send(self, message: ToWorker) -> None:
        self.heard.append(message)

    def receive(self) -> list[FromWorker]:
        said, self.saying = self.saying, []
        return said

    @property
    def is_dead(self) -> bool:
        return self.dead

    def kill(self) -> None:
        self.dead = True

    def cause_of_death(self) -> str:
        return "killed by SIGSEGV"

    def close(self, seconds: float = 0.0) -> None:
        pass

    @property
    def orders(self) -> list[Order]:
        return [message for message in self.heard if isinstance(message, Order)]


CONFIG = Config(jobs=JobSettings(free_mib=0, tries=3, failures=2, hang_seconds=50))


class Stage:
    """A dispatcher with real folders and a real journal. `turn` passes ten milliseconds."""

    first_words: FromWorker | None = Ready("a test")

    def __init__(self, journal: Journal, config: Config, folders: Folders, *more: Folders) -> None:
        self.journal, self.folders = journal, folders
        self.puppets: list[Puppet] = []
        self.dispatcher = Scheduler(journal, [folders, *more], Routing(config), self._make)
        self.now = 100.0

    def _make(self, routing: Routing, environment: Environment) -> Puppet:
        self.puppets.append(Puppet(*([self.first_words] if self.first_words else [])))
        return self.puppets[-1]

    @property
    def puppet(self) -> Puppet:
        return self.puppets[-1]

    def turn(self, *said: FromWorker, seconds: float = 0.01) -> None:
        self.now += seconds
        if said:
            self.puppet.saying += said
        self.dispatcher.turn(Monotonic(self.now), UnixTime(self.now))

    def drop(self, *names: str, folders: Folders | None = None, priority: int = 0) -> None:
        for name in names:
            path = (folders or self.folders).inbox / name
            path.write_bytes(name.encode())
            found = signature_of(path)
            assert found is not None
            file = Found(path, found.size, found.mtime_ns, rank_of(path), priority)
            self.journal.add([file], UnixTime(self.now))

    def begin(self, *names: str) -> Order:
        """Files are dropped, and the worker begins with the first."""
        self.drop(*names)
        for _ in range(3):
            self.turn()
        order = self.puppet.orders[-1]
        self.turn(Started(order.job))
        return order

    def finish(self, order: Order) -> Finished:
        partial = order.folder / f"{order.tag}.partial"
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(b"result of " + order.source.name.encode())
        target = order.folder / f"{order.source.stem}.color{order.source.suffix}"
        return Finished(order.job, partial, target, "", "done", ())

    def job(self, number: int) -> Job:
        return self.journal.job(number)

    def names_ordered(self) -> list[str]:
        return [order.source.name for puppet in self.puppets for order in puppet.orders]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    folders = Folders(tmp_path / "in", tmp_path / "out", tmp_path / "state")
    with open_stage(folders) as stage:
        yield stage


@contextmanager
def open_stage(
    *all_folders: Folders, config: Config = CONFIG, kind: type[Stage] = Stage
) -> Iterator[Stage]:
    for folders in all_folders:
        for folder in (folders.inbox, folders.outbox, folders.state):
            folder.mkdir(exist_ok=True)
    with Journal(all_folders[0].journal) as journal:
        yield kind(journal, config, *all_folders)


def test_a_file_is_colored_published_and_noted(stage: Stage) -> None:
    order = stage.begin("a.png")
    stage.turn(stage.finish(order))
    assert [path.name for path in stage.folders.outbox.iterdir()] == ["a.color.png"]
    assert stage.job(order.job).state is State.DONE


def test_nothing_is_ordered_before_the_model_is_loaded(stage: Stage) -> None:
    stage.first_words = None
    stage.drop("a.png")
    stage.turn()
    stage.turn()
    assert stage.names_ordered() == [] and stage.job(1).attempts == 0
    stage.turn(Ready("a test"))
    assert stage.names_ordered() == ["a.png"]


def test_a_photo_does_not_wait_for_a_film(stage: Stage) -> None:
    film = stage.begin("film.mp4", "next.mp4")
    stage.turn(Segment(film.job, 1))
    assert stage.names_ordered() == ["film.mp4"]
    stage.drop("photo.png", "later.png")
    stage.turn()
    assert stage.names_ordered() == ["film.mp4", "photo.png"]  # one at a time
    photo = stage.puppet.orders[-1]
    stage.turn(Started(photo.job), stage.finish(photo))
    assert stage.job(photo.job).state is State.DONE
    assert stage.job(film.job).state is State.RUNNING
    stage.turn()
    assert stage.names_ordered() == ["film.mp4", "photo.png", "later.png"]


def test_a_crash_is_blamed_on_the_file_that_was_begun_last(stage: Stage) -> None:
    film = stage.begin("film.mp4")
    stage.drop("photo.png")
    stage.turn()
    photo = stage.puppet.orders[-1]
    stage.turn(Started(photo.job))
    stage.puppet.dead = True
    stage.turn()
    assert (stage.job(photo.job).crashes, stage.job(film.job).crashes) == (1, 0)
    assert stage.job(film.job).attempts == 0


@pytest.mark.logs_errors
def test_a_file_that_kills_two_workers_is_set_aside_with_a_reason(stage: Stage) -> None:
    stage.begin("bad.mp4", "good.mp4")
    for _ in range(2):
        stage.puppet.dead = True
        for _ in range(3):
            stage.turn(seconds=1.0)
        stage.turn(Started(stage.puppet.orders[-1].job))
    assert stage.names_ordered() == ["bad.mp4", "bad.mp4", "good.mp4"]
    assert stage.job(1).state is State.FAILED
    told = (stage.folders.failed / "bad.mp4.error.txt").read_text()
    assert "the worker died 2 times over it: killed by SIGSEGV" in told


@pytest.mark.logs_errors
def test_a_worker_that_hangs_is_killed_and_that_counts_as_a_crash(stage: Stage) -> None:
    order = stage.begin("film.mp4")
    stage.turn(Progress(order.job, 1.0, 10.0, 25), seconds=49)
    stage.turn(seconds=49)
    assert not stage.puppet.dead
    stage.turn(seconds=2)
    assert stage.puppet.dead
    stage.turn()
    assert stage.job(order.job).crashes == 1
    assert "the worker died" not in stage.job(order.job).reason
    assert "no sign of life for 50 s" in stage.job(order.job).reason


def test_an_idle_worker_may_be_silent(stage: Stage) -> None:
    stage.turn()
    stage.turn(seconds=10_000)
    assert not stage.puppet.dead


def test_a_file_whose_guide_has_changed_begins_anew_and_uncounted(stage: Stage) -> None:
    order = stage.begin("film.mp4")
    stage.turn(Failed(order.job, Fault.GUIDE, "film.hints.png: was changed since work began"))
    job = stage.job(order.job)
    assert (job.code, job.attempts, job.announce) == (Reason.GUIDE, 1, False)
    assert job.state is State.RUNNING and stage.names_ordered() == ["film.mp4"] * 2


@pytest.mark.logs_errors
def test_trouble_with_the_machine_is_waited_out_longer_each_time(stage: Stage) -> None:
    order = stage.begin("film.mp4")
    for wait in (60.0, 300.0):
        stage.turn(Failed(order.job, Fault.MACHINE, "Input/output error"))
        assert stage.job(order.job).not_before == pytest.approx(stage.now + wait)
        stage.turn(seconds=wait + 1)
        stage.turn(Started(order.job))
    stage.turn(Failed(order.job, Fault.MACHINE, "Input/output error"))
    assert stage.job(order.job).state is State.FAILED
    assert "3 attempts failed, the last one: Input/output error" in stage.job(order.job).reason


@pytest.mark.logs_errors
def test_what_nobody_has_foreseen_sets_a_file_aside_at_the_second_try(stage: Stage) -> None:
    order = stage.begin("film.mp4")
    stage.turn(Failed(order.job, Fault.UNFORESEEN, "AttributeError()"))
    assert stage.job(order.job).state is not State.FAILED
    for _ in range(3):
        stage.turn()
    stage.turn(Started(order.job), Failed(order.job, Fault.UNFORESEEN, "AttributeError()"))
    job = stage.job(order.job)
    assert (job.state, job.code) == (State.FAILED, "unforeseen")
    assert job.reason == "something unforeseen happened 2 times over it: AttributeError()"


@pytest.mark.logs_errors
def test_unforeseen_errors_of_files_never_pause_the_work(stage: Stage) -> None:
    stage.begin("1.mp4", "2.mp4", "3.mp4")
    for _ in range(4):
        stage.turn(Failed(stage.puppet.orders[-1].job, Fault.UNFORESEEN, "KeyError()"))
        for _ in range(3):
            stage.turn()
        stage.turn(Started(stage.puppet.orders[-1].job))
    assert stage.dispatcher.pauses.reason(Monotonic(stage.now)) is None
    assert "3.mp4" in stage.names_ordered()


@pytest.mark.parametrize(
    ("error", "of_the_machine"),
    [
        (AttributeError("codec_context"), False),
        (av.error.InvalidDataError(1094995529, "invalid"), False),
        (av.error.FFmpegError(errno.EIO, "I/O"), True),
        (RuntimeError("CUDA error: device lost"), True),
        (RuntimeError("can't allocate memory"), True),
        (RuntimeError("expected 4 planes"), False),
        (MemoryError(), True),
        (OSError(errno.EIO, "I/O"), True),
    ],
)
def test_an_unforeseen_error_is_of_the_file_unless_the_machine_speaks(
    error: Exception, of_the_machine: bool
) -> None:
    assert _is_of_the_machine(error) is of_the_machine


@pytest.mark.logs_errors
def test_when_file_after_file_fails_the_rest_is_not_tried(stage: Stage) -> None:
    stage.begin("1.mp4", "2.mp4", "3.mp4")
    for number in (1, 2):
        stage.turn(Started(number), Failed(number, Fault.MACHINE, "no such device"))
        stage.turn()
    assert stage.names_ordered() == ["1.mp4", "2.mp4"]
    assert (
        stage.dispatcher.pauses.reason(Monotonic(stage.now)) == "2 files failed one after the other"
    )
    stage.turn(seconds=BREAK_SECONDS)
    assert len(stage.names_ordered()) == 3


def test_a_clock_that_is_set_back_keeps_no_file_waiting(stage: Stage) -> None:
    order = stage.begin("film.mp4")
    stage.turn(Failed(order.job, Fault.MACHINE, "Input/output error"))
    due = stage.job(order.job).not_before
    stage.dispatcher.turn(Monotonic(stage.now + 1), UnixTime(stage.now + 1))
    assert stage.job(order.job).not_before == due > stage.now
    stage.dispatcher.turn(Monotonic(stage.now + 2), UnixTime(stage.now + 2 - 86_400))
    assert stage.job(order.job).not_before == 0


def test_a_start_with_the_clock_set_back_keeps_no_file_waiting(stage: Stage) -> None:
    order = stage.begin("film.mp4")
    stage.turn(Failed(order.job, Fault.MACHINE, "Input/output error"))
    stage.dispatcher.recover(UnixTime(stage.now - 86_400))
    assert stage.job(order.job).not_before == 0


@pytest.mark.logs_errors
def test_files_with_trouble_of_their_own_pause_nothing(stage: Stage) -> None:
    stage.drop(*(f"{number}.mp4" for number in range(1, 5)))
    for number in (1, 2, 3):
        stage.turn()
        stage.turn()
        stage.turn(Started(number), Failed(number, Fault.FILE, "Permission denied"))
    stage.turn()
    assert stage.names_ordered() == [f"{number}.mp4" for number in range(1, 5)]
    assert stage.dispatcher.pauses.reason(Monotonic(stage.now)) is None
    assert stage.job(1).not_before == pytest.approx(stage.now + 60, abs=1)


def test_a_film_that_is_too_large_waits_alone(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    order = stage.begin("film.mp4", "b.mp4")
    stage.turn(Failed(order.job, Fault.ROOM, "1 MiB free, about 9 MiB needed"))
    stage.turn()
    assert stage.names_ordered() == ["film.mp4", "b.mp4"]
    stage.turn(Started(2), stage.finish(stage.puppet.orders[-1]))
    for _ in range(3):
        stage.turn(seconds=301)
        stage.turn(Started(1), Failed(1, Fault.ROOM, "1 MiB free, about 9 MiB needed"))
    assert (stage.job(1).state, stage.job(1).attempts) == (State.QUEUED, 0)
    assert sum("waits for space; other files go on" in line for line in caplog.messages) == 1


def test_a_full_disk_pauses_all_work_and_no_file_pays_for_it(stage: Stage) -> None:
    order = stage.begin("film.mp4", "b.mp4")
    stage.turn(Failed(order.job, Fault.SPACE, "No space left on device"))
    stage.turn(seconds=1)
    assert stage.names_ordered() == ["film.mp4"]
    assert (stage.job(order.job).state, stage.job(order.job).attempts) == (State.QUEUED, 0)
    stage.turn(seconds=40)
    assert stage.names_ordered() == ["film.mp4", "b.mp4"]  # which may be smaller
    stage.turn(Started(2), stage.finish(stage.puppet.orders[-1]))
    stage.turn(seconds=40)
    assert stage.names_ordered()[-1] == "film.mp4"


def test_work_begins_only_with_space_to_spare(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.dispatcher.space.settings = JobSettings(free_mib=100)
    usage = shutil.disk_usage(stage.folders.outbox)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=99 << 20))
    stage.drop("a.png")
    for _ in range(3):
        stage.turn()
    assert stage.names_ordered() == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100 << 20))
    stage.turn(seconds=40)
    assert stage.names_ordered() == ["a.png"]


@pytest.mark.logs_errors
def test_a_hopeless_file_fails_at_once_and_color_is_skipped(stage: Stage) -> None:
    order = stage.begin("bad.mp4", "color.mp4")
    stage.turn(Failed(order.job, Fault.MEDIA, f"{order.source}: no film"))
    assert (stage.job(order.job).state, stage.job(order.job).reason) == (State.FAILED, "no film")
    stage.turn()
    stage.turn(Started(2), Failed(2, Fault.COLOR, "has real color"))
    assert stage.job(2).state is State.SKIPPED
    assert not (stage.folders.failed / "color.mp4.error.txt").exists()


@pytest.mark.logs_errors
def test_wrong_settings_stop_the_queue_until_there_are_others(stage: Stage) -> None:
    order = stage.begin("film.mp4")
    stage.turn(Failed(order.job, Fault.SETTINGS, "no encoder option crff"))
    stage.turn(seconds=100_000)
    assert len(stage.names_ordered()) == 1
    stage.dispatcher.reload(Routing(Config(jobs=JobSettings(free_mib=0))), [stage.folders])
    for _ in range(4):
        stage.turn()
    assert len(stage.puppets) == 2 and len(stage.puppet.orders) == 1


def test_a_model_that_cannot_be_loaded_ends_the_daemon(stage: Stage) -> None:
    stage.first_words = StartFailed("no model file x")
    stage.turn()
    with pytest.raises(ModelError, match="no model file x"):
        stage.turn()


@pytest.mark.logs_errors
def test_a_new_model_that_cannot_be_loaded_stops_the_queue_and_not_the_daemon(
    stage: Stage,
) -> None:
    stage.turn()
    stage.turn()
    stage.first_words = StartFailed("no model file x")
    stage.dispatcher.reload(Routing(Config(jobs=JobSettings(free_mib=0))), [stage.folders])
    for _ in range(3):
        stage.turn()
    stage.puppet.dead = True
    for _ in range(10):
        stage.turn(seconds=100.0)
    assert stage.dispatcher.pauses.reason(Monotonic(stage.now)) == "no model file x"
    assert len(stage.puppets) == 2
    stage.first_words = Ready("a test")
    stage.drop("a.png")
    stage.dispatcher.reload(Routing(Config(jobs=JobSettings(free_mib=0))), [stage.folders])
    for _ in range(4):
        stage.turn()
    assert stage.names_ordered() == ["a.png"]


def test_workers_that_die_before_they_are_ready_end_the_daemon(stage: Stage) -> None:
    stage.first_words = None
    with pytest.raises(WorkerLost, match="died 3 times before it was ready: killed by SIGSEGV"):
        for _ in range(20):
            stage.turn(seconds=5.0)
            stage.puppet.dead = True


def test_stopping_gives_the_file_back_uncounted(stage: Stage) -> None:
    order = stage.begin("film.mp4")
    stage.dispatcher.close_down()
    stage.dispatcher.stop_work()
    assert isinstance(stage.puppet.heard[-1], Stop)
    stage.turn(Failed(order.job, Fault.STOPPED, "stopped"))
    assert (stage.job(1).state, stage.job(1).attempts) == (State.QUEUED, 0)
    stage.turn(seconds=100)
    assert len(stage.names_ordered()) == 1


def test_a_running_file_can_be_cancelled(stage: Stage) -> None:
    order = stage.begin("film.mp4", "other.mp4")
    work = order.folder / f"{order.tag}.work"
    work.mkdir()
    assert stage.dispatcher.cancel(order.job) and not stage.dispatcher.cancel(2)
    stage.turn(Failed(order.job, Fault.STOPPED, "stopped"))
    assert stage.job(order.job).state is State.CANCELLED
    assert not work.exists()
    stage.turn()
    assert stage.names_ordered() == ["film.mp4", "other.mp4"]


def test_a_file_that_is_gone_when_its_turn_comes_is_cancelled(stage: Stage) -> None:
    stage.drop("a.png", "b.png")
    (stage.folders.inbox / "a.png").unlink()
    for _ in range(4):
        stage.turn()
    assert stage.names_ordered() == ["b.png"]
    assert (stage.job(1).state, stage.job(1).code) == (State.CANCELLED, "gone")


@pytest.mark.parametrize("fault", [Fault.MEDIA, Fault.MACHINE])
def test_a_file_that_goes_away_under_the_worker_has_not_failed(stage: Stage, fault: Fault) -> None:
    order = stage.begin("a.mp4")
    order.source.unlink()
    stage.turn(Failed(order.job, fault, "No such file"))
    assert (stage.job(1).state, stage.job(1).code) == (State.CANCELLED, "gone")


def test_a_film_whose_share_goes_away_keeps_what_is_finished(stage: Stage) -> None:
    found = stage.folders.inbox.stat()
    stage.journal.remember(stage.folders.inbox, (found.st_dev, found.st_ino))
    order = stage.begin("a.mp4")
    work = order.folder / f"{order.tag}.work"
    work.mkdir()
    stage.folders.inbox.rename(stage.folders.inbox.with_name("away"))
    stage.folders.inbox.mkdir()  # the empty mount point
    stage.turn(Failed(order.job, Fault.MACHINE, "Input/output error"))
    assert (stage.job(1).state, stage.job(1).attempts) == (State.QUEUED, 0)
    assert work.exists()


def test_a_result_that_cannot_be_published_yet_is_published_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = stage.begin("a.png")
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("colordaemon.service.publisher.publish", full)
        stage.turn(stage.finish(order))
    assert stage.job(order.job).state is State.PUBLISHING
    stage.turn(seconds=40)
    assert stage.job(order.job).state is State.DONE
    assert [path.name for path in stage.folders.outbox.iterdir()] == ["a.color.png"]


def test_an_obstructed_folder_of_the_outbox_holds_up_its_own_results_and_no_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sub, away = stage.folders.outbox / "sub", stage.folders.state / "away"
    (stage.folders.inbox / "sub").mkdir()
    order = stage.begin("sub/a.png", "b.png")
    done = stage.finish(order)
    sub.rename(away)
    sub.symlink_to(away)
    stage.turn(done)
    assert (stage.job(order.job).state, stage.job(order.job).code) == (State.QUEUED, "way")
    assert str(sub) in stage.job(order.job).reason and stage.job(order.job).attempts == 0
    stage.turn()
    assert stage.names_ordered() == ["a.png", "b.png"]
    sub.unlink()
    away.rename(sub)
    stage.turn(stage.finish(stage.puppet.orders[-1]))
    stage.turn(seconds=400)
    order = stage.puppet.orders[-1]
    assert order.source.name == "a.png"
    with monkeypatch.context() as patch:

        def refuse(*_: object, **__: object) -> None:
            raise Obstructed(errno.ENOTDIR, "it is a symbolic link", "out/sub")

        patch.setattr("colordaemon.service.publisher.publish", refuse)
        stage.turn(Started(order.job), stage.finish(order))
        for _ in range(20):
            stage.turn(seconds=40)
        assert stage.job(order.job).state is State.PUBLISHING
        assert stage.dispatcher.space.reason(Monotonic(stage.now)) is None
        assert caplog.text.count("cannot publish") == 1
    stage.turn(seconds=40)
    assert stage.job(order.job).state is State.DONE


def test_the_end_of_a_resumed_film_is_foreseen_from_what_was_done_since() -> None:
    pace = Pace()
    pace.feed(Progress(1, 0.0, 1000.0, 0), Monotonic(100.0))
    assert (str(pace), pace.seconds_left) == ("", math.inf)
    pace.feed(Progress(1, 500.0, 1000.0, 1), Monotonic(130.0))  # it goes on in the middle
    pace.feed(Progress(1, 510.0, 1000.0, 251), Monotonic(140.0))
    assert pace.seconds_left == pytest.approx(490.0)
    assert str(pace) == "51%, 25.0 fps, 8 min left"


def test_what_comes_after_the_last_frame_has_a_progress_of_its_own(stage: Stage) -> None:
    order = stage.begin("film.mp4")
    stage.turn(Progress(order.job, 100.0, 100.0, 2500))
    stage.turn(Heartbeat(order.job, "joining", 0.41))
    (task,) = stage.dispatcher.running
    assert str(task.pace) == "joining 41%"
    assert (task.pace.as_json()["stage"], task.pace.as_json()["stage_share"]) == ("joining", 0.41)
    stage.turn(Heartbeat(order.job))  # of nothing that has a share
    assert str(task.pace) == "joining 41%"


def test_a_film_that_is_nearly_done_is_finished_before_the_end(stage: Stage) -> None:
    order = stage.begin("film.mp4")
    assert stage.dispatcher.running.seconds_left == math.inf
    stage.turn(Progress(order.job, 1.0, 100.0, 25))
    stage.turn(Progress(order.job, 99.0, 100.0, 2475), seconds=98.0)
    assert stage.dispatcher.running.seconds_left == pytest.approx(1.0)


def test_a_success_in_between_forgives_earlier_failures() -> None:
    holds = Pauses(failures=2)
    assert not holds.failed(1, Monotonic(0.0))
    holds.succeeded()
    assert not holds.failed(2, Monotonic(0.0))
    assert not holds.failed(2, Monotonic(0.0))  # the same file again
    assert holds.failed(3, Monotonic(0.0))
    assert holds.reason(Monotonic(1.0)) and not holds.reason(Monotonic(BREAK_SECONDS + 1))


# Several inboxes


@pytest.fixture
def one_and_other(tmp_path: Path) -> tuple[Folders, Folders]:
    state = tmp_path / "state"
    return (
        Folders(tmp_path / "one", tmp_path / "out1", state),
        Folders(tmp_path / "other", tmp_path / "out2", state),
    )


def test_each_file_goes_to_the_outbox_of_its_inbox(one_and_other: tuple[Folders, Folders]) -> None:
    one, other = one_and_other
    with open_stage(one, other) as stage:
        stage.drop("a.png", folders=other)
        order = stage.begin("a.png")
        assert order.folder == other.outbox
        stage.turn(stage.finish(order))
        assert stage.puppet.orders[-1].folder == one.outbox
        stage.turn(Started(2), stage.finish(stage.puppet.orders[-1]))
        assert [path.name for each in one_and_other for path in each.outbox.iterdir()] == [
            "a.color.png"
        ] * 2


def test_files_of_an_inbox_that_is_gone_wait_and_the_others_go_on(
    one_and_other: tuple[Folders, Folders],
) -> None:
    one, other = one_and_other
    with open_stage(one, other) as stage:
        stage.drop("first.png", "second.png")
        stage.drop("a.png", folders=other)
        one.inbox.rename(one.inbox.with_name("away"))
        for _ in range(3):
            stage.turn()
        assert stage.dispatcher.take_missing_inboxes() == {one.inbox}  # and whoever watches looks
        stage.dispatcher.serve([other.inbox])
        stage.turn()
        order = stage.puppet.orders[-1]
        assert order.source == other.inbox / "a.png"
        stage.turn(Started(order.job), stage.finish(order))
        stage.turn(seconds=10_000)
        assert stage.names_ordered() == ["a.png"]
        assert [stage.job(number).state for number in (1, 2)] == [State.QUEUED] * 2
        one.inbox.with_name("away").rename(one.inbox)
        stage.dispatcher.serve([one.inbox, other.inbox])
        stage.turn()
        assert stage.names_ordered() == ["a.png", "first.png"]


def test_a_full_outbox_holds_up_no_other(one_and_other: tuple[Folders, Folders]) -> None:
    one, other = one_and_other
    with open_stage(one, other) as stage:
        film = stage.begin("film.mp4", "next.mp4")
        stage.drop("film.mp4", folders=other)
        stage.turn(Failed(film.job, Fault.SPACE, "No space left on device"))
        assert stage.puppet.orders[-1].source == other.inbox / "film.mp4"
        assert stage.dispatcher.space.reason(Monotonic(stage.now)) == "No space left on device"
        stage.turn(Started(3), stage.finish(stage.puppet.orders[-1]), seconds=40)
        assert stage.puppet.orders[-1].source == one.inbox / "next.mp4"


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_inboxes_may_share_an_outbox(tmp_path: Path, overwrite: bool) -> None:
    out, state = tmp_path / "out", tmp_path / "state"
    one = Folders(tmp_path / "one", out, state, shares_outbox=True)
    other = Folders(tmp_path / "other", out, state, shares_outbox=True)
    config = CONFIG.model_copy(update={"output": OutputSettings(overwrite=overwrite)})
    with open_stage(one, other, config=config) as stage:
        stage.drop("a.png", "bad.png")
        stage.drop("a.png", "bad.png", folders=other)
        made = dict[int, Order]()
        for _ in range(8):
            stage.turn()
            for order in stage.puppet.orders[len(made) :]:
                made[order.job] = order
                partial = stage.finish(order)
                partial.partial.write_bytes(bytes(order.source))
                stage.turn(Started(order.job), partial)
        results = {path.name: path.read_bytes() for path in out.iterdir()}
        assert results == {
            "a.color.png": bytes(one.inbox / "a.png"),
            "a.color (2).png": bytes(other.inbox / "a.png"),
            "bad.color.png": bytes(one.inbox / "bad.png"),
            "bad.color (2).png": bytes(other.inbox / "bad.png"),
        }


@pytest.mark.logs_errors
def test_reasons_of_two_inboxes_in_one_outbox_lie_apart(tmp_path: Path) -> None:
    out, state = tmp_path / "out", tmp_path / "state"
    both = [Folders(tmp_path / name, out, state, shares_outbox=True) for name in ("one", "other")]
    with open_stage(*both) as stage:
        for folders in both:
            stage.drop("a.png", folders=folders)
        for number in (1, 2):
            for _ in range(3):
                stage.turn()
            stage.turn(Started(number), Failed(number, Fault.MEDIA, f"reason {number}"))
        told = [(folders.failed / "a.png.error.txt").read_text() for folders in both]
        assert ["reason 1" in told[0], "reason 2" in told[1]] == [True, True]


def test_urgent_files_go_first_and_no_lesser_photo_comes_between_segments(
    one_and_other: tuple[Folders, Folders],
) -> None:
    one, other = one_and_other
    with open_stage(one, other) as stage:
        stage.drop("photo.png")
        stage.drop("film.mp4", folders=other, priority=5)
        film = stage.begin("late.png")
        assert film.source == other.inbox / "film.mp4"
        stage.turn(Segment(film.job, 1))
        assert stage.names_ordered() == ["film.mp4"]
        stage.drop("urgent.png", folders=other, priority=5)
        stage.turn()
        assert stage.names_ordered() == ["film.mp4", "urgent.png"]


def test_a_film_makes_way_for_an_urgent_one_and_goes_on_later(
    one_and_other: tuple[Folders, Folders],
) -> None:
    one, other = one_and_other
    with open_stage(one, other) as stage:
        film = stage.begin("film.mp4")
        stage.turn(Segment(film.job, 1))
        stage.drop("urgent.mp4", folders=other, priority=5)
        for _ in range(3):
            stage.turn()
        assert [type(message) for message in stage.puppet.heard] == [Order, Stop]  # asked once
        stage.turn(Failed(film.job, Fault.STOPPED, "stopped"))
        assert stage.names_ordered() == ["film.mp4", "urgent.mp4"]
        assert (stage.job(film.job).state, stage.job(film.job).attempts) == (State.QUEUED, 0)
        urgent = stage.puppet.orders[-1]
        stage.turn(Started(urgent.job), stage.finish(urgent))
        assert stage.names_ordered() == ["film.mp4", "urgent.mp4", "film.mp4"]


def test_what_was_begun_for_an_inbox_ends_well_when_it_is_configured_no_more(
    one_and_other: tuple[Folders, Folders],
) -> None:
    one, other = one_and_other
    with open_stage(one, other) as stage:
        order = stage.begin("a.png", "b.png")
        stage.drop("c.png", folders=other)
        stage.dispatcher.reload(Routing(CONFIG), [other])
        stage.dispatcher.serve([other.inbox])
        stage.turn(stage.finish(order))
        for _ in range(4):
            stage.turn()
        assert [path.name for path in one.outbox.iterdir()] == ["a.color.png"]
        assert stage.names_ordered() == ["a.png", "c.png"]
        assert stage.job(2).state is State.QUEUED


def test_a_result_without_a_name_waits_for_its_inbox_to_be_configured_again(
    one_and_other: tuple[Folders, Folders],
) -> None:
    one, other = one_and_other
    with open_stage(one, other) as stage:
        order = stage.begin("a.png")
        said = stage.finish(order)
        stage.journal.publishing(
            stage.job(order.job), said.target, Partial.of(said.partial), UnixTime(stage.now)
        )
        later = Stage(stage.journal, CONFIG, other)
        later.dispatcher.recover(UnixTime(200.0))
        later.turn()
        assert stage.job(order.job).state is State.PUBLISHING
        later.dispatcher.reload(Routing(CONFIG), [one, other])
        later.dispatcher.serve([one.inbox, other.inbox])
        later.turn()
        assert stage.job(order.job).state is State.DONE
        assert [path.name for path in one.outbox.iterdir()] == ["a.color.png"]


def test_a_source_is_retired_when_its_inbox_is_back(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "in", tmp_path / "out", tmp_path / "state")
    config = CONFIG.model_copy(update={"after": AfterSettings(source="delete")})
    with open_stage(folders, config=config) as stage:
        order = stage.begin("a.png")
        said = stage.finish(order)
        stage.journal.publishing(
            stage.job(order.job), said.target, Partial.of(said.partial), UnixTime(stage.now)
        )
        folders.inbox.rename(tmp_path / "away")
        later = Stage(stage.journal, config, folders)
        later.dispatcher.recover(UnixTime(200.0))
        later.turn()
        assert stage.job(order.job).state is State.DONE
        (tmp_path / "away").rename(folders.inbox)
        assert order.source.exists()
        ends = later.dispatcher.lifecycle_of(folders.inbox)
        assert ends is not None
        for _ in ends.retire_all():
            pass
        assert not order.source.exists()
