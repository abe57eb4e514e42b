"""`colordaemon watch` as systemd runs it: real processes, real files, real SIGKILL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from command import write_photo
from conftest import MakeDisk, Start
from daemons import Daemon
from films import luma_differences, make_film, times

from colordaemon.service.job import State

KILLS = int(os.environ.get("COLORDAEMON_KILLS", "4"))  # for a soak: 50 and more


def drop(daemon: Daemon, name: str | bytes, color: bool = False) -> Path:
    """A photo arrives in one step, as a rename."""
    path = daemon.inbox / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = write_photo(daemon.root / "made.png", color)
    made.rename(path)
    return path


def wait_for_segments(daemon: Daemon, more: int) -> None:
    wanted = len(daemon.segments_begun()) + more
    daemon.wait(lambda: len(daemon.segments_begun()) >= wanted)


NAMES: list[str | bytes] = [
    "plain.png",
    "deep/er/photo.png",
    "ünï 日本 \U0001f39e.png",
    "line\nend\x1b[2J.png",
    "x" * 251 + ".png",
    b"no text \xff\xfe.png",
]


def test_whatever_its_name_every_photo_comes_out_once_and_the_others_are_told(start: Start) -> None:
    daemon = start("after: {checksum: true}\npresets: {old: bmp.yaml}")
    (daemon.root / "bmp.yaml").write_text("photo: {format: bmp}")
    early = drop(daemon, "before the start.png")
    early.chmod(0o640)
    os.utime(early, ns=(10**18, 10**18))
    daemon.start_untampered()
    daemon.wait_ready()
    for name in NAMES:
        drop(daemon, name)
    drop(daemon, "old/has a preset.png")
    drop(daemon, "in color.png", color=True)
    (daemon.inbox / "notes.txt").write_text("nothing to color")
    (daemon.inbox / "bad.mp4").write_text("no film")
    (daemon.inbox / "link.png").symlink_to(early)
    daemon.wait_for_ends(10)
    time.sleep(0.5)  # long enough for another scan's worth of events
    states = [job.state for job in daemon.jobs()]
    assert states.count(State.DONE) == 8
    assert states.count(State.SKIPPED) == states.count(State.FAILED) == 1
    results = [name for name in daemon.results if name.endswith(".png")]
    assert "old/has a preset.color.bmp" in daemon.results
    assert len(results) == 7 and "deep/er/photo.color.png" in results
    assert len([name for name in daemon.results if name.endswith(".sha256")]) == 8
    assert "no film" in (daemon.outbox / "failed" / "bad.mp4.error.txt").read_text()
    done = (daemon.outbox / "before the start.color.png").stat()
    assert (done.st_mode & 0o777, done.st_mtime_ns) == (0o640, 10**18)
    assert "\x1b" not in daemon.said()
    assert daemon.stop() == 0
    assert len([*daemon.inbox.rglob("*.png")]) == 10  # masters stay


def test_a_new_worker_goes_by_the_presets_of_the_daemon_until_they_are_loaded_anew(
    start: Start,
) -> None:
    daemon = start("presets: {old: preset.yaml}")
    preset = daemon.root / "preset.yaml"
    preset.write_text("photo: {format: bmp}")
    daemon.start()
    daemon.wait_ready()
    preset.write_text("photo: {format: png}")
    before = daemon.worker_pid
    os.kill(before, signal.SIGKILL)
    daemon.wait(lambda: daemon.worker_pids not in ([], [before]))
    drop(daemon, "old/early.jpg")
    daemon.wait_for_ends(1)
    daemon.signal(signal.SIGHUP)
    daemon.wait(lambda: "the new configuration is in use" in daemon.said())
    drop(daemon, "old/late.jpg")
    daemon.wait_for_ends(2)
    assert daemon.stop() == 0
    assert daemon.results == ["old/early.color.bmp", "old/late.color.png"]


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
    (daemon.inbox / "hang").touch()  # a daemon that hangs does not say that it is well
    daemon.wait((daemon.inbox / "hangs").exists)
    pings = daemon.hear().count("WATCHDOG=1")
    time.sleep(1.0)
    assert daemon.hear().count("WATCHDOG=1") == pings
    (daemon.inbox / "hangs").unlink()
    daemon.wait(lambda: daemon.hear().count("WATCHDOG=1") > pings)
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


def check_film(daemon: Daemon, name: str) -> None:
    """One whole result: every frame, at its time, with the source's luma."""
    film, result = daemon.inbox / f"{name}.mp4", daemon.outbox / f"{name}.color.mp4"
    assert times(result) == times(film)
    assert set(luma_differences(film, result)) == {0}


def test_a_film_goes_on_where_a_stop_or_a_dead_worker_left_it(start: Start) -> None:
    daemon = start(frame_seconds=0.01)
    film = make_film(daemon.root / "film.mp4", 400)
    film.rename(daemon.inbox / "film.mp4")
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
    check_film(daemon, "film")
    begun = daemon.segments_begun("film.mp4")
    assert sorted(set(begun)) == list(range(8))
    assert len(begun) <= 8 + 2  # one more for each interruption


