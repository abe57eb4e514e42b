"""Several inboxes in one daemon: real processes, real folders, and a stand-in for the worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeDisk
from daemons import Daemon
from films import luma_differences, make_film, times
from programs import stand_in

from colordaemon.service.job import State

HOME = "{inbox: in/home, outbox: out/home, preset: home.yaml}"
ARCHIVE = "{inbox: in/archive, outbox: out/archive, preset: archive.yaml, priority: 5}"


def listed(*entries: str) -> str:
    return "inboxes:\n" + "".join(f"  - {entry}\n" for entry in entries)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Not started yet, with two inboxes."""
    daemon = Daemon(
        tmp_path / "place", Path("none"), folders=listed(HOME, ARCHIVE), work=stand_in.main
    )
    for name in ("home", "archive"):
        (daemon.inbox / name).mkdir()
        preset = f"output: {{name: '{{stem}}.{name}{{suffix}}'}}"
        (daemon.root / f"{name}.yaml").write_text(preset)
    yield daemon
    daemon.close()


def drop(daemon: Daemon, *names: str) -> None:
    """Files arrive in one step each."""
    for name in names:
        made = daemon.root / "made"
        made.write_text(name)
        path = daemon.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made.rename(path)


def reconfigure(daemon: Daemon, before: str, after: str) -> None:
    text = daemon.config.read_text()
    assert before in text
    daemon.config.write_text(text.replace(before, after))


def states_of(daemon: Daemon) -> dict[str, tuple[str, int]]:
    """Of each inbox: its state, and how many files wait."""
    inboxes = daemon.ask("status")["daemon"]["inboxes"]
    return {Path(each["inbox"]).name: (each["state"], each["queued"]) for each in inboxes}


