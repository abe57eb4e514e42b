"""A film has the same bytes whoever makes which part of it: one worker, two or three."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import own_threads
from films import (
    EXACT,
    Listener,
    Painter,
    make_film,
    packets,
    pictures,
    short_segments,
    times,
)
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import floats, integers, lists
from test_awkward_films import (
    auto,
    black_between_two_shots,
    no_times_at_all,
    one_frame,
    only_shots_of_one_frame,
    screen_capture,
    two_frames_between_two_shots,
)

from colordaemon.errors import Interrupted, MediaError
from colordaemon.film import scout
from colordaemon.film.colorize import FilmJob, FilmReport, color_film, plan_film
from colordaemon.film.plan import ResumePoint, SegmentResult, SegmentTask
from colordaemon.film.scout import Stretches
from colordaemon.film.segment import SegmentWorker
from colordaemon.work_context import WorkContext


def color_with(
    workers: int, job: FilmJob, done: Path, colorizer: Any = None, **options: Any
) -> FilmReport:
    """Color a film with so many workers. All are threads here: helpers in processes of their own
    differ only in how tasks get to them."""
    colorizer = colorizer or Painter()
    helpers: list[Any] = [SegmentWorker(colorizer) for _ in range(workers - 1)]
    job = replace(job, most_workers=workers)
    return color_film(job, done, colorizer, helpers=lambda: helpers, **options)


def many_shots(path: Path) -> Path:
    return make_film(path.with_suffix(".mp4"), pictures(60, shot_frames=7))


def one_long_shot(path: Path) -> Path:
    """Longer than smoothing looks back, so that some begin in its middle."""
    return make_film(path.with_suffix(".mp4"), 90)


def partly_in_color(path: Path) -> Path:
    def colorful(image: Any, number: int) -> Any:
        if number // 6 % 2:
            for plane, code in zip(image.planes[1:], (70, 180), strict=True):
                half = bytes([code]) * (plane.buffer_size // 2)
                plane.update(half + bytes([255 - code]) * (plane.buffer_size - len(half)))
        return image

    images = (colorful(image, n) for n, image in enumerate(pictures(30, shot_frames=6)))
    return make_film(path.with_suffix(".mp4"), images)


def damaged_in_the_middle(path: Path) -> Path:
    source = many_shots(path)
    data = bytearray(source.read_bytes())
    middle = data.index(b"mdat") + len(data) // 2
    data[middle : middle + 60] = bytes(60)
    source.write_bytes(data)
    return source


@pytest.mark.parametrize(
    "make",
    [
        one_frame,
        two_frames_between_two_shots,
        only_shots_of_one_frame,
        black_between_two_shots,
        screen_capture,
        no_times_at_all,
        many_shots,
        one_long_shot,
        partly_in_color,
        damaged_in_the_middle,
    ],
)
@pytest.mark.parametrize("stride", [1, "auto"])
def test_two_and_three_workers_give_the_film_of_one(
    tmp_path: Path,
    make: Callable[[Path], Path],
    stride: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = make(tmp_path / "film")
    update = {"segment_seconds": 0.1, "stride": stride, "damaged_percent": 90.0}
    job = plan_film(source, auto(EXACT, "motion", **update), force=make is partly_in_color)
    caplog.set_level(logging.INFO)
    one = tmp_path / f"one{job.target.suffix}"
    alone = color_with(1, job, one)
    for workers in (2, 3):
        together = tmp_path / f"{workers}{job.target.suffix}"
        assert color_with(workers, job, together) == alone
        assert is_same(together, one)
    assert "going on with one worker" not in caplog.text


def is_same(one: Path, other: Path) -> bool:
    """To the byte; but Matroska files have numbers that are drawn by lot."""
    if one.suffix != ".mkv":
        return one.read_bytes() == other.read_bytes()
    return times(one) == times(other) and packets(one, 0) == packets(other, 0)


@pytest.fixture
def job(tmp_path: Path) -> FilmJob:
    return plan_film(many_shots(tmp_path / "film"), short_segments(EXACT, 0.2))


@pytest.mark.parametrize("workers", [(1, 3), (3, 1), (2, 2)])
def test_an_interrupted_film_goes_on_with_any_number_of_workers(
    tmp_path: Path, job: FilmJob, workers: tuple[int, int]
) -> None:
    listener = Listener(lambda listener: len(listener.frames) >= 25)
    work, done = tmp_path / "work", tmp_path / "done.mp4"
    with pytest.raises(Interrupted, match=r"film\.mp4"):
        color_with(workers[0], job, done, context=listener, work=work)
    kept = len(list(work.glob("*.segment")))
    assert kept >= 1 and len(own_threads()) == 1
    report = color_with(workers[1], job, done, work=work)
    assert report.resumed == kept < report.segments
    color_with(1, job, tmp_path / "one.mp4")
    assert is_same(done, tmp_path / "one.mp4")


def test_segments_beyond_a_gap_are_used_again(tmp_path: Path, job: FilmJob) -> None:
    work, done = tmp_path / "work", tmp_path / "done.mp4"
    count = color_with(1, job, done, work=work).segments
    first = done.read_bytes()
    for number in (1, 3):
        (work / f"{number:06}.segment").unlink()
    for workers in (1, 2):
        again = tmp_path / f"again{workers}"
        shutil.copytree(work, again)
        listener = Listener()
        report = color_with(workers, job, done, work=again, context=listener)
        assert report.resumed == count - 2 and report.segments == count
        assert listener.segments[-1] == count
        assert len(listener.frames) < 20
        assert done.read_bytes() == first


def test_progress_counts_every_frame_once_and_ends_near_the_end(
    tmp_path: Path, job: FilmJob
) -> None:
    listener = Listener()
    report = color_with(3, job, tmp_path / "done.mp4", context=listener)
    assert len(listener.frames) == report.frames == 60
    assert listener.frames == sorted(listener.frames)
    assert 1.0 < listener.frames[-1] <= 2.4
    assert listener.segments[-1] == report.segments


class FailingHelper:
    """Fails at its first task."""

    def __init__(self, error: BaseException) -> None:
        self.context = WorkContext()
        self._error = error
        self.was_asked = False

    def run(self, task: SegmentTask) -> SegmentResult:
        self.was_asked = True
        raise self._error

    def close(self) -> None:
        pass


class Waiting(Painter):
    """Waits with its first picture until the helper was asked."""

    def __init__(self, helper: FailingHelper) -> None:
        super().__init__()
        self._helper = helper

    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        until = time.monotonic() + 60
        while not self._helper.was_asked and time.monotonic() < until:
            time.sleep(0.01)
        return super().guess(gray)


def test_an_error_of_a_helper_is_raised_where_the_film_was_asked_for(
    tmp_path: Path, job: FilmJob
) -> None:
    helper = FailingHelper(OSError(28, "No space left on device"))
    colorizer: Any = Waiting(helper)
    with pytest.raises(OSError, match="No space left"):
        color_film(
            replace(job, most_workers=2), tmp_path / "done.mp4", colorizer, helpers=lambda: [helper]
        )
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_film_that_is_not_the_same_after_a_seek_is_made_by_one_worker(
    tmp_path: Path, job: FilmJob, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    helper = FailingHelper(MediaError("film.mp4: the frame at pts 440 has changed"))
    colorizer: Any = Waiting(helper)
    color_film(
        replace(job, most_workers=2), tmp_path / "done.mp4", colorizer, helpers=lambda: [helper]
    )
    assert helper.was_asked and "has changed; going on with one worker" in caplog.text
    color_with(1, job, tmp_path / "one.mp4")
    assert is_same(tmp_path / "done.mp4", tmp_path / "one.mp4")


def test_helpers_take_part_only_as_far_as_there_is_memory(tmp_path: Path) -> None:
    film = many_shots(tmp_path / "film")
    most = [
        plan_film(film, EXACT, memory_bytes=mebibytes << 20).most_workers
        for mebibytes in (1250, 2300, 4000, 16000)
    ]
    assert most[0] == 1 and most == sorted(most) and most[-1] > 5
    helper = FailingHelper(AssertionError("asked"))
    job = replace(plan_film(film, short_segments(EXACT, 0.2)), most_workers=1)
    color_film(job, tmp_path / "done.mp4", Painter(), helpers=lambda: [helper])  # type: ignore[arg-type]
    assert not helper.was_asked


def tasks_of(job: FilmJob, count: int, every: int = 1) -> list[SegmentTask]:
    """Tasks of a second each, of which every so-many-th begins with a cut."""
    first = SegmentTask(0, job.source, job.encoder, Path("0"), 1.0, 2.0)
    ticks = int(1 / job.source.time_base)
    tasks = [first]
    for number in range(1, count):
        pts, shot = number * ticks, (number - number % every) * ticks
        point = ResumePoint(pts, 0, pts, shot, 0, shot - 1, 0)
        tasks.append(replace(first, index=number, start=point))
    return tasks


def test_stretches_are_parted_at_cuts(job: FilmJob) -> None:
    stretches = Stretches(4.0)
    for task in tasks_of(job, 12, every=5):
        stretches.add(task)
    stretches.end()
    taken = [stretches.take(worker, 0.0) for worker in (0, 1, 2)]
    assert [task and task.index for task in taken] == [0, 5, 10]
    assert [stretches.take(1, 0.0).index for _ in range(4)] == [6, 7, 8, 9]  # type: ignore[union-attr]


@given(
    count=integers(1, 40),
    seconds=floats(1, 50),
    every=integers(1, 9),
    turns=lists(integers(0, 3), max_size=200),
    known=integers(0, 40),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_task_is_taken_once_whoever_asks_when(
    job: FilmJob, count: int, seconds: float, every: int, turns: list[int], known: int
) -> None:
    """known: how many tasks the scout has found when the workers begin."""
    stretches, tasks, taken = Stretches(seconds), tasks_of(job, count, every), list[int]()
    for task in tasks[:known]:
        stretches.add(task)
    for worker in turns:
        if (found := stretches.take(worker, 0.0)) is not None:
            taken.append(found.index)
    for task in tasks[known:]:
        stretches.add(task)
    stretches.end()
    for worker in (0, 1, 2, 3):
        while (found := stretches.take(worker, 0.0)) is not None:
            taken.append(found.index)
    assert sorted(taken) == list(range(count))


def test_a_film_that_cannot_be_searched_is_parted_near_its_beginning_only(
    job: FilmJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or each worker would decode hours of it again for each stretch."""
    monkeypatch.setattr(scout, "SHORT_WAY", 3.0)
    stretches = Stretches(2.0)
    for task in tasks_of(job, 12):  # it has no keyframe but the first
        stretches.add(task)
    stretches.end()
    taken = [stretches.take(0, 0.0) for _ in range(12)]
    assert [task and task.index for task in taken] == [*range(12)]
