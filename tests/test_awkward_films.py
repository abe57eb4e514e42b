"""Films that stand at the edge of what smoothing and strides expect, colored in each way.

Whatever the film, as many frames come out as went in, at their times, with their luma and in color.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from films import (
    ARCHIVE,
    EXACT,
    SIZE,
    Painter,
    color_and_report,
    decode,
    luma_differences,
    luma_of,
    make_film,
    picture_of,
    planes,
    times,
)

from colordaemon.config import FilmSettings
from colordaemon.errors import MediaError
from colordaemon.film.smoothing import LOOK_AHEAD

pytestmark = pytest.mark.parametrize("smoothing", ["off", "ema", "motion"])


class Doubter(Painter):
    """Says the same as the painter, and is never sure of it."""

    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ab, sure = super().guess(gray)
        return ab, torch.zeros_like(sure)


def auto(settings: FilmSettings, smoothing: str, **update: object) -> FilmSettings:
    return settings.model_copy(update={"smoothing": smoothing, "stride": "auto", **update})


def one_frame(path: Path) -> Path:
    return make_film(path.with_suffix(".mp4"), 1)


def two_frames_between_two_shots(path: Path) -> Path:
    shots = [0] * 5 + [1] * 2 + [2] * 5
    images = (picture_of(luma_of(n, SIZE, shot=shot)) for n, shot in enumerate(shots))
    return make_film(path.with_suffix(".mp4"), images)


def only_shots_of_one_frame(path: Path) -> Path:
    images = (picture_of(luma_of(n, SIZE, shot=n)) for n in range(6))
    return make_film(path.with_suffix(".mp4"), images)


def black_between_two_shots(path: Path) -> Path:
    black = np.full(SIZE[::-1], 16, np.uint8)
    lumas = [luma_of(n, SIZE) for n in range(6)] + [black] * 6
    lumas += [luma_of(n, SIZE, shot=1) for n in range(6)]
    return make_film(path.with_suffix(".mp4"), map(picture_of, lumas))


def screen_capture(path: Path) -> Path:
    """A thousand frames a second, of which most show nothing new; a window opens, one moves on."""

    def images() -> Iterator[VideoFrame]:
        for number in range(120):
            luma = np.full(SIZE[::-1], 200, np.uint8)
            luma[10:40, 10:50] = 90
            if number >= 40:
                luma[20:30, 20 + number // 10 : 40 + number // 10] = 40
            yield picture_of(luma)

    return make_film(path.with_suffix(".mp4"), images(), rate=1000)


def no_times_at_all(path: Path) -> Path:
    """A bare H.264 stream, whose packets have neither pts nor dts; with B-frames."""
    return make_film(path.with_suffix(".h264"), 12, options={"qp": "0", "bf": "2"})


@pytest.mark.parametrize("painter", [Painter, Doubter])
@pytest.mark.parametrize(
    "make",
    [
        one_frame,
        two_frames_between_two_shots,
        only_shots_of_one_frame,
        black_between_two_shots,
        screen_capture,
        no_times_at_all,
    ],
)
def test_an_awkward_film_keeps_its_frames_and_gets_its_colors(
    tmp_path: Path, smoothing: str, make: Callable[[Path], Path], painter: type[Painter]
) -> None:
    source = make(tmp_path / "film")
    settings = auto(EXACT, smoothing, segment_seconds=0.1)
    done, report = color_and_report(source, settings, colorizer=painter())
    assert report.frames == len(decode(source))
    assert luma_differences(source, done) == [0] * report.frames
    assert times(done) == expected_times(source)
    for frame in decode(done):
        luma, *chroma = planes(frame)
        if luma.max() <= 16:  # black has no color
            assert all(np.abs(plane.astype(int) - 128).max() <= 1 for plane in chroma)
        else:  # a rises from left to right, b from top to bottom, whatever moved
            cb, cr = (plane.astype(int) - 128 for plane in chroma)
            assert cr[:, -8:].mean() - cr[:, :8].mean() > 30
            assert cb[:6].mean() - cb[-6:].mean() > 25


def expected_times(source: Path) -> list[Fraction]:
    """Those of the source; where it has none, of its rate."""
    if source.suffix == ".h264":
        return [Fraction(number, 25) for number in range(len(decode(source)))]
    return times(source)


def test_a_film_of_black_frames_alone_stays_black(tmp_path: Path, smoothing: str) -> None:
    images = [picture_of(np.full(SIZE[::-1], 16, np.uint8)) for _ in range(9)]
    source = make_film(tmp_path / "film.mkv", images, codec="ffv1")
    done, report = color_and_report(source, auto(ARCHIVE, smoothing))
    assert (report.frames, times(done)) == (9, times(source))
    for frame in decode(done):
        luma, cb, cr = planes(frame)
        assert (luma == 16).all() and (cb == 128).all() and (cr == 128).all()


def test_a_picture_that_changes_its_size_is_refused_by_both_sizes(
    tmp_path: Path, smoothing: str
) -> None:
    """Behind more frames than smoothing looks ahead, so that many wait to be finished."""
    sizes = [SIZE] * (LOOK_AHEAD + 20) + [(96, 64)] * 3
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p"
        for number, size in enumerate(sizes):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt = *size, "yuvj420p"
            encoder.time_base = Fraction(1, 25)
            image = picture_of(luma_of(number, size), "yuvj420p")
            image.pts, image.time_base = number, encoder.time_base
            for packet in encoder.encode(image):
                packet.stream = stream
                container.mux(packet)
    with pytest.raises(MediaError, match=r"film\.mkv: .* from 64x48 yuvj420p to 96x64 yuvj420p"):
        color_and_report(path, auto(EXACT, smoothing))
    assert list(tmp_path.iterdir()) == [path]
