"""Trouble while the daemon runs: files and folders that change under it, disks that turn away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from command import write_photo
from conftest import MakeDisk, Start
from daemons import Daemon
from films import luma_differences, make_film, pictures, times

from colordaemon.service.job import State

QUEUED_EVENTS = Path("/proc/sys/fs/inotify/max_queued_events")


def arrive(daemon: Daemon, name: str, frames: int = 0, first: int = 0) -> Path:
    """A film of so many frames, or else a photo, arrives in one step, as a rename."""
    made = daemon.root / f"made{Path(name).suffix}"
    if frames:
        make_film(made, [*pictures(first + frames)][first:])
    else:
        write_photo(made)
    return made.replace(daemon.inbox / name)


def check_film(film: Path, result: Path) -> None:
    """Every frame, at its time, with the source's luma."""
    assert times(result) == times(film)
    assert set(luma_differences(film, result)) == {0}


def test_a_film_that_is_replaced_while_it_is_colored_has_one_result_of_the_new_one(
    start: Start,
) -> None:
    daemon = start(frame_seconds=0.01)
    arrive(daemon, "film.mp4", 300)
    daemon.start()
    daemon.wait(lambda: 1 in daemon.segments_begun("film.mp4"))
    film = arrive(daemon, "film.mp4", 60, first=300)
    daemon.wait(lambda: daemon.jobs(State.DONE))
    assert daemon.stop() == 0
    assert daemon.results == ["film.color.mp4"]
    check_film(film, daemon.outbox / "film.color.mp4")
    ends = [(job.state, job.code) for job in daemon.jobs()]
    assert ends == [(State.CANCELLED, "changed"), (State.DONE, "")]


def test_a_film_that_is_deleted_while_it_is_colored_leaves_nothing(start: Start) -> None:
    daemon = start(frame_seconds=0.01)
    film = arrive(daemon, "film.mp4", 150)
    daemon.start()
    daemon.wait(lambda: 1 in daemon.segments_begun("film.mp4"))
    film.unlink()
    daemon.wait_for_ends(1)
    assert daemon.stop() == 0
    assert [(job.state, job.code) for job in daemon.jobs()] == [(State.CANCELLED, "gone")]
    assert daemon.results == []


