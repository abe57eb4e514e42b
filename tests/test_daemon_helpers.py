"""A daemon whose films are made by several processes: each of them may die at any time."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Start
from daemons import PATIENCE, Daemon
from films import make_film, pictures
from test_daemon_trouble import arrive, check_film

from colordaemon.service.job import State

FRAMES, SEGMENTS = 300, 6  # of two seconds each, which begin with cuts


@pytest.fixture
def daemon(start: Start) -> Daemon:
    """The worker takes longer than the helper for a frame; so that helps indeed."""
    made = start(frame_seconds=0.05)
    settings = made.config.read_text()
    made.config.write_text(settings.replace("jobs: {", "jobs: {workers: 2, "))
    return made


def drop(daemon: Daemon, name: str) -> Path:
    made = make_film(daemon.root / "made.mp4", pictures(FRAMES, shot_frames=50))
    return made.replace(daemon.inbox / name)


def helpers(daemon: Daemon) -> list[int]:
    found: list[int] = []
    for pid in daemon.worker_pids:
        with suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            found += map(int, children.split())
    return found


def segments(daemon: Daemon) -> int:
    """How many lie in the outbox, finished or not."""
    return sum(1 for name in daemon.results if name.endswith(".segment"))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_film_of_two_processes_comes_out_whole_though_each_of_them_is_killed(
    daemon: Daemon,
) -> None:
    daemon.start()
    daemon.wait_ready()
    film = drop(daemon, "film.mp4")
    daemon.wait(lambda: helpers(daemon) and segments(daemon) >= 3)
    (helper,) = helpers(daemon)
    os.kill(helper, signal.SIGKILL)  # the film is blamed, for the first time
    daemon.wait(lambda: "(a helper process has died, killed by SIGKILL)" in daemon.said())
    daemon.wait(lambda: helpers(daemon) not in ([], [helper]))
    (helper,) = helpers(daemon)
    daemon.kill()
    until = time.monotonic() + PATIENCE
    while not is_gone(helper):
        assert time.monotonic() < until
        time.sleep(0.02)
    daemon.start()
    daemon.wait_for_ends(1)
    (job,) = daemon.jobs()
    assert job.state is State.DONE
    assert daemon.stop() == 0
    assert daemon.results == ["film.color.mp4"]
    check_film(film, daemon.outbox / "film.color.mp4")
    assert "segments from before" in daemon.said()


def test_a_helper_stops_with_a_film_that_is_cancelled_and_the_next_film_has_another(
    daemon: Daemon,
) -> None:
    daemon.start()
    daemon.wait_ready()
    drop(daemon, "first.mp4")
    daemon.wait(lambda: helpers(daemon) and segments(daemon) >= 2)
    (helper,) = helpers(daemon)
    (job,) = daemon.jobs()
    daemon.ask("cancel", jobs=[job.id])
    daemon.wait(lambda: daemon.jobs(State.CANCELLED))
    film = drop(daemon, "second.mp4")
    arrive(daemon, "photo.png")  # between two segments
    daemon.wait(lambda: helpers(daemon) not in ([], [helper]))
    assert is_gone(helper) and len(daemon.worker_pids) == 1
    (helper,) = helpers(daemon)
    daemon.wait_for_ends(3)
    daemon.wait(lambda: is_gone(helper))
    assert len(daemon.segments_begun("second.mp4")) < SEGMENTS
    assert daemon.stop() == 0
    assert daemon.results == ["photo.color.png", "second.color.mp4"]
    check_film(film, daemon.outbox / "second.color.mp4")


def test_a_film_with_a_helper_makes_way_for_an_urgent_one_and_goes_on_beside_it(
    daemon: Daemon,
) -> None:
    with daemon.config.open("a") as file:
        file.write("priorities: {'urgent*': 5}\n")
    daemon.start()
    daemon.wait_ready()
    film = drop(daemon, "film.mp4")
    daemon.wait(lambda: helpers(daemon) and segments(daemon) >= 2)
    (helper,) = helpers(daemon)
    urgent = arrive(daemon, "urgent.mp4", 150)
    daemon.wait(lambda: "film.mp4 makes way for a film of higher priority" in daemon.said())
    daemon.wait(lambda: is_gone(helper))
    daemon.wait_for_ends(2)
    assert {job.state for job in daemon.jobs()} == {State.DONE}
    assert daemon.stop() == 0
    assert daemon.results == ["film.color.mp4", "urgent.color.mp4"]
    check_film(film, daemon.outbox / "film.color.mp4")
    check_film(urgent, daemon.outbox / "urgent.color.mp4")
    assert "segments from before" in daemon.said()


def test_two_workers_make_several_files_at_once(daemon: Daemon) -> None:
    films = [arrive(daemon, f"{number}.mp4", 50) for number in range(4)]
    arrive(daemon, "photo.png")
    daemon.start()
    daemon.wait(lambda: len(daemon.jobs(State.RUNNING)) == 2)
    assert len(daemon.worker_pids) == 2 and not helpers(daemon)
    daemon.wait_for_ends(5)
    assert daemon.stop() == 0
    assert len(daemon.results) == 5
    for film in films:
        check_film(film, daemon.outbox / f"{film.stem}.color.mp4")