@pytest.mark.timeout(120 + 30 * KILLS)
def test_killed_at_any_time_nothing_is_lost_and_nothing_comes_twice(start: Start) -> None:
    """The daemon is killed again and again, and ahead of every third time its worker."""
    daemon = start("after: {checksum: true}", frame_seconds=0.01)
    chance, films = np.random.default_rng(5), 1 + 2 * KILLS // 3
    made = make_film(daemon.root / "film.mp4", 400)
    for number in range(films):
        (daemon.inbox / f"film{number}.mp4").write_bytes(made.read_bytes())
    for round_ in range(KILLS):
        daemon.told.clear()
        daemon.start()
        drop(daemon, f"{round_}.png")
        daemon.wait_ready()
        if round_ % 3 == 2:  # twice without progress in between, and the film would be set aside
            wait_for_segments(daemon, 2)
            os.kill(daemon.worker_pid, signal.SIGKILL)
        time.sleep(chance.uniform(0.0, 3.0))
        daemon.kill()
    running = len(daemon.jobs(State.RUNNING, State.QUEUED))
    daemon.start()
    daemon.told.clear()
    daemon.wait_for_ends(films + KILLS, 60 + 10 * films)
    daemon.wait_ready()
    assert daemon.stop() == 0
    assert [job.state for job in daemon.jobs()] == [State.DONE] * (films + KILLS)
    names = [f"{path.stem}.color{path.suffix}" for path in daemon.inbox.iterdir()]
    assert daemon.results == sorted([*names, *(f"{name}.sha256" for name in names)])
    again = 0
    for number in range(films):
        check_film(daemon, f"film{number}")
        begun = daemon.segments_begun(f"film{number}.mp4")
        again += len(begun) - len(set(begun))
    kills = KILLS + KILLS // 3
    print(f"{kills} kills, {running} files left for the end, {again} segments begun again")
    assert again <= kills


def test_the_operator_pauses_goes_on_and_cancels(start: Start) -> None:
    daemon = start(frame_seconds=0.01)
    for name in ("a.mp4", "b.mp4"):
        make_film(daemon.root / name, 300).rename(daemon.inbox / name)
    daemon.start()
    daemon.wait(lambda: 1 in daemon.segments_begun("a.mp4"))
    assert daemon.ask("pause") == {"paused": True}
    daemon.wait(lambda: not daemon.jobs(State.RUNNING))
    assert daemon.ask("status")["daemon"]["waiting"] == "paused by command"
    begun = daemon.segments_begun()
    time.sleep(1.0)
    assert daemon.segments_begun() == begun
    daemon.ask("first", jobs=[str(daemon.inbox / "b.mp4")])
    daemon.ask("resume")
    daemon.wait(lambda: 1 in daemon.segments_begun("b.mp4"))
    (running,) = daemon.ask("status")["running"]
    assert running["source"].endswith("b.mp4")
    assert daemon.ask("cancel", jobs=[running["id"]]) == {"count": 1}
    daemon.wait_for_ends(2)
    assert daemon.stop() == 0
    assert {job.source.name: job.state for job in daemon.jobs()} == {
        "a.mp4": State.DONE,
        "b.mp4": State.CANCELLED,
    }
    assert daemon.results == ["a.color.mp4"]
    assert daemon.segments_begun("a.mp4").count(0) == 1


def test_a_full_disk_is_waited_out(make_disk: MakeDisk, start: Start) -> None:
    daemon, disk = start(), make_disk("size=400k")
    daemon.outbox.symlink_to(disk)
    film = make_film(daemon.inbox / "film.mp4", 400)
    assert film.stat().st_size > 400_000
    drop(daemon, "photo.png")
    daemon.start()
    daemon.wait(lambda: "waits for space" in daemon.said())
    assert [job.attempts for job in daemon.jobs(State.QUEUED)] == [0]
    line = ["mount", "-o", "remount,size=40m", str(disk)]
    subprocess.run(line, check=True)  # noqa: S603
    daemon.wait_for_ends(2)
    assert daemon.stop() == 0
    assert daemon.results == ["film.color.mp4", "photo.color.png"]
    check_film(daemon, "film")


def test_a_journal_that_finds_no_space_is_waited_for(make_disk: MakeDisk, start: Start) -> None:
    daemon, disk = start(), make_disk("size=8m")  # its log grows to four
    (daemon.root / "state").symlink_to(disk)
    daemon.start()
    daemon.wait_ready()
    filling = disk / "filling"
    with filling.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    for number in range(20):
        drop(daemon, f"{number}.png")
    daemon.wait(lambda: "the journal: database or disk is full" in daemon.said())
    filling.unlink()
    daemon.wait_for_ends(20)
    assert daemon.stop() == 0
    assert len(daemon.results) == 20


def test_an_outbox_that_is_removed_is_made_again(start: Start) -> None:
    daemon = start()
    daemon.start()
    drop(daemon, "sub/a.png")
    daemon.wait_for_ends(1)
    shutil.rmtree(daemon.outbox)
    drop(daemon, "sub/b.png")
    drop(daemon, "c.png")
    daemon.wait_for_ends(3)
    assert daemon.stop() == 0
    assert daemon.results == ["c.color.png", "sub/b.color.png"]


def test_two_daemons_do_not_share_an_inbox(start: Start) -> None:
    daemon = start()
    daemon.start()
    daemon.wait_ready()
    line = [sys.executable, "-m", "colordaemon", "watch", "--config", str(daemon.config)]
    other = subprocess.run(line, capture_output=True, text=True, check=False)  # noqa: S603
    assert other.returncode == 78
    assert "another daemon works with" in other.stderr
    worker = Path(f"/proc/{daemon.worker_pid}")
    daemon.kill()
    until = time.monotonic() + 5
    while worker.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not worker.exists()  # or it would write where the next one does