def test_a_copy_that_stalls_is_neither_failed_nor_colored_by_halves(start: Start) -> None:
    """Over a share nobody tells that a file is still open, and a stall may outlast settling."""
    daemon = start("after: {hook: 'tee -a told'}")
    text = daemon.config.read_text().replace("retry_seconds: 0.5", "retry_seconds: 600")
    daemon.config.write_text(text.replace("tee -a told", f"tee -a {daemon.root / 'told'}"))
    whole = make_film(daemon.root / "whole.mkv", 100).read_bytes()
    film = daemon.inbox / "film.mkv"
    film.write_bytes(whole[: len(whole) // 2])
    daemon.start()
    daemon.wait(lambda: "is it still being copied?" in daemon.said())
    queued = [(State.QUEUED, 0)]  # written down after it was said
    daemon.wait(lambda: [(job.state, job.attempts) for job in daemon.jobs()] == queued)
    with film.open("ab") as file:
        file.write(whole[len(whole) // 2 :])
    daemon.wait(lambda: daemon.jobs(State.DONE))
    daemon.wait(lambda: (daemon.root / "told").exists())
    assert daemon.stop() == 0
    assert [(job.state, job.attempts) for job in daemon.jobs()] == [
        (State.CANCELLED, 0),
        (State.DONE, 1),
    ]
    assert daemon.results == ["film.color.mkv"]
    check_film(film, daemon.outbox / "film.color.mkv")
    assert (daemon.root / "told").read_text().count('"done"') == 1
    assert "failed" not in (daemon.root / "told").read_text()


def test_half_a_copy_that_stays_so_fails_in_the_end(start: Start) -> None:
    daemon = start()
    whole = make_film(daemon.root / "whole.mkv", 100).read_bytes()
    (daemon.inbox / "film.mkv").write_bytes(whole[: len(whole) // 2])
    daemon.start()
    daemon.wait_for_ends(1)
    assert daemon.stop() == 0
    assert [(job.state, job.attempts) for job in daemon.jobs()] == [(State.FAILED, 1)]
    assert daemon.results == ["failed/film.mkv.error.txt"]
    told = (daemon.outbox / "failed" / "film.mkv.error.txt").read_text()
    assert "truncated" in told


def test_an_outbox_that_turns_read_only_is_waited_out(make_disk: MakeDisk, start: Start) -> None:
    daemon, disk = start(frame_seconds=0.01), make_disk("size=64m")
    daemon.outbox.symlink_to(disk)
    film = arrive(daemon, "film.mp4", 300)
    daemon.start()
    daemon.wait(lambda: 1 in daemon.segments_begun("film.mp4"))
    _remount(daemon, disk, "ro")
    arrive(daemon, "photo.png")
    daemon.wait(lambda: "read-only" in (daemon.ask("status")["daemon"]["waiting"] or ""))
    waiting = [(State.QUEUED, 0)] * 2  # neither has paid for it
    daemon.wait(lambda: [(job.state, job.attempts) for job in daemon.jobs()] == waiting)
    _remount(daemon, disk, "rw")
    daemon.wait_for_ends(2)
    assert daemon.stop() == 0
    assert daemon.results == ["film.color.mp4", "photo.color.png"]
    check_film(film, daemon.outbox / "film.color.mp4")


def _remount(daemon: Daemon, disk: Path, mode: str) -> None:
    """read-only takes hold only while nobody has a file open for writing."""
    line = ["mount", "-o", f"remount,{mode}", str(disk)]

    def is_done() -> bool:
        return not subprocess.run(line, capture_output=True, check=False).returncode  # noqa: S603

    daemon.wait(is_done)


def test_an_outbox_that_is_removed_under_a_film_is_filled_after_all(start: Start) -> None:
    daemon = start(frame_seconds=0.01)
    film = arrive(daemon, "film.mp4", 200)
    daemon.start()
    daemon.wait(lambda: 1 in daemon.segments_begun("film.mp4"))
    os.kill(daemon.worker_pid, signal.SIGSTOP)  # or it would fill the folder again meanwhile
    shutil.rmtree(daemon.outbox)
    os.kill(daemon.worker_pid, signal.SIGCONT)
    daemon.wait_for_ends(1)
    assert daemon.stop() == 0
    assert [job.state for job in daemon.jobs()] == [State.DONE]
    assert daemon.results == ["film.color.mp4"]
    check_film(film, daemon.outbox / "film.color.mp4")


def test_files_whose_events_the_kernel_drops_are_found_all_the_same(start: Start) -> None:
    daemon = start()
    daemon.start()
    daemon.wait_ready()
    noise = daemon.inbox / "noise.txt"
    daemon.signal(signal.SIGSTOP)
    for _ in range(int(QUEUED_EVENTS.read_text())):  # each of them is at least one event
        noise.touch()
        noise.unlink()
    for number in range(5):
        arrive(daemon, f"{number}.png")
    daemon.signal(signal.SIGCONT)
    daemon.wait_for_ends(5)  # a scan that was due anyway may be ahead of the queue
    daemon.wait(lambda: "events were lost; scanning the whole inbox" in daemon.said())
    assert daemon.stop() == 0
    assert daemon.results == [f"{number}.color.png" for number in range(5)]


def test_films_of_any_name_come_out_and_those_of_one_name_beside_each_other(start: Start) -> None:
    daemon = start()
    names = ["line\nend \x1b[2J.mp4", "ünï 日本 \U0001f39e.mp4", "x" * 251 + ".mp4"]
    for name in (*names, "same.mkv"):
        arrive(daemon, name, 6)
    make_film(daemon.inbox / "same.avi", 6, codec="mpeg4")  # is written as Matroska, too
    daemon.start()
    daemon.wait_for_ends(5)
    assert [job.state for job in daemon.jobs()] == [State.DONE] * 5
    assert daemon.stop() == 0
    assert len(daemon.results) == 5
    assert {"same.color.mkv", "same.color (2).mkv"} < {*daemon.results}
    for name in names[:2]:
        check_film(daemon.inbox / name, daemon.outbox / f"{Path(name).stem}.color.mp4")


def test_dates_names_and_paths_that_nothing_else_can_hold_end_nobodys_work(start: Start) -> None:
    daemon = start()
    daemon.start()
    daemon.wait_ready()
    far = arrive(daemon, "far.png")
    os.utime(far, (10_413_792_000, 10_413_792_000))  # the year 2300: too large for SQLite
    nameless = daemon.inbox / os.fsdecode(b"caf\xe9.png")  # no UTF-8
    nameless.write_bytes(far.read_bytes()[:200])
    here = os.open(daemon.inbox, os.O_RDONLY)
    try:
        for _ in range(25):  # folders, one inside the other, until no path leads to the last
            os.mkdir("d" * 200, dir_fd=here)
            there = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = there
        file = os.open("deep.png", os.O_CREAT | os.O_WRONLY, dir_fd=here)
        os.write(file, far.read_bytes())
        os.close(file)
    finally:
        os.close(here)
    daemon.wait_for_ends(1)
    os.kill(daemon.pid, signal.SIGHUP)  # looks at everything
    daemon.wait(lambda: "deep.png: its result would have a path of" in daemon.said())
    arrive(daemon, "last.png")
    daemon.wait(lambda: len(daemon.jobs(State.DONE)) == 2)
    daemon.wait(lambda: len(daemon.jobs(State.FAILED)) == 2)
    assert daemon.stop() == 0
    results = sorted(path.name for path in daemon.outbox.glob("*.png"))
    assert results == ["far.color.png", "last.color.png"]
    assert (daemon.outbox / "far.color.png").stat().st_mtime_ns == far.stat().st_mtime_ns
    daemon.start()
    daemon.wait(lambda: daemon.said().count("ready on") == 3)
    assert daemon.stop() == 0
    assert {job.source.name for job in daemon.jobs(State.FAILED)} == {nameless.name, "deep.png"}


def test_what_is_planted_where_results_belong_is_named_once_and_waited_for(start: Start) -> None:
    daemon = start()
    others = daemon.root / "others"
    others.mkdir()
    daemon.outbox.mkdir(exist_ok=True)
    (daemon.outbox / "link").symlink_to(others)
    (daemon.outbox / "file").write_text("mine")
    (daemon.outbox / "failed").symlink_to(others)
    for name in ("link", "file"):
        (daemon.inbox / name).mkdir()
    for name in ("link/a.png", "link/b.png", "file/c.png", "d.png"):
        arrive(daemon, name)
    daemon.start()
    daemon.wait(lambda: [job.code for job in daemon.jobs(State.QUEUED)] == ["way"] * 3)
    daemon.wait(lambda: daemon.jobs(State.DONE))
    said = daemon.said()
    assert said.count(f"{daemon.outbox}/link: it is a symbolic link") == 1
    assert said.count(f"{daemon.outbox}/file: it is a file") == 1 and "failed" not in said
    (daemon.outbox / "link").unlink()
    (daemon.outbox / "file").unlink()
    daemon.wait_for_ends(4)
    assert daemon.stop() == 0
    assert [job.state for job in daemon.jobs()] == [State.DONE] * 4
    assert daemon.results == ["d.color.png", "file/c.color.png", "link/a.color.png",
                              "link/b.color.png"]  # fmt: skip
    assert [*others.iterdir()] == []


def test_a_result_whose_path_nobody_could_open_leaves_no_folders_behind(start: Start) -> None:
    daemon = start()
    photo = write_photo(daemon.root / "made.png").read_bytes()
    here = os.open(daemon.inbox, os.O_RDONLY)
    for _ in range(45):
        os.mkdir("d" * 90, dir_fd=here)
        below = os.open("d" * 90, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    with open(os.open("a.png", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:  # noqa: PTH123
        file.write(photo)
    os.close(here)
    daemon.start()
    daemon.wait_for_ends(1)
    assert daemon.stop() == 0
    (job,) = daemon.jobs()
    assert (job.state, job.code, job.attempts) == (State.FAILED, "media", 1)
    assert "expected at most 4095" in job.reason
    assert [path.name for path in daemon.outbox.iterdir()] == ["failed"]
