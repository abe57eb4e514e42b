"""`colordaemon watch` as systemd runs it: real processes, real files, real SIGKILL."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from command import write_photo
from daemons import Daemon
from films import luma_differences, make_film, times

from colordaemon.service.job import State

Start = Callable[..., Daemon]
KILLS = int(os.environ.get("COLORDAEMON_KILLS", "4"))  # for a soak: 50 and more


@pytest.fixture
def start(tmp_path: Path, model: Path) -> Iterator[Start]:
    daemons: list[Daemon] = []

    def start(more: str = "", frame_seconds: float = 0.0) -> Daemon:
        daemons.append(Daemon(tmp_path / "place", model, more, frame_seconds))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


def drop(daemon: Daemon, name: str | bytes, color: bool = False) -> Path:
    """A photo arrives in one step, as a rename."""
    path = daemon.inbox / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = write_photo(daemon.root / "made.png", color)
    made.rename(path)
    return path


NAMES = [
    "plain.png",
    "deep/er/photo.png",
    "ünï 日本 \U0001f39e.png",
    "line\nend\x1b[2J.png",
    "x" * 251 + ".png",
    b"no text \xff\xfe.png",
]


def test_whatever_its_name_every_photo_comes_out_once_and_the_others_are_told(start: Start) -> None:
    daemon = start("after: {checksum: true}")
    early = drop(daemon, "before the start.png")
    early.chmod(0o640)
    os.utime(early, ns=(10**18, 10**18))
    daemon.start()
    daemon.wait_ready()
    for name in NAMES:
        drop(daemon, name)
    drop(daemon, "in color.png", color=True)
    (daemon.inbox / "notes.txt").write_text("nothing to color")
    (daemon.inbox / "bad.mp4").write_text("no film")
    (daemon.inbox / "link.png").symlink_to(early)
    daemon.wait_for_ends(9)
    time.sleep(0.5)  # long enough for another scan's worth of events
    states = [job.state for job in daemon.jobs()]
    assert states.count(State.DONE) == 7
    assert states.count(State.SKIPPED) == states.count(State.FAILED) == 1
    results = [name for name in daemon.results if name.endswith(".png")]
    assert len(results) == 7 and "deep/er/photo.color.png" in results
    assert len([name for name in daemon.results if name.endswith(".sha256")]) == 7
    assert "no film" in (daemon.outbox / "failed" / "bad.mp4.error.txt").read_text()
    done = (daemon.outbox / "before the start.color.png").stat()
    assert (done.st_mode & 0o777, done.st_mtime_ns) == (0o640, 10**18)
    assert "\x1b" not in daemon.said()
    assert daemon.stop() == 0
    assert len([*daemon.inbox.rglob("*.png")]) == 9  # masters stay


def test_systemd_is_told_the_truth_in_order(start: Start) -> None:
    daemon = start()
    daemon.start(WATCHDOG_USEC="400000")
    daemon.wait_ready()
    drop(daemon, "a.png")
    daemon.wait_for_ends(1)
    text = daemon.config.read_text()
    daemon.config.write_text(text + "\nfilm: {crff: 3}\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait(lambda: "the old configuration stays" in daemon.said())
    daemon.config.write_text(text.replace("stride: 1", "stride: 2"))
    daemon.signal(signal.SIGHUP)
    daemon.wait(lambda: daemon.said().count("INFO ready on") == 2)
    drop(daemon, "b.png")
    daemon.wait_for_ends(2)
    assert daemon.ask("status")["daemon"]["ready"]
    assert daemon.stop() == 0
    told = [line.split("\n")[0].split("=")[0] for line in daemon.hear()]
    order = [word for word in told if word in ("READY", "RELOADING", "STOPPING")]
    assert order == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
    assert told.count("WATCHDOG") > 3 and "STATUS" in told


def test_a_name_that_comes_again_never_replaces_a_result(start: Start) -> None:
    daemon = start()
    daemon.start()
    drop(daemon, "a.png")
    daemon.wait_for_ends(1)
    first = (daemon.outbox / "a.color.png").read_bytes()
    (daemon.inbox / "a.png").write_bytes((daemon.inbox / "a.png").read_bytes() + b"more")
    daemon.wait_for_ends(2)
    assert daemon.stop() == 0
    assert daemon.results == ["a.color (2).png", "a.color.png"]
    assert (daemon.outbox / "a.color.png").read_bytes() == first


@pytest.mark.timeout(300)
def test_a_file_that_kills_its_worker_is_set_aside_and_the_rest_is_done(start: Start) -> None:
    daemon = start()
    drop(daemon, "poison.png")
    drop(daemon, "z.png")
    daemon.start()
    daemon.wait_for_ends(2)
    states = {job.source.name: job.state for job in daemon.jobs()}
    assert states == {"poison.png": State.FAILED, "z.png": State.DONE}
    assert daemon.stop() == 0
    told = (daemon.outbox / "failed" / "poison.png.error.txt").read_text()
    assert "the worker died 2 times over it: killed by SIGSEGV" in told
    assert daemon.results == ["failed/poison.png.error.txt", "z.color.png"]


def check_film(daemon: Daemon, film: Path, frames: int) -> None:
    """One whole result: every frame, at its time, with the source's luma."""
    result = daemon.outbox / "film.color.mp4"
    assert times(result) == times(film)
    assert luma_differences(film, result) == [0] * frames


