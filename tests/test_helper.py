"""A helper: a real process that makes segments of a film for this one."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import own_threads
from films import EXACT, Listener, Painter, make_film, pictures, short_segments

from colordaemon.errors import HelperDied, Interrupted
from colordaemon.film.colorize import FilmJob, FilmReport, color_film, plan_film
from colordaemon.film.helper import HelperProcess
from colordaemon.film.plan import SegmentResult, SegmentTask
from colordaemon.inbox.safe_open import anchored, opened


class Counted(HelperProcess):
    """Knows how many segments it has made."""

    made = 0

    def run(self, task: SegmentTask) -> SegmentResult:
        result = super().run(task)
        self.made += 1
        return result


class Patient(Painter):
    """Paints only after the helper has made a segment, so that there are some of both."""

    def __init__(self, helper: Counted, patience: float = 100.0) -> None:
        super().__init__()
        self._helper, self._until = helper, time.monotonic() + patience

    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        while not self._helper.made and time.monotonic() < self._until:
            time.sleep(0.01)
        return super().guess(gray)


class FullDisk(Painter):
    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")


class Endless(Painter):
    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        while True:
            time.sleep(1.0)


class Talking(Painter):
    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logging.getLogger("colordaemon.painter").warning("a word from %s", "the helper")
        return super().guess(gray)


class Deadly(Painter):
    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError("alive")


@pytest.fixture(scope="module")
def process() -> Iterator[Counted]:
    helper = Counted({"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    yield helper
    helper.end()


@pytest.fixture
def helper(process: Counted) -> Counted:
    process.load, process.made = Painter, 0  # type: ignore[assignment]
    process.start()
    return process


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return make_film(tmp_path / "film.mp4", pictures(60, shot_frames=7))


def job_of(film: Path) -> FilmJob:
    return replace(plan_film(film, short_segments(EXACT, 0.2)), most_workers=2)


def color_with(
    helpers: list[Counted], job: FilmJob, done: Path, patience: float = 100.0, **options: Any
) -> FilmReport:
    colorizer: Any = Patient(helpers[0], patience) if helpers else Painter()
    return color_film(job, done, colorizer, helpers=lambda: helpers, **options)


def test_a_film_of_two_processes_is_that_of_one(
    tmp_path: Path, film: Path, helper: Counted
) -> None:
    job, one, two = job_of(film), tmp_path / "one.mp4", tmp_path / "two.mp4"
    listener = Listener()
    report = color_with([helper], job, two, context=listener)
    assert 0 < helper.made < report.segments == listener.segments[-1]
    assert len(listener.frames) == report.frames == 60
    color_with([], job, one)
    assert one.read_bytes() == two.read_bytes()


def test_a_helper_reads_what_is_open_here_whatever_has_its_name_now(
    tmp_path: Path, film: Path, helper: Counted
) -> None:
    """And writes into a folder that has another name by now."""
    color_with([], job_of(film), tmp_path / "one.mp4")
    (tmp_path / "out").mkdir()
    with opened(film) as source, anchored(tmp_path, tmp_path / "out") as out:
        job = job_of(source)
        film.rename(tmp_path / "the film.mp4")
        film.write_bytes(b"something else")
        (tmp_path / "out").rename(tmp_path / "moved")
        color_with([helper], job, out / "two.mp4")
    assert helper.made
    assert (tmp_path / "moved" / "two.mp4").read_bytes() == (tmp_path / "one.mp4").read_bytes()
    assert str(source) == str(film)


def test_an_error_in_a_helper_is_what_it_would_be_here(
    tmp_path: Path, film: Path, helper: Counted
) -> None:
    helper.load = FullDisk  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left on device: '/somewhere'") as failure:
        color_with([helper], job_of(film), tmp_path / "done.mp4", patience=3.0)
    assert failure.value.errno == errno.ENOSPC
    assert "in guess" in failure.value.__notes__[0]
    assert len(own_threads()) == 1


def test_a_helper_that_dies_is_told_of_with_the_film_and_replaced(
    tmp_path: Path, film: Path, helper: Counted
) -> None:
    helper.load = Deadly  # type: ignore[assignment]
    with pytest.raises(
        HelperDied, match=r"film\.mp4: a helper process has died, killed by SIGSEGV"
    ):
        color_with([helper], job_of(film), tmp_path / "done.mp4", patience=3.0)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    helper.load = Painter  # type: ignore[assignment]
    helper.start()
    color_with([helper], job_of(film), tmp_path / "done.mp4")
    assert helper.made


def test_a_helper_that_hangs_is_killed_and_the_film_is_blamed(
    tmp_path: Path, film: Path, helper: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    color_with([helper], job_of(film), tmp_path / "done.mp4")  # by then it has loaded everything
    monkeypatch.setattr(helper, "_hang_seconds", 1.0)
    helper.load, helper.made = Endless, 0  # type: ignore[assignment]
    with pytest.raises(HelperDied, match=r"film\.mp4: a helper .* died, no sign of life for \d+ s"):
        color_with([helper], job_of(film), tmp_path / "done.mp4", patience=3.0)
    assert len(own_threads()) == 1


def test_what_a_helper_logs_is_logged_here(
    tmp_path: Path,
    film: Path,
    helper: Counted,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    helper.load = Talking  # type: ignore[assignment]
    color_with([helper], job_of(film), tmp_path / "done.mp4")
    assert helper.made
    record = next(each for each in caplog.records if each.name == "colordaemon.painter")
    assert (record.levelname, record.getMessage()) == ("WARNING", "a word from the helper")
    assert "a word" not in capfd.readouterr().err


def test_a_helper_stops_with_the_film_and_what_it_made_is_used(
    tmp_path: Path, film: Path, helper: Counted
) -> None:
    listener = Listener(lambda _: helper.made >= 2)
    job, work, done = job_of(film), tmp_path / "work", tmp_path / "done.mp4"
    with pytest.raises(Interrupted, match=r"film\.mp4: stopped"):
        color_with([helper], job, done, context=listener, work=work)
    made = helper.made
    report = color_with([helper], job, done, work=work)
    assert made <= report.resumed < report.segments
    color_with([], job, tmp_path / "one.mp4")
    assert done.read_bytes() == (tmp_path / "one.mp4").read_bytes()
