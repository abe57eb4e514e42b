"""Segment tasks: plain, repeatable, in any order, in any process, with errors that surface once."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import own_threads
from films import (
    ARCHIVE,
    EXACT,
    SIZE,
    Listener,
    Painter,
    color,
    decode,
    frame_of,
    luma_differences,
    luma_of,
    make_film,
    picture_of,
    pictures,
    planes,
    short_segments,
    times,
)
from processes import FORKS

from colordaemon.color import chroma_planes
from colordaemon.config import Codec, FilmSettings
from colordaemon.errors import Interrupted, MediaError
from colordaemon.film.analysis import calmed
from colordaemon.film.chroma import frame_chroma
from colordaemon.film.colorize import FilmJob, color_film, plan_film, run_segments
from colordaemon.film.join import join, verify
from colordaemon.film.pipeline import frames_ahead
from colordaemon.film.plan import FilmPlan, SegmentTask
from colordaemon.film.segment import SegmentWorker, run_segment, start_worker
from colordaemon.media.demux import Damage
from colordaemon.media.probe import probe_film
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.model import ColorNet


def make_worker() -> SegmentWorker:
    """Importable, so that new processes find it."""
    return SegmentWorker(Painter())  # type: ignore[arg-type]


@pytest.fixture
def job(tmp_path: Path) -> FilmJob:
    options = {"qp": "0", "bf": "2"}
    source = make_film(tmp_path / "film.mp4", pictures(16, shot_frames=5), options=options)
    return plan_film(source, short_segments(EXACT, 0.15))


@pytest.fixture
def plan(job: FilmJob, tmp_path: Path) -> FilmPlan:
    """The finished plan of `job`, whose segment files lie in the folder `first`."""
    (tmp_path / "first").mkdir()
    worker = make_worker()
    with ThreadPoolExecutor(1, initializer=start_worker, initargs=(lambda: worker,)) as executor:
        plan = run_segments(job, tmp_path / "first", executor)
    worker.close()
    return plan


def tasks_of(job: FilmJob, plan: FilmPlan, folder: Path) -> list[SegmentTask]:
    """The tasks that another machine would get once the plan is known."""
    folder.mkdir()
    longest = job.settings.segment_seconds
    first = SegmentTask(0, job.source, job.encoder, folder / "0", longest, 2.0)
    tasks = []
    for before, segment in zip((None, *plan.segments), plan.segments, strict=False):
        tasks.append(
            replace(
                first,
                index=segment.index,
                path=folder / f"{segment.index}",
                start=before.next if before else None,
                damage=before.damage if before else Damage(),
                end_pts=segment.next.pts if segment.next else None,
            )
        )
    return tasks


def test_tasks_and_results_survive_pickling(job: FilmJob, plan: FilmPlan, tmp_path: Path) -> None:
    tasks = tasks_of(job, plan, tmp_path / "again")
    assert pickle.loads(pickle.dumps((job, tasks, plan))) == (job, tasks, plan)  # noqa: S301


def test_segments_end_by_rule_and_cover_the_film(plan: FilmPlan) -> None:
    assert len(plan.segments) == 4  # 0.15 s of 25 frames a second are four
    assert plan.frame_count == 16
    assert np.all(np.diff(plan.pts()) > 0)
    assert plan.segments[-1].next is None
    for segment, following in zip(plan.segments, plan.segments[1:], strict=False):
        assert segment.next is not None
        assert segment.next.pts == min(following.packet_pts) == segment.end_pts


def test_tasks_run_again_in_any_order_give_the_same_files(
    job: FilmJob, plan: FilmPlan, tmp_path: Path
) -> None:
    worker = make_worker()
    for task in reversed(tasks_of(job, plan, tmp_path / "again")):
        result, first = worker.run(task), plan.segments[task.index]
        assert result.path.read_bytes() == first.path.read_bytes()
        assert replace(result, path=first.path) == first
    worker.close()


def test_tasks_run_in_other_processes_give_the_same_film(
    job: FilmJob, plan: FilmPlan, tmp_path: Path
) -> None:
    tasks = tasks_of(job, plan, tmp_path / "again")
    with ProcessPoolExecutor(1, FORKS, initializer=start_worker, initargs=(make_worker,)) as pool:
        results = list(pool.map(run_segment, reversed(tasks)))
    again = FilmPlan(job.source, job.encoder)
    for result in reversed(results):
        again.add(result)
    paths = [tmp_path / "here.mp4", tmp_path / "there.mp4"]
    for some, path in zip((plan, again), paths, strict=True):
        join(some, job.target, path)
        verify(some, job.target, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert times(paths[1]) == times(job.source.path)
    assert luma_differences(job.source.path, paths[1]) == [0] * 16


def test_a_task_whose_first_picture_has_changed_is_refused(
    job: FilmJob, plan: FilmPlan, tmp_path: Path
) -> None:
    task = tasks_of(job, plan, tmp_path / "again")[1]
    assert task.start is not None
    worker = make_worker()
    with pytest.raises(MediaError, match="luma CRC"):
        worker.run(replace(task, start=replace(task.start, crc=task.start.crc ^ 1)))
    with pytest.raises(MediaError, match="no frame at pts 99999"):
        worker.run(replace(task, start=replace(task.start, pts=99999)))
    with pytest.raises(MediaError, match="no frame at pts 190"):
        worker.run(replace(task, start=replace(task.start, pts=190), end_pts=200))
    assert not task.path.exists()


def test_results_are_added_in_order(plan: FilmPlan) -> None:
    again = FilmPlan(plan.source, plan.encoder)
    with pytest.raises(ValueError, match="segment 1 after 0 segments"):
        again.add(plan.segments[1])


def test_a_film_that_lost_a_frame_does_not_pass_its_check(
    job: FilmJob, plan: FilmPlan, tmp_path: Path
) -> None:
    path = tmp_path / "done.mp4"
    join(plan, job.target, path)
    verify(plan, job.target, path)
    last = plan.segments[-1]
    plan.segments[-1] = replace(last, packet_pts=(*last.packet_pts, last.end_pts))
    with pytest.raises(MediaError, match="has 16 frames, expected 17"):
        verify(plan, job.target, path)
    plan.segments[-1] = replace(last, packet_pts=(*last.packet_pts[:-1], last.end_pts + 7))
    with pytest.raises(MediaError, match="has a frame at"):
        verify(plan, job.target, path)


def test_a_film_that_does_not_decode_does_not_pass_its_check(
    job: FilmJob, plan: FilmPlan, tmp_path: Path
) -> None:
    path = tmp_path / "done.mp4"
    join(plan, job.target, path)
    data = bytearray(path.read_bytes())
    media = data.index(b"mdat") + 4
    data[media : media + len(data) // 2] = bytes(len(data) // 2)
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"film\.mp4: the finished film does not decode"):
        verify(plan, job.target, path)


def test_segments_of_different_encoders_are_not_joined(
    job: FilmJob, plan: FilmPlan, tmp_path: Path
) -> None:
    options = tuple(sorted({**dict(job.encoder.options), "bf": "2", "refs": "4"}.items()))
    other = replace(job, encoder=replace(job.encoder, options=options))
    with ThreadPoolExecutor(1, initializer=start_worker, initargs=(make_worker,)) as executor:
        (tmp_path / "other").mkdir()
        foreign = run_segments(other, tmp_path / "other", executor)
    plan.segments[1] = foreign.segments[1]
    with pytest.raises(MediaError, match="encoder header differs"):
        join(plan, job.target, tmp_path / "done.mp4")


@pytest.mark.parametrize(
    ("codec", "preset", "parameters"),
    [
        ("hevc", "ultrafast", {"x265-params": "asm=0"}),
        ("h264", "ultrafast", {"x264-params": "asm=0"}),
        ("av1", "12", {"svtav1-params": "lp=1"}),
    ],
)
def test_segments_of_two_kinds_of_processor_are_joined(
    codec: Codec, preset: str, parameters: dict[str, str], tmp_path: Path
) -> None:
    """As when a film is interrupted and goes on at another machine."""
    source = make_film(tmp_path / "film.mkv", pictures(8), size=SIZE)
    plans: list[FilmPlan] = []
    for options in ({}, parameters):
        settings = FilmSettings(codec=codec, preset=preset, encoder_options=options)
        job = plan_film(source, short_segments(settings, 0.15))
        folder = tmp_path / f"segments{len(plans)}"
        folder.mkdir()
        with ThreadPoolExecutor(1, initializer=start_worker, initargs=(make_worker,)) as executor:
            plans.append(run_segments(job, folder, executor))
    here, there = plans
    here.segments[1] = there.segments[1]
    join(here, job.target, tmp_path / "done.mkv")
    verify(here, job.target, tmp_path / "done.mkv")
    assert len(decode(tmp_path / "done.mkv")) == 8


def test_a_stop_leaves_no_segment_file(job: FilmJob, tmp_path: Path) -> None:
    worker = SegmentWorker(Painter(), Listener(lambda _: True))  # type: ignore[arg-type]
    task = SegmentTask(0, job.source, job.encoder, tmp_path / "0", 10.0, 2.0)
    with pytest.raises(Interrupted):
        worker.run(task)
    assert not task.path.exists()


def test_an_error_in_the_encoder_surfaces_and_joins_all_threads(
    job: FilmJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("colordaemon.media.encode.merge_planes", full)
    with pytest.raises(OSError, match="No space left"):
        color_film(job, tmp_path / "done.mp4", Painter())  # type: ignore[arg-type]
    assert len(own_threads()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_frames_ahead_are_bounded_by_bytes(tmp_path: Path) -> None:
    info = probe_film(make_film(tmp_path / "film.mp4", 1))
    assert frames_ahead(info) == 32
    ultra = replace(info, width=3840, height=2160)
    assert 2 <= frames_ahead(ultra) <= 10
    assert frames_ahead(replace(info, width=30000, height=20000)) == 1


def test_no_color_means_neutral_chroma(tmp_path: Path) -> None:
    info = probe_film(make_film(tmp_path / "film.mp4", 1))
    frame = frame_of(picture_of(luma_of(0, (64, 48))))
    chroma = frame_chroma(frame, torch.zeros(2, 16, 16), info.code)
    assert chroma.shape == (2, 24, 32)
    assert (chroma == 128).all()
    assert frame.luma_crc() == frame_of(picture_of(luma_of(0, (64, 48)))).luma_crc()


def test_a_batch_of_one_and_a_batch_of_eight_paint_the_same(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 9)
    one = decode(color(source, colorizer=Painter(1)))
    eight = decode(color(source, colorizer=Painter(8)))
    for a, b in zip(one, eight, strict=True):
        assert all(bytes(p) == bytes(q) for p, q in zip(a.planes, b.planes, strict=True))


@pytest.mark.parametrize("batch_size", [3, 8])
def test_a_segment_made_alone_has_the_bytes_of_one_made_after_another(
    tmp_path: Path, tiny_model: ColorNet, batch_size: int
) -> None:
    """With sums of floats, which depend on what is in a batch, and in shots longer than smoothing
    looks back, so that a cold start begins in mid-shot."""
    source = make_film(tmp_path / "film.mkv", pictures(110, shot_frames=85))
    job = plan_film(source, short_segments(EXACT, 1.0))
    colorizer = Fluctuating(
        tiny_model, torch.device("cpu"), torch.float32, quality="draft", batch_size=batch_size
    )
    (tmp_path / "first").mkdir()
    worker = SegmentWorker(colorizer)
    with ThreadPoolExecutor(1, initializer=start_worker, initargs=(lambda: worker,)) as executor:
        plan = run_segments(job, tmp_path / "first", executor)
    worker.close()
    for task in reversed(tasks_of(job, plan, tmp_path / "again")):
        alone = SegmentWorker(colorizer)
        assert alone.run(task).path.read_bytes() == plan.segments[task.index].path.read_bytes()
        alone.close()


class Fluctuating(Colorizer):
    """Shows in its colors what is together in a batch, as rounding errors do in the last digit."""

    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ab, sure = super().guess(gray)
        return ab + 20 * gray.mean() + len(gray), sure


def test_a_film_in_segments_has_the_colors_of_its_pictures_alone(
    tmp_path: Path, tiny_model: ColorNet
) -> None:
    size = (96, 64)  # as the network sees it, so that no scaling comes in between
    source = make_film(tmp_path / "film.mkv", pictures(10, size, shot_frames=4), size=size)
    cpu = torch.device("cpu")
    colorizer = Colorizer(tiny_model, cpu, torch.float32, quality="best", batch_size=4)
    plain = ARCHIVE.model_copy(update={"smoothing": "off"})
    done = color(source, short_segments(plain, 0.1), colorizer=colorizer)
    code = probe_film(source).code
    for before, after in zip(decode(source), decode(done), strict=True):
        luma = torch.from_numpy(planes(before)[0])[None, None]
        gray = ((luma - code.black) / code.luma_span).clamp(0, 1)
        shown = torch.from_numpy(calmed(gray[0, 0].numpy()))[None, None]
        ab = colorizer.predict_ab(shown)
        chroma = chroma_planes(luma, ab, code)[0].numpy().astype(int)
        assert np.ptp(chroma) > 10  # there is color at all
        assert np.abs(chroma - np.stack(planes(after)[1:])).max() <= 1