@pytest.mark.timeout(300)
def test_a_film_goes_on_where_a_stop_or_a_dead_worker_left_it(start: Start) -> None:
    daemon = start(frame_seconds=0.01)
    film = make_film(daemon.root / "film.mp4", 400)
    film.rename(daemon.inbox / "film.mp4")
    film = daemon.inbox / "film.mp4"
    daemon.start()
    daemon.wait(lambda: 3 in daemon.segments_begun("film.mp4"))
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 10
    assert [job.attempts for job in daemon.jobs(State.QUEUED)] == [0]
    daemon.start()
    daemon.wait(lambda: 5 in daemon.segments_begun("film.mp4"))
    os.kill(daemon.worker_pid, signal.SIGKILL)
    drop(daemon, "photo.png")  # and a photo is done before the film is
    daemon.wait_for_ends(2)
    assert daemon.stop() == 0
    done = sorted(daemon.jobs(State.DONE), key=lambda job: job.changed)
    assert [job.source.name for job in done] == ["photo.png", "film.mp4"]
    assert daemon.results == ["film.color.mp4", "photo.color.png"]
    check_film(daemon, film, 400)
    begun = daemon.segments_begun("film.mp4")
    assert sorted(set(begun)) == list(range(8))
    assert len(begun) <= 8 + 2  # one more for each interruption


@pytest.mark.timeout(60 + 30 * KILLS)
def test_killed_at_any_time_nothing_is_lost_and_nothing_comes_twice(start: Start) -> None:
    """Two in three kills are the daemon's, the others its worker's."""
    daemon = start("after: {checksum: true}", frame_seconds=0.01)
    chance, frames = np.random.default_rng(5), 100 + 200 * KILLS
    made = make_film(daemon.root / "film.mp4", frames)
    film = made.rename(daemon.inbox / "film.mp4")
    for number in range(3):
        drop(daemon, f"{number}.png")
    kills = 0
    while kills < KILLS:
        daemon.told.clear()
        daemon.start()
        if kills % 2 == 0:
            drop(daemon, f"more-{kills}.png")
        daemon.wait_ready()
        time.sleep(chance.uniform(0.0, 3.0))
        if kills % 3 == 2:
            os.kill(daemon.worker_pid, signal.SIGKILL)
            kills += 1
            time.sleep(chance.uniform(0.0, 0.5))
        daemon.kill()
        kills += 1
    daemon.start()
    photos = len([*daemon.inbox.glob("*.png")])
    daemon.wait_for_ends(1 + photos, 120 + frames / 25)
    assert daemon.stop() == 0
    assert [job.state for job in daemon.jobs()] == [State.DONE] * (1 + photos)
    names = ["film.color.mp4", *(f"{path.stem}.color.png" for path in daemon.inbox.glob("*.png"))]
    assert daemon.results == sorted([*names, *(f"{name}.sha256" for name in names)])
    check_film(daemon, film, frames)
    begun = daemon.segments_begun("film.mp4")
    print(f"{kills} kills, {len(begun) - len(set(begun))} segments made again")
    assert len(begun) - len(set(begun)) <= kills