def test_each_inbox_has_its_outbox_its_preset_and_its_priority(daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_ready()
    daemon.ask("pause")
    drop(daemon, "home/1.png", "home/deep/2.png", "archive/3.png", "home/4.png", "archive/5.mp4")
    daemon.wait(lambda: len(daemon.jobs(State.QUEUED)) == 5)
    assert states_of(daemon) == {"home": ("watched", 3), "archive": ("watched", 2)}
    daemon.ask("first", jobs=[str(daemon.inbox / "home/4.png")])
    daemon.ask("resume")
    daemon.wait_for_ends(5)
    done = sorted(daemon.jobs(State.DONE), key=lambda job: job.changed)
    order = [job.source.name for job in done]
    assert order[:3] == ["4.png", "3.png", "5.mp4"] and set(order[3:]) == {"1.png", "2.png"}
    assert daemon.stop() == 0
    assert daemon.results == [
        "archive/3.archive.png",
        "archive/5.archive.mp4",
        "home/1.home.png",
        "home/4.home.png",
        "home/deep/2.home.png",
    ]


def test_an_inbox_that_vanishes_holds_up_nobody_and_loses_nothing(daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_ready()
    daemon.ask("pause")
    drop(daemon, "home/1.png", "home/2.png")
    daemon.wait(lambda: len(daemon.jobs(State.QUEUED)) == 2)
    (daemon.inbox / "home").rename(daemon.root / "away")
    daemon.signal(signal.SIGHUP)  # or it would be noticed at the next scan
    daemon.wait(lambda: states_of(daemon)["home"] == ("gone", 2))
    daemon.ask("resume")
    drop(daemon, "archive/3.png")
    daemon.wait_for_ends(1)
    assert [job.source.name for job in daemon.jobs(State.DONE)] == ["3.png"]
    assert "in/home is gone" in daemon.ask("status")["daemon"]["waiting"]
    (daemon.root / "away").rename(daemon.inbox / "home")
    drop(daemon, "home/4.png")
    daemon.wait_for_ends(4)
    assert states_of(daemon) == {"home": ("watched", 0), "archive": ("watched", 0)}
    assert daemon.stop() == 0
    assert [job.state for job in daemon.jobs()] == [State.DONE] * 4
    assert len(daemon.results) == 4


def test_a_vanished_inbox_is_noticed_when_its_files_are_wanted(daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_ready()
    daemon.ask("pause")
    drop(daemon, *(f"archive/{number}.png" for number in range(20)), "home/a.png")
    daemon.wait(lambda: len(daemon.jobs(State.QUEUED)) == 21)
    (daemon.inbox / "archive").rename(daemon.root / "away")
    daemon.ask("resume")
    daemon.wait_for_ends(1)
    assert states_of(daemon) == {"home": ("watched", 0), "archive": ("gone", 20)}
    assert [job.source.name for job in daemon.jobs(State.DONE)] == ["a.png"]
    assert daemon.stop() == 0


def test_an_inbox_that_is_missing_at_the_start_is_waited_for(daemon: Daemon) -> None:
    (daemon.inbox / "home").rmdir()
    daemon.start()
    daemon.wait_ready()
    assert "in/home cannot be watched: No such file or directory; waiting" in daemon.said()
    assert states_of(daemon)["home"] == ("gone", 0)
    drop(daemon, "archive/1.png")
    daemon.wait_for_ends(1)
    assert not (daemon.outbox / "home").exists()  # it may lie on the disk that is missing
    drop(daemon, "home/2.png")
    daemon.wait_for_ends(2)
    assert daemon.stop() == 0
    assert daemon.results == ["archive/1.archive.png", "home/2.home.png"]


def test_an_inbox_that_turns_out_to_be_another_is_not_watched(
    daemon: Daemon, make_disk: MakeDisk
) -> None:
    """A mount may show a folder in a second place, but not while it is missing."""
    disk = make_disk("size=64k")
    (disk / "home").mkdir()
    reconfigure(daemon, "inbox: in/home", f"inbox: {disk}/home")
    reconfigure(daemon, "inbox: in/archive", f"inbox: {daemon.root}/mounted/home")
    daemon.start()
    daemon.wait_ready()
    (daemon.root / "mounted").mkdir()
    line = ["mount", "--bind", str(disk), str(daemon.root / "mounted")]
    subprocess.run(line, check=True)  # noqa: S603
    try:
        daemon.wait(lambda: "inboxes.1.inbox as well" in daemon.said())
        (disk / "home" / "a.png").write_text("a")
        daemon.wait_for_ends(1)
        assert daemon.stop() == 0
    finally:
        subprocess.run(["umount", str(daemon.root / "mounted")], check=True)  # noqa: S603, S607
    assert daemon.results == ["home/a.home.png"]


def test_a_disk_that_is_mounted_late_and_taken_away_brings_its_inbox(
    daemon: Daemon, make_disk: MakeDisk
) -> None:
    disk = make_disk("size=64k")
    point = daemon.inbox / "home"  # an empty folder, as long as nothing is mounted
    (disk / "home").mkdir()
    mount = ["mount", "--bind", str(disk), str(point)]
    reconfigure(daemon, "inbox: in/home", "inbox: in/home/home")
    daemon.start()
    daemon.wait_ready()
    assert states_of(daemon)["home"] == ("gone", 0)
    try:
        for number in range(2):
            subprocess.run(mount, check=True)  # noqa: S603
            (disk / "home" / f"{number}.png").write_text("a")
            daemon.wait_for_ends(number + 1)
            subprocess.run(["umount", "--lazy", str(point)], check=True)  # noqa: S603, S607
            daemon.signal(signal.SIGHUP)
            daemon.wait(lambda: states_of(daemon)["home"] == ("gone", 0))
    finally:
        subprocess.run(["umount", "--quiet", "--lazy", str(point)], check=False)  # noqa: S603, S607
    assert [*point.iterdir()] == []  # nothing was made where the disk goes
    assert daemon.stop() == 0
    assert daemon.results == ["home/0.home.png", "home/1.home.png"]


def test_a_film_makes_way_for_an_urgent_one_and_loses_nothing(tmp_path: Path, model: Path) -> None:
    daemon = Daemon(tmp_path / "place", model, frame_seconds=0.01, folders=listed(HOME, ARCHIVE))
    try:
        for name in ("home", "archive"):
            (daemon.inbox / name).mkdir()
            (daemon.root / f"{name}.yaml").touch()
        make_film(daemon.root / "film.mp4", 300).rename(daemon.inbox / "home/film.mp4")
        daemon.start()
        daemon.wait(lambda: 2 in daemon.segments_begun("film.mp4"))
        make_film(daemon.root / "film.mp4", 100).rename(daemon.inbox / "archive/urgent.mp4")
        daemon.wait_for_ends(2)
        assert daemon.stop() == 0
    finally:
        daemon.close()
    done = sorted(daemon.jobs(State.DONE), key=lambda job: job.changed)
    assert [job.source.name for job in done] == ["urgent.mp4", "film.mp4"]
    begun = daemon.segments_begun("film.mp4")
    assert sorted(set(begun)) == list(range(6)) and len(begun) <= 6 + 1
    film, result = daemon.inbox / "home/film.mp4", daemon.outbox / "home/film.color.mp4"
    assert times(result) == times(film)
    assert set(luma_differences(film, result)) == {0}


def test_one_inbox_becomes_several_and_nothing_is_lost_or_done_again(daemon: Daemon) -> None:
    text = daemon.config.read_text()
    reconfigure(daemon, listed(HOME, ARCHIVE), "inbox: in/home\noutbox: out/home\n")
    daemon.start()
    drop(daemon, "home/1.png")
    daemon.wait_for_ends(1)
    daemon.ask("pause")
    drop(daemon, "home/2.png")
    daemon.wait(lambda: daemon.jobs(State.QUEUED))
    assert daemon.stop() == 0
    daemon.config.write_text(text)
    daemon.start()
    drop(daemon, "archive/3.png")
    daemon.wait(lambda: len(daemon.jobs(State.QUEUED)) == 2)
    daemon.ask("resume")
    daemon.wait_for_ends(3)
    assert daemon.stop() == 0
    assert daemon.results == ["archive/3.archive.png", "home/1.color.png", "home/2.home.png"]
    assert [job.state for job in daemon.jobs()] == [State.DONE] * 3


def test_inboxes_come_and_go_while_the_daemon_runs(daemon: Daemon) -> None:
    reconfigure(daemon, listed(HOME, ARCHIVE), listed(HOME))
    daemon.start()
    daemon.wait_ready()
    daemon.ask("pause")
    drop(daemon, "home/1.png", "archive/2.png")
    daemon.wait(lambda: len(daemon.jobs(State.QUEUED)) == 1)
    reconfigure(daemon, listed(HOME), listed(ARCHIVE))
    daemon.signal(signal.SIGHUP)
    daemon.wait(lambda: "the new configuration is in use" in daemon.said())
    daemon.ask("resume")
    daemon.wait_for_ends(1)
    assert daemon.results == ["archive/2.archive.png"]
    status = daemon.ask("status")["daemon"]
    assert (status["orphaned"], len(status["inboxes"])) == (1, 1)
    reconfigure(daemon, listed(ARCHIVE), listed(ARCHIVE.replace("out/archive", "out/else"), HOME))
    daemon.signal(signal.SIGHUP)
    daemon.wait(lambda: "change only with a restart" in daemon.said())
    reconfigure(daemon, "out/else", "out/archive")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_ends(2)
    assert daemon.ask("status")["daemon"]["orphaned"] == 0
    assert daemon.stop() == 0
    assert daemon.results == ["archive/2.archive.png", "home/1.home.png"]


def test_other_priorities_hold_for_what_is_queued(daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_ready()
    daemon.ask("pause")
    drop(daemon, "home/1.png", "archive/2.png", "home/urgent/3.png")
    daemon.wait(lambda: len(daemon.jobs(State.QUEUED)) == 3)
    reconfigure(daemon, "priority: 5", "priority: -5")
    daemon.config.write_text(daemon.config.read_text() + "priorities: {urgent: 9}\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait(lambda: "the new configuration is in use" in daemon.said())
    daemon.wait(lambda: [job.priority for job in daemon.jobs(State.QUEUED)] == [9, 0, -5])
    daemon.ask("resume")
    daemon.wait_for_ends(3)
    done = sorted(daemon.jobs(State.DONE), key=lambda job: job.changed)
    assert [job.source.name for job in done] == ["3.png", "1.png", "2.png"]
    assert daemon.stop() == 0


def test_sources_go_to_the_archive_of_their_inbox(daemon: Daemon) -> None:
    reconfigure(daemon, "preset: home.yaml", "archive: old/home")
    daemon.config.write_text(
        daemon.config.read_text() + "after: {source: move, archive: old/rest}\n"
    )
    daemon.start()
    drop(daemon, "home/1.png", "archive/deep/2.png")
    daemon.wait_for_ends(2)
    assert daemon.stop() == 0
    left = [path for path in daemon.inbox.rglob("*") if path.is_file()]
    moved = [path for path in (daemon.root / "old").rglob("*") if path.is_file()]
    assert left == []
    names = sorted(str(path.relative_to(daemon.root)) for path in moved)
    assert names == ["old/home/1.png", "old/rest/deep/2.png"]


def watch(daemon: Daemon) -> subprocess.CompletedProcess[str]:
    """A daemon that ends at once."""
    line = [sys.executable, "-m", "colordaemon", "watch", "--config", str(daemon.config)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603


def test_all_that_is_wrong_with_inboxes_is_told_at_the_start(daemon: Daemon) -> None:
    entries = ["{inbox: in, outbox: out}", "{inbox: in/home, outbox: in/archive/out}"]
    reconfigure(daemon, listed(HOME, ARCHIVE), listed(*entries))
    ended = watch(daemon)
    assert ended.returncode == 78
    assert f"inboxes.2.inbox: {daemon.inbox}/home lies inside the inbox" in ended.stderr
    assert f"inboxes.2.outbox: {daemon.inbox}/archive/out lies inside the inbox" in ended.stderr
    for name in ("film", "file"):
        (daemon.root / name).touch()
    reconfigure(daemon, "{inbox: in, ", "{inbox: film, ")
    reconfigure(daemon, "outbox: in/archive/out", "outbox: file/out")
    ended = watch(daemon)
    assert ended.returncode == 78
    assert f"inboxes.1.inbox: {daemon.root}/film is no folder" in ended.stderr
    assert "inboxes.2.outbox: cannot write to" in ended.stderr


def test_two_daemons_never_share_one_of_their_inboxes(daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_ready()
    reconfigure(daemon, "state_dir: state", "state_dir: other")
    reconfigure(daemon, listed(HOME, ARCHIVE), listed("{inbox: in/new, outbox: out}", ARCHIVE))
    ended = watch(daemon)  # for want of a model, or it would wait
    said = f"{daemon.inbox}/archive cannot be watched: process {daemon.pid} (python"
    assert said in ended.stderr and "holds a lock on it; waiting for it" in ended.stderr
    assert daemon.stop() == 0


def test_status_shows_every_inbox(daemon: Daemon) -> None:
    (daemon.inbox / "home").rmdir()
    daemon.start()
    daemon.wait_ready()
    line = [sys.executable, "-m", "colordaemon", "status", "--config", str(daemon.config)]
    environment = os.environ | {"COLUMNS": "400", "PATH": ""}
    said = subprocess.run(line, capture_output=True, text=True, check=True, env=environment).stdout  # noqa: S603
    assert f"{daemon.inbox}/home" in said and "No such file or directory" in said
    assert f"{daemon.inbox}/archive" in said and "watched" in said
    said = subprocess.run([*line, "--json"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    states = [inbox["state"] for inbox in json.loads(said)["daemon"]["inboxes"]]
    assert states == ["gone", "watched"]
    assert daemon.stop() == 0
