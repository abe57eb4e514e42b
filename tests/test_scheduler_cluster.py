"""What the daemon's workers get where other machines color: films, photos beside them, a share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_scheduler import CONFIG, Puppet, Stage, open_stage

from colordaemon.inbox.folders import Folders
from colordaemon.service.job import State
from colordaemon.service.messages import (
    Failed,
    Fault,
    FromWorker,
    Machines,
    Ready,
    Share,
    Started,
    Stop,
)
from colordaemon.service.sharing import together

CLUSTER = CONFIG.model_copy(
    update={"cluster": CONFIG.cluster.model_copy(update={"address": "head:6379"})}
)


class Beside(Stage):
    """A stage for a worker that takes three photos beside its other work."""

    first_words: FromWorker | None = Ready("a test", ({},), beside=3)

    def settle(self) -> None:
        for _ in range(4):
            self.turn()

    def start_all(self, puppet: Puppet) -> None:
        puppet.saying += [Started(order.job) for order in puppet.orders]
        self.settle()


class BesideTwo(Beside):
    first_words: FromWorker | None = Ready("a test", ({}, {}), beside=3)


@pytest.fixture(params=[Beside])
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Beside]:
    folders = Folders(tmp_path / "in", tmp_path / "out", tmp_path / "state")
    with open_stage(folders, config=CLUSTER, kind=request.param) as stage:
        assert isinstance(stage, Beside)
        yield stage


of_two = pytest.mark.parametrize("stage", [BesideTwo], indirect=True)


def shares(puppet: Puppet) -> list[float]:
    return [message.part for message in puppet.heard if isinstance(message, Share)]


def test_a_worker_has_a_film_and_as_many_photos_beside_it_as_it_takes(stage: Beside) -> None:
    stage.drop("a.png", "b.png", "c.png", "d.png", "film.mp4", "next.mp4")
    stage.settle()
    assert stage.names_ordered() == ["a.png", "b.png", "c.png", "film.mp4"]
    assert [order.is_beside for order in stage.puppet.orders] == [True, True, True, False]
    first = stage.puppet.orders[0]
    stage.turn(Started(first.job), stage.finish(first))
    stage.settle()
    assert stage.job(first.job).state is State.DONE
    assert stage.names_ordered()[4:] == ["d.png"]


def test_a_photo_beside_a_film_does_not_keep_a_more_urgent_film_waiting(stage: Beside) -> None:
    stage.drop("film.mp4", "a.png")
    stage.settle()
    stage.start_all(stage.puppet)
    stage.drop("urgent.mp4", priority=5)
    stage.settle()
    assert Stop() in stage.puppet.heard
    stage.turn(*(Failed(order.job, Fault.STOPPED, "stopped") for order in stage.puppet.orders))
    stage.settle()
    assert [*stage.names_ordered()[2:]] == ["a.png", "urgent.mp4"]


def test_of_several_files_that_may_have_ended_a_worker_each_is_tried_alone(stage: Beside) -> None:
    stage.drop("a.png", "b.png", "film.mp4")
    stage.settle()
    stage.start_all(stage.puppet)
    stage.puppet.dead = True
    stage.settle()
    assert [job.crashes for job in stage.journal.jobs(*State)] == [0, 0, 0]
    assert len(stage.puppets) == 2 and stage.names_ordered()[3:] == ["a.png"]
    stage.start_all(stage.puppet)
    stage.puppet.dead = True
    stage.settle()
    assert [job.crashes for job in stage.journal.jobs(*State)] == [1, 0, 0]
    tried = []
    for _ in range(3):
        order = stage.puppet.orders[-1]
        tried.append(order.source.name)
        stage.turn(Started(order.job), stage.finish(order))
        stage.settle()
    assert sorted(tried) == ["a.png", "b.png", "film.mp4"]
    assert {job.state for job in stage.journal.jobs(*State)} == {State.DONE}


def test_a_photo_that_is_cancelled_stops_no_other_work(stage: Beside) -> None:
    stage.drop("a.png", "b.png", "film.mp4")
    stage.settle()
    stage.start_all(stage.puppet)
    one, other, film = stage.puppet.orders
    assert stage.dispatcher.cancel(other.job)
    assert [each for each in stage.puppet.heard if isinstance(each, Stop)] == [Stop(other.job)]
    stage.turn(Failed(other.job, Fault.STOPPED, "stopped"))
    states = [stage.job(order.job).state for order in (one, other, film)]
    assert states == [State.RUNNING, State.CANCELLED, State.RUNNING]


@of_two
def test_films_at_the_same_time_share_the_cluster_and_one_that_is_left_has_it_all(
    stage: Beside,
) -> None:
    stage.drop("a.mp4")
    stage.settle()
    (one,) = stage.puppets
    stage.start_all(one)
    assert shares(one) == []  # all of it is where it begins
    stage.drop("b.mp4")
    stage.settle()
    other = stage.puppets[1]
    assert [order.source.name for order in other.orders] == ["b.mp4"]
    assert (shares(one), shares(other)) == ([0.5], [0.5])
    stage.start_all(other)
    other.saying.append(stage.finish(other.orders[0]))
    stage.settle()
    assert (shares(one), shares(other)) == ([0.5, 1.0], [0.5, 0.0])
    one.saying.append(stage.finish(one.orders[0]))
    stage.settle()
    assert (shares(one), shares(other)) == ([0.5, 1.0], [0.5, 0.0])  # ready for the next film
    stage.drop("c.png")
    stage.settle()
    assert [order.source.name for order in one.orders] == ["a.mp4", "c.png"]  # where actors are
    one.saying += [Started(one.orders[-1].job), stage.finish(one.orders[-1])]
    stage.settle()
    stage.turn(seconds=100)
    assert (shares(one), shares(other)) == ([0.5, 1.0, 0.0], [0.5, 0.0])  # and for other programs


def machines(waiting: str, **films: str | None) -> dict[str, Any]:
    nodes = [
        {"name": name, "refused": "", "workers": [{"film": film, "is_ready": film is not None}]}
        for name, film in films.items()
    ]
    return {"address": "head:6379", "waiting": waiting, "nodes": nodes}


@of_two
def test_machines_show_what_they_do_for_each_worker(stage: Beside) -> None:
    stage.drop("a.mp4", "b.mp4")
    stage.settle()
    one, other = stage.puppets
    assert stage.dispatcher.sharing.machines is None
    one.saying.append(Machines(machines("", gpu1="a.mp4")))
    other.saying.append(Machines(machines("for a GPU node", gpu1="b.mp4", gpu2=None)))
    stage.turn()
    found = stage.dispatcher.sharing.machines
    assert found is not None
    assert {
        node["name"]: [worker["film"] for worker in node["workers"]] for node in found["nodes"]
    } == {"gpu1": ["a.mp4", "b.mp4"], "gpu2": [None]}
    assert stage.dispatcher.sharing.waits_for == "for a GPU node"
    other.dead = True
    stage.turn()
    assert stage.dispatcher.sharing.machines == machines("", gpu1="a.mp4")


def test_a_worker_that_waits_for_the_room_of_another_is_not_counted() -> None:
    has, wants = machines("", gpu1="a.mp4"), machines("for a worker to start", gpu1=None)
    found = together([has, wants])
    assert found is not None and found["waiting"] == "for a worker to start"
    assert [worker["film"] for worker in found["nodes"][0]["workers"]] == ["a.mp4"]
    found = together([wants, wants])
    assert found is not None and len(found["nodes"][0]["workers"]) == 1


def test_nothing_is_said_of_machines_before_any_worker_has_told() -> None:
    assert together([]) is None
