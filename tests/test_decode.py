"""Frames as they are read: their luma, their times, their damage."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from films import (
    LOSSLESS,
    color_and_report,
    frame_of,
    luma_of,
    luma_planes,
    make_film,
    pictures,
    sound,
    times,
)

from colordaemon.color import Matrix, Siting
from colordaemon.errors import MediaError
from colordaemon.media.decode import FilmReader, Frame, in_order
from colordaemon.media.demux import Damage
from colordaemon.media.pixels import layout_of
from colordaemon.media.probe import probe_film
from colordaemon.media.tint import ExistingColor


def read(path: Path) -> list[Frame]:
    with FilmReader(probe_film(path)) as reader:
        return list(reader)


def test_frames_carry_the_luma_and_the_times_of_the_file(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mkv", 5, codec="ffv1", pts=(0, 3, 50, 51, 700))
    frames = read(path)
    assert [frame.pts for frame in frames] == [0, 3, 50, 51, 700]
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.luma, luma_of(number, (64, 48)))
    assert repr(frames[1]) == "Frame(64x48, pts=3)"


def test_the_view_of_luma_costs_no_copy() -> None:
    frame = frame_of(next(pictures(1)))
    assert np.shares_memory(
        frame.luma, np.frombuffer(memoryview(frame.picture.planes[0]), np.uint8)
    )


def test_pictures_do_not_wait_for_the_garbage_collector(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mkv", 5)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        with FilmReader(probe_film(path)) as reader:
            for _ in reader:
                pass
        gc.collect()
        assert not [found for found in gc.garbage if isinstance(found, VideoFrame)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_frames_come_in_the_order_they_are_shown(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", 20, options={"qp": "0", "bf": "4", "b-adapt": "0"})
    frames = read(path)
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.luma, luma_of(number, (64, 48)))


def put_in_order(pts: Iterable[int | None]) -> tuple[list[int], int]:
    """Times given to pictures that a container hands out with these pts, and how many changed."""
    given: list[VideoFrame] = []
    retimed: list[None] = []
    for time, picture in zip(pts, pictures(100), strict=False):
        picture.pts = time
        given.append(picture)
    paired = list(in_order(given, 0, 40, lambda: retimed.append(None)))
    assert [picture for picture, _ in paired] == given
    return [time for _, time in paired], len(retimed)


@pytest.mark.parametrize(
    ("pts", "expected", "retimed"),
    [
        ([0, 40, 80, 120, 160, 200], [0, 40, 80, 120, 160, 200], 0),
        ([40, 80, 160, 120, 200, 280, 240], [40, 80, 120, 160, 200, 240, 280], 2),
        ([0, 40, None, 120, 160, None, 240], [0, 40, 80, 120, 160, 200, 240], 2),
        ([None, None, None], [0, 40, 80], 3),
        ([0, 40, 40, 80, 80, 80], [0, 40, 41, 80, 81, 82], 3),
    ],
    ids=["in order", "out of order", "missing", "all missing", "twice"],
)
def test_times_are_put_in_order_once_and_counted(
    pts: list[int | None], expected: list[int], retimed: int
) -> None:
    assert put_in_order(pts) == (expected, retimed)


def test_an_avi_with_b_frames_comes_out_in_order(tmp_path: Path) -> None:
    """AVI has no pts, so a decoder's own order and time stamps of packets do not agree."""
    path = make_film(
        tmp_path / "film.avi", 20, codec="mpeg4", time_base=Fraction(1, 25), options={"bf": "2"}
    )
    done, report = color_and_report(path)
    assert report.frames == len(luma_planes(path))
    steps = np.diff([float(time) for time in times(done)])
    assert (steps > 0).all()
    for ours, theirs in zip(luma_planes(done), luma_planes(path), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("damaged", "packets", "percent", "too_much"),
    [(8, 10, 0.0, False), (9, 10, 2.0, True), (20, 1000, 2.0, False), (21, 1000, 2.0, True),
     (1000, 1000, 100.0, False)],
)  # fmt: skip
def test_damage_is_bounded_by_share_but_a_few_packets_are_free(
    damaged: int, packets: int, percent: float, too_much: bool
) -> None:
    assert Damage(packets, damaged).exceeds(percent) is too_much


