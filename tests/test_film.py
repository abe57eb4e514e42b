"""Whole films, from a source to one finished file: time, luma, geometry, memory, stopping."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import av.logging
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from conftest import own_threads
from films import (
    ARCHIVE,
    EXACT,
    Listener,
    Painter,
    color,
    color_and_report,
    decode,
    durations,
    luma_differences,
    luma_of,
    make_film,
    picture_of,
    pictures,
    planes,
    short_segments,
    times,
)

from colordaemon.config import Codec, FilmSettings
from colordaemon.errors import AlreadyColor, Interrupted
from colordaemon.film.colorize import color_film, plan_film
from colordaemon.media.decode import Frame
from colordaemon.media.side_data import Orientation
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.model import ColorNet

UNEVEN = (0, 40, 41, 120, 700, 733, 1900, 1901, 1940, 2600, 2601, 2700)
SLOWER = (0, 16, 33, 50, 66, 500, 1000, 1500, 2000, 2016, 2033, 2050)
TIMES = {"even": None, "uneven": UNEVEN, "slower": SLOWER}
SEGMENTS = (100.0, 0.2, 0.0001)  # seconds: one whole, some, and one for each frame
B_FRAMES = {"qp": "0", "bf": "3", "b-adapt": "0"}


ONE = 1 << 16
# a, b, c, d, x, y of display matrices: left to right, upside down, and along both diagonals.
MIRRORING = [
    (-ONE, 0, 0, ONE, 64 * ONE, 0),
    (ONE, 0, 0, -ONE, 0, 48 * ONE),
    (0, ONE, ONE, 0, 0, 0),
    (0, -ONE, -ONE, 0, 48 * ONE, 64 * ONE),
]


def channel_means(frame: VideoFrame) -> np.ndarray:
    """(2, 2, 2): mean of Cb and Cr over the four quarters of a frame, rows then columns."""
    quarters = []
    for plane in planes(frame)[1:]:
        rows, columns = plane.shape[0] // 2, plane.shape[1] // 2
        quarters.append(
            [[plane[r : r + rows, c : c + columns].mean() for c in (0, columns)] for r in (0, rows)]
        )
    return np.array(quarters)


# Each two of container, times and segments meet once; all three are never at odds together.
@pytest.mark.parametrize(
    ("suffix", "pts", "seconds"),
    [
        pytest.param(suffix, pts, SEGMENTS[(row + column) % 3], id=f"{suffix}-{name}")
        for row, suffix in enumerate(("mp4", "mov", "mkv"))
        for column, (name, pts) in enumerate(TIMES.items())
    ],
)
def test_every_frame_keeps_its_time(
    tmp_path: Path, suffix: str, pts: tuple[int, ...] | None, seconds: float
) -> None:
    source = make_film(tmp_path / f"film.{suffix}", 12, pts=pts, options=B_FRAMES)
    done, report = color_and_report(source, short_segments(EXACT, seconds))
    assert times(done) == times(source)
    assert durations(done) == durations(source)
    assert luma_differences(source, done) == [0] * 12
    assert report.segments == 1 if seconds > 10 else report.segments > 1


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_a_film_joined_from_segments_of_one_and_two_frames_has_exact_times(
    tmp_path: Path, rate: int
) -> None:
    base = Fraction(1, 90000)
    source = make_film(tmp_path / "film.mp4", 9, rate=rate, time_base=base, options=B_FRAMES)
    for seconds in (1.5 / rate, 0.5 / rate):
        done, report = color_and_report(source, short_segments(EXACT, seconds))
        assert report.segments == (5 if seconds * rate > 1 else 9)
        assert times(done) == times(source)
        assert luma_differences(source, done) == [0] * 9


def test_a_film_of_one_frame_becomes_a_film_of_one_frame(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", 1)
    done = color(source)
    assert times(done) == times(source)
    assert luma_differences(source, done) == [0]


def test_a_film_that_starts_late_still_starts_late(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 4, pts=(2000, 2040, 2080, 2120))
    assert times(color(source)) == times(source)


@pytest.mark.parametrize("settings", [EXACT, ARCHIVE], ids=["x264 at qp 0", "ffv1"])
@pytest.mark.parametrize(
    "pix_fmt",
    ["yuv420p", "yuv422p", "yuv444p", "yuv411p", "yuv410p", "yuv440p", "gray", "yuva420p"],
)
def test_luma_comes_out_bit_for_bit(tmp_path: Path, pix_fmt: str, settings: FilmSettings) -> None:
    source = make_film(tmp_path / "film.mkv", 5, codec="ffv1", pix_fmt=pix_fmt)
    done = color(source, short_segments(settings, 0.1))
    assert luma_differences(source, done) == [0] * 5


@pytest.mark.parametrize(
    "pix_fmt",
    [
        "gray10le",
        "gray12le",
        "gray16le",
        "yuv420p10le",
        "yuv422p10le",
        "yuv444p12le",
        "yuv420p16le",
    ],
)
def test_deep_luma_comes_out_bit_for_bit(tmp_path: Path, pix_fmt: str) -> None:
    source = make_film(tmp_path / "film.mkv", 3, codec="ffv1", pix_fmt=pix_fmt)
    assert luma_differences(source, color(source, ARCHIVE)) == [0] * 3


def test_ten_bit_luma_survives_lossless_hevc_across_joins(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 4, codec="ffv1", pix_fmt="yuv420p10le")
    lossless = {"x265-params": "lossless=1"}
    settings = FilmSettings(codec="hevc", preset="ultrafast", encoder_options=lossless)
    done = color(source, short_segments(settings, 0.05))
    assert luma_differences(source, done) == [0] * 4


@pytest.mark.parametrize("pix_fmt", ["nv12", "yuyv422", "uyvy422", "rgb24", "bgr24", "monow"])
def test_packed_formats_give_up_their_luma_unchanged(tmp_path: Path, pix_fmt: str) -> None:
    source = make_film(tmp_path / "film.nut", 3, codec="rawvideo", pix_fmt=pix_fmt)
    done = color(source, ARCHIVE)
    assert max(luma_differences(source, done)) <= (1 if "rgb" in pix_fmt or "bgr" in pix_fmt else 0)


@pytest.mark.parametrize("color_range", [1, 2], ids=["limited", "full"])
def test_the_range_is_kept(tmp_path: Path, color_range: int) -> None:
    source = make_film(tmp_path / "film.mp4", 3, color_range=color_range)
    done = color(source)
    assert luma_differences(source, done) == [0] * 3
    assert {frame.color_range for frame in decode(done)} == {color_range}


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "ffv1"])
def test_odd_sizes_stay_odd(tmp_path: Path, codec: Codec) -> None:
    source = make_film(tmp_path / "film.mkv", 3, codec="ffv1", size=(67, 51))
    done = color(source, FilmSettings(codec=codec, preset="12" if codec == "av1" else None))
    frames = decode(done)
    assert {(frame.width, frame.height) for frame in frames} == {(67, 51)}
    assert times(done) == times(source)
    assert max(luma_differences(source, done)) < (1 if codec == "ffv1" else 70)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("rotation", [90, -180, -90])
def test_a_turned_film_is_seen_upright_and_stays_turned(
    tmp_path: Path, suffix: str, rotation: int
) -> None:
    def turn(stream: VideoStream) -> None:
        stream.set_display_rotation(rotation)

    source = make_film(tmp_path / f"film.{suffix}", 2, prepare=turn)
    done = decode(color(source))[0]
    assert done.rotation == decode(source)[0].rotation == rotation
    # As shown, a (so Cr) rises to the right and b (so -Cb) to the bottom.
    cb, cr = np.rot90(channel_means(done), rotation // 90, axes=(1, 2))
    assert (cr[:, 1] > cr[:, 0] + 5).all()
    assert (cb[1] < cb[0] - 5).all()


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("matrix", MIRRORING)
def test_a_mirrored_film_is_seen_as_shown_and_stays_mirrored(
    tmp_path: Path, suffix: str, matrix: tuple[int, ...]
) -> None:
    whole = (matrix[0], matrix[1], 0, matrix[2], matrix[3], 0, *matrix[4:], 1 << 30)

    def mirror(stream: VideoStream) -> None:
        stream.set_display_matrix(whole)

    source = make_film(tmp_path / f"film.{suffix}", 2, prepare=mirror)
    done = decode(color(source))[0]
    assert Orientation.of(done) == Orientation.of(decode(source)[0])
    if suffix != "mkv":  # which knows no more than turned and mirrored
        assert Orientation.of(done).matrix == whole
    # By the numbers of the matrix itself: where each quarter of the stored picture is shown.
    stored, shown = channel_means(done), np.zeros((2, 2, 2))
    for row, column in np.ndindex(2, 2):
        x, y = column - 0.5, row - 0.5
        across, down = matrix[0] * x + matrix[2] * y, matrix[1] * x + matrix[3] * y
        shown[:, int(down > 0), int(across > 0)] = stored[:, row, column]
    cb, cr = shown
    assert (cr[:, 1] > cr[:, 0] + 5).all()
    assert (cb[1] < cb[0] - 5).all()


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_the_shape_of_pixels_is_kept(tmp_path: Path, suffix: str) -> None:
    aspect = Fraction(16, 15)
    source = make_film(tmp_path / f"film.{suffix}", 2, sample_aspect_ratio=aspect)
    done = color(source)
    assert done.suffix == f".{suffix}"
    with av.open(str(done)) as container:
        assert container.streams.video[0].sample_aspect_ratio == aspect


def test_ffv1_in_matroska_keeps_the_shape_of_pixels_in_its_frames(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 2, sample_aspect_ratio=Fraction(16, 15))
    job = plan_film(source, ARCHIVE)
    assert not job.remarks
    colorizer: Any = Painter()
    color_film(job, tmp_path / "done.mkv", colorizer)
    frame = decode(tmp_path / "done.mkv")[0]
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=64, height=48, format=frame.format, time_base=Fraction(1, 1000)),
        graph.add("showinfo"),
        graph.add("buffersink"),
    ).configure()
    av.logging.set_level(av.logging.INFO)
    try:
        with av.logging.Capture() as logs:
            graph.push(frame)
            graph.pull()
    finally:
        av.logging.set_level(None)
    assert any("sar:16/15" in message for _, _, message in logs)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batch_size_and_segment_length_change_no_color(
    tmp_path: Path, tiny_model: ColorNet, batch_size: int
) -> None:
    source = make_film(tmp_path / "film.mkv", 10)
    cpu = torch.device("cpu")
    whole = Colorizer(tiny_model, cpu, torch.float32, batch_size=4)
    in_one = short_segments(ARCHIVE, 50.0)
    expected = [planes(frame) for frame in decode(color(source, in_one, colorizer=whole))]
    assert np.ptp(expected[0][1]) > 4  # there is color at all
    other = Colorizer(tiny_model, cpu, torch.float32, batch_size=batch_size)
    for seconds in (100.0, 0.1):
        done = decode(color(source, short_segments(ARCHIVE, seconds), colorizer=other))
        for one, frame in zip(expected, done, strict=True):
            for plane, found in zip(one, planes(frame), strict=True):
                assert np.abs(plane.astype(int) - found).max() <= 1


def test_a_color_film_is_left_alone_unless_forced(tmp_path: Path) -> None:
    def colorful() -> Iterator[VideoFrame]:
        for number in range(4):
            picture = picture_of(luma_of(number, (96, 96)), "yuv444p")
            for plane, turn in zip(picture.planes[1:], (0, 1), strict=True):
                ramp = np.rot90(np.linspace(60, 200, 96)[None].repeat(96, 0), turn)
                plane.update(np.ascontiguousarray(ramp.astype(np.uint8)).tobytes())
            yield picture

    source = make_film(tmp_path / "film.mkv", colorful(), size=(96, 96), pix_fmt="yuv444p")
    with pytest.raises(
        AlreadyColor, match=r"film\.mkv: has real color already; `colordaemon once --force`"
    ):
        color(source)
    assert luma_differences(source, color(source, force=True)) == [0] * 4


def test_a_sepia_film_is_colored(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", pictures(4, chroma=(110, 145)))
    cb, cr = channel_means(decode(color(source))[0])
    assert np.ptp(cb) > 5 and np.ptp(cr) > 5  # no longer flat


def test_stopping_leaves_nothing_behind(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", 40)
    listener = Listener(lambda listener: len(listener.frames) >= 12)
    with pytest.raises(Interrupted, match=r"film\.mp4"):
        color(source, context=listener)
    assert len(listener.frames) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


class _Failing(Painter):
    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise RuntimeError("the device is on fire")


def test_an_error_in_the_network_surfaces_once_and_leaves_nothing(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", 40)
    with pytest.raises(RuntimeError, match="on fire"):
        color(source, colorizer=_Failing())
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    assert len(own_threads()) == 1


def test_memory_does_not_grow_with_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture_of(luma_of(0, (32, 32)))
    source = make_film(
        tmp_path / "film.mkv", (image for _ in range(800)), size=(32, 32), codec="ffv1"
    )
    alive, born, make = list[int](), list[weakref.ref[Frame]](), Frame.__init__

    def remembered(frame: Frame, *values: Any, **named: Any) -> None:
        make(frame, *values, **named)
        born.append(weakref.ref(frame))

    monkeypatch.setattr(Frame, "__init__", remembered)
    every_frame = ARCHIVE.model_copy(update={"stride": 1})

    def count(listener: Listener) -> bool:
        if listener.frames and listener.frames[-1] % 4 == 0:
            alive.append(sum(each() is not None for each in born))
        return False

    job = plan_film(source, every_frame)
    colorizer: Any = Painter(16)
    report = color_film(job, tmp_path / "done.mkv", colorizer, Listener(count))
    assert report.frames == 800
    assert len(alive) == 8
    assert len(born) >= 800
    assert max(alive) < 250  # those that wait for what follows them, and the queues


def test_cuts_are_counted_and_end_segments(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", pictures(30, shot_frames=10), rate=4)
    _, report = color_and_report(source)
    assert report.shots == 3
    assert report.segments == 3
