"""Several workers: which of them gets which file, and who helps with a film."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_scheduler import CONFIG, Puppet, Stage, open_stage

from colordaemon.clock import UnixTime
from colordaemon.convert.routing import Routing
from colordaemon.inbox.folders import Folders
from colordaemon.service.job import Reason, State
from colordaemon.service.messages import (
    Failed,
    Fault,
    FromWorker,
    Help,
    Order,
    Progress,
    Ready,
    Started,
    Stop,
)


class Two(Stage):
    """A stage for two workers."""

    first_words: FromWorker | None = Ready("a test", ({}, {"GPU": "1"}))

    def settle(self) -> None:
        """Let everything happen that does not wait for a worker."""
        for _ in range(4):
            self.turn()

    def say(self, puppet: Puppet, *said: FromWorker) -> None:
        puppet.saying += said
        self.settle()

    def begin_all(self, *names: str, priority: int = 0) -> list[tuple[Puppet, Order]]:
        """Files are dropped, and workers begin with as many as they can."""
        self.drop(*names, priority=priority)
        self.settle()
        begun = [(each, each.orders[-1]) for each in self.puppets if each.orders]
        for puppet, order in begun:
            self.say(puppet, Started(order.job))
        return begun

    def complete(self, puppet: Puppet) -> None:
        order = puppet.orders[-1]
        self.say(puppet, Started(order.job), self.finish(order))
        assert self.job(order.job).state is State.DONE

    def names(self, puppet: Puppet) -> list[str]:
        return [order.source.name for order in puppet.orders]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Two]:
    folders = Folders(tmp_path / "in", tmp_path / "out", tmp_path / "state")
    with open_stage(folders, config=CONFIG, kind=Two) as stage:
        assert isinstance(stage, Two)
        yield stage


def opened(order: Order, seconds: float = 100.0) -> Progress:
    return Progress(order.job, 0.0, seconds, 0)


def helped(puppet: Puppet) -> list[Help]:
    return [message for message in puppet.heard if isinstance(message, Help)]


def test_each_worker_has_a_file_and_whoever_is_done_takes_the_next(stage: Two) -> None:
    stage.begin_all("a.png", "b.mp4", "c.mp4")
    one, other = stage.puppets
    assert (stage.names(one), stage.names(other)) == (["a.png"], ["b.mp4"])
    assert [order.share for order in (*one.orders, *other.orders)] == [0.5, 0.5]
    stage.complete(other)
    stage.complete(one)
    assert len(stage.names_ordered()) == 3 and len(stage.puppets) == 2
    stage.complete(next(each for each in stage.puppets if "c.mp4" in stage.names(each)))
    assert len([*stage.folders.outbox.iterdir()]) == 3


def test_one_file_starts_no_second_worker(stage: Two) -> None:
    stage.begin_all("a.png")
    assert len(stage.puppets) == 1


def test_a_crash_is_blamed_on_the_file_of_that_worker(stage: Two) -> None:
    (_, a), (other, b) = stage.begin_all("a.mp4", "b.mp4")
    other.dead = True
    stage.settle()
    assert (stage.job(b.job).crashes, stage.job(a.job).crashes) == (1, 0)
    assert stage.job(a.job).state is State.RUNNING and len(stage.puppets) == 3
    assert stage.names(stage.puppets[2]) == ["b.mp4"]


@pytest.mark.logs_errors
def test_a_worker_that_hangs_takes_no_other_with_it(stage: Two) -> None:
    (one, a), (other, b) = stage.begin_all("a.mp4", "b.mp4")
    stage.now += 40
    stage.say(one, Progress(a.job, 1.0, 9.0, 25))
    stage.now += 40
    stage.settle()
    assert other.dead and not one.dead
    assert (stage.job(b.job).crashes, stage.job(a.job).crashes) == (1, 0)


def test_a_long_film_that_is_left_alone_has_a_helper_in_place_of_a_worker(stage: Two) -> None:
    (one, a), (other, _) = stage.begin_all("a.mp4", "b.mp4")
    stage.say(one, opened(a))
    assert not helped(one)
    stage.complete(other)
    assert helped(one) == [Help(a.job, ({"GPU": "1"},))]
    stage.drop("c.png")
    stage.settle()
    assert stage.names(one) == ["a.mp4", "c.png"]  # between two segments, since nobody is left
    stage.complete(one)
    stage.say(one, stage.finish(a))
    stage.begin_all("d.mp4", "e.mp4")
    assert len(stage.puppets) == 3
    assert [stage.names(each)[-1] for each in (one, stage.puppets[2])] == ["d.mp4", "e.mp4"]


def test_the_first_worker_makes_room_for_a_helper_too_and_comes_back(stage: Two) -> None:
    (one, _), (other, b) = stage.begin_all("a.png", "b.mp4")
    stage.say(other, opened(b))
    stage.complete(one)
    assert helped(other) == [Help(b.job, ({},))] and len(stage.dispatcher.workers) == 1
    stage.complete(other)
    assert len(stage.dispatcher.workers) == 2


def test_a_film_of_one_segment_has_no_helper(stage: Two) -> None:
    ((one, a),) = stage.begin_all("a.mp4")
    stage.say(one, opened(a, 9.0))
    assert not helped(one)
    stage.drop("b.mp4")
    stage.settle()
    assert stage.names(stage.puppets[1]) == ["b.mp4"]


def test_a_file_that_needs_all_memory_is_made_alone(stage: Two) -> None:
    (one, a), (other, b) = stage.begin_all("large.mp4", "b.mp4", "c.mp4", "d.mp4")
    stage.say(one, Failed(a.job, Fault.MEMORY, "takes 3000 MiB"))
    assert (stage.job(a.job).code, stage.job(a.job).attempts) == (Reason.MEMORY, 0)
    assert stage.names(one) == ["large.mp4"]  # it is next, so nothing is begun before it
    stage.say(other, opened(b))
    stage.say(other, stage.finish(b))
    assert len(helped(other)) == 1  # meanwhile the one that is idle is of use
    assert stage.names(other) == ["b.mp4", "large.mp4"] and other.orders[-1].share == 1.0
    assert len(stage.dispatcher.running) == 1
    stage.say(other, Started(a.job), opened(a))
    assert len(helped(other)) == 2 and len(stage.dispatcher.running) == 1
    stage.say(other, stage.finish(a))
    assert len(stage.dispatcher.running) == 2


def test_the_least_urgent_film_makes_way_and_no_other(stage: Two) -> None:
    stage.drop("b.mp4")
    (one, a), (other, b) = stage.begin_all("a.mp4", priority=1)
    stage.drop("urgent.mp4", priority=5)
    stage.settle()
    assert isinstance(other.heard[-1], Stop) and isinstance(one.heard[-1], Order)
    stage.say(other, Failed(b.job, Fault.STOPPED, "stopped"))
    assert stage.names(other) == ["b.mp4", "urgent.mp4"]
    assert stage.job(a.job).state is State.RUNNING and stage.job(b.job).state is State.QUEUED


def test_a_cancelled_file_stops_only_its_worker_and_a_pause_stops_all(stage: Two) -> None:
    (one, a), (other, b) = stage.begin_all("a.mp4", "b.mp4")
    assert stage.dispatcher.cancel(b.job)
    assert isinstance(other.heard[-1], Stop) and isinstance(one.heard[-1], Order)
    stage.say(other, Failed(b.job, Fault.STOPPED, "stopped"))
    assert stage.job(b.job).state is State.CANCELLED
    stage.drop("c.mp4")
    stage.settle()
    stage.dispatcher.pauses.add("paused", "paused by command")
    stage.dispatcher.stop_work()
    stage.say(one, Failed(a.job, Fault.STOPPED, "stopped"))
    stage.say(other, Failed(other.orders[-1].job, Fault.STOPPED, "stopped"))
    assert stage.journal.queued() == 2 and not stage.dispatcher.running
    assert len(stage.names_ordered()) == 3


@pytest.mark.logs_errors
def test_a_second_worker_that_cannot_start_is_done_without(stage: Two) -> None:
    ((one, _),) = stage.begin_all("a.mp4")
    stage.drop("b.mp4", "c.png")
    stage.first_words = None
    for _ in range(12):
        stage.turn(seconds=5.0)
        if stage.puppet is not one:
            stage.puppet.dead = True
    assert len(stage.puppets) == 4
    stage.settle()
    assert stage.names(one) == ["a.mp4", "c.png"]  # between two segments


def test_other_settings_bring_other_numbers_of_workers(stage: Two) -> None:
    (one, a), (other, b) = stage.begin_all("a.png", "b.png", "c.png", "d.png")
    stage.first_words = Ready("a test")
    stage.dispatcher.reload(Routing(CONFIG), [stage.folders])
    stage.say(other, stage.finish(b))
    stage.say(one, stage.finish(a))
    assert len(stage.dispatcher.workers) == 1 and len(stage.dispatcher.running) == 1
    assert stage.puppet.orders[-1].share == 1.0


def test_the_job_that_is_next_is_the_one_that_is_claimed(stage: Two) -> None:
    stage.drop("film.mp4", "photo.png")
    stage.drop("urgent.mp4", priority=2)
    for _ in range(3):
        found = stage.journal.next_due(UnixTime(stage.now))
        job = stage.journal.claim(UnixTime(stage.now))
        assert job is not None and job.id == found
    assert stage.journal.next_due(UnixTime(stage.now)) is None