def test_a_film_shorter_than_declared_is_refused_even_if_it_decodes(tmp_path: Path) -> None:
    in_parts = {"movflags": "frag_keyframe+empty_moov"}  # which may end anywhere
    info = probe_film(make_film(tmp_path / "film.mp4", 10, container_options=in_parts))
    missing = pytest.raises(MediaError, match=r"0\.40 s of video end before the declared 2\.00 s")
    with missing, FilmReader(replace(info, duration_seconds=2.0)) as reader:
        list(reader)
    with FilmReader(replace(info, duration_seconds=2.0), damaged_percent=100) as reader:
        assert len(list(reader)) == 10


@pytest.mark.parametrize(
    ("pix_fmt", "planar", "depth", "in_place"),
    [
        ("yuv420p", "yuv420p", 8, True),
        ("yuvj422p", "yuv422p", 8, True),
        ("nv12", "yuv420p", 8, True),
        ("yuyv422", "yuv422p", 8, False),
        ("p010le", "yuv420p10le", 10, False),
        ("yuv420p10be", "yuv420p10le", 10, False),
        ("gray", "gray", 8, True),
        ("gray10le", "gray10le", 10, True),
        ("ya8", "gray", 8, False),
        ("yuva420p", "yuv420p", 8, True),
        ("yuv411p", "yuv411p", 8, True),
        ("rgb24", "yuv444p", 8, False),
        ("gbrp10le", "yuv444p10le", 10, False),
    ],
)
def test_every_pixel_format_has_a_planar_one_with_the_same_luma(
    pix_fmt: str, planar: str, depth: int, in_place: bool
) -> None:
    layout = layout_of(pix_fmt)
    assert (layout.planar, layout.depth, layout.in_place) == (planar, depth, in_place)


@pytest.mark.parametrize("pix_fmt", ["bayer_rggb8", "xyz12le", "grayf32le", "gbrpf32le"])
def test_formats_without_luma_samples_are_refused(pix_fmt: str) -> None:
    with pytest.raises(MediaError, match=f"pixel format {pix_fmt}"):
        layout_of(pix_fmt)


def test_a_probe_tells_what_a_film_is(tmp_path: Path) -> None:
    path = make_film(
        tmp_path / "film.mp4", 3, sample_aspect_ratio=Fraction(4, 3), colorspace=9, color_range=2
    )
    info = probe_film(path)
    assert (info.container, info.codec, info.pix_fmt) == ("mov", "h264", "yuvj420p")
    assert (info.width, info.height, info.sample_aspect) == (64, 48, Fraction(4, 3))
    assert info.rate == 25
    assert (info.code.matrix, info.code.siting) == (Matrix.BT2020, Siting.LEFT)
    assert info.code.full_range


def test_existing_color_is_told_from_none_and_tint(tmp_path: Path) -> None:
    gray = make_film(tmp_path / "gray.mkv", 4)
    sepia = make_film(tmp_path / "sepia.mkv", pictures(4, chroma=(110, 145)))
    assert probe_film(gray).existing_color is ExistingColor.NONE
    assert probe_film(sepia).existing_color is ExistingColor.TINT


def test_sound_that_goes_on_behind_the_film_does_not_make_it_truncated(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", 5, extras=[sound(seconds=2.0)])
    info = probe_film(path)
    assert info.duration_seconds == pytest.approx(0.2)
    assert info.container_seconds == pytest.approx(2.0, abs=0.1)
    assert len(read(path)) == 5


@pytest.mark.parametrize("empty", [b"\0\0\0\0", b"\0", b""])
def test_samples_without_a_picture_are_no_damage_and_move_no_time(
    tmp_path: Path, empty: bytes
) -> None:
    whole = make_film(tmp_path / "whole.mp4", 30, options=LOSSLESS | {"bf": "0"})
    path = tmp_path / "film.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as container:
        copy = container.add_stream_from_template(source.streams.video[0])
        number = 0
        for packet in source.demux():
            if not packet.size:
                continue
            if number % 2:
                hollow: Any = av.Packet(empty)
                hollow.pts, hollow.dts, hollow.duration = packet.pts, packet.dts, packet.duration
                hollow.time_base, packet = packet.time_base, hollow
            packet.stream = copy
            container.mux(packet)
            number += 1
    info = probe_film(path)
    with FilmReader(info) as reader:
        shown = [frame.pts * info.time_base for frame in reader]
        assert reader.damage.damaged == 0
    assert shown == [Fraction(2 * number, 25) for number in range(15)]
