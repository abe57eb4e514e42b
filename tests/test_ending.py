"""Whole files whose headers promise too much, and files that were cut off."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import pytest
from films import EXACT, SIZE, color_and_report, make_film, sound, times

from colordaemon.errors import MediaError
from colordaemon.media.ending import ends_whole
from colordaemon.media.probe import probe_film

CODECS = {
    "mkv": "libx264",
    "mp4": "libx264",
    "avi": "mpeg4",
    "flv": "flv1",
    "wmv": "wmv2",
    "mxf": "mpeg2video",
    "nut": "libx264",
}
TIME_BASE = Fraction(1, 25)


def film(path: Path, frames: int = 40) -> Path:
    suffix = path.suffix[1:]
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    extras = [sound("aac", frames / 25)] if suffix in ("mkv", "mp4", "nut") else []
    return make_film(
        path, frames, codec=CODECS[suffix], time_base=TIME_BASE, extras=extras,
        size=(256, 192) if suffix == "wmv" else SIZE,  # more than one packet
        container_options=options,
    )  # fmt: skip


@pytest.mark.parametrize("suffix", CODECS)
def test_the_structure_of_a_file_tells_whether_it_was_cut_off(tmp_path: Path, suffix: str) -> None:
    path = film(tmp_path / f"film.{suffix}")
    container, data = probe_film(path).container, path.read_bytes()
    assert ends_whole(path, container)
    for share in (0.7, 0.5):  # in front of an index or padding at the end
        path.write_bytes(data[: int(len(data) * share)])
        assert not ends_whole(path, container)
        if suffix != "mp4":  # whose index says where all samples are, so that they do not decode
            path.write_bytes(path.read_bytes().ljust(len(data), b"\0"))
            assert not ends_whole(path, container)


def promise_more(path: Path) -> None:
    """Double the duration that the header declares."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".mkv":
        place, kind = data.index(b"\x44\x89\x88") + 3, ">d"
    elif path.suffix == ".flv":
        place, kind = data.index(b"duration") + 9, ">d"
    else:
        place, kind = data.index(b"avih") + 24, "<I"
        later = data.index(b"strh") + 40
        struct.pack_into(kind, data, later, 2 * struct.unpack_from(kind, data, later)[0])
    struct.pack_into(kind, data, place, 2 * struct.unpack_from(kind, data, place)[0])
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", ["mkv", "avi", "flv"])
def test_a_whole_film_whose_header_promises_more_is_colored_and_that_is_said(
    tmp_path: Path, suffix: str
) -> None:
    path = film(tmp_path / f"film.{suffix}")
    promise_more(path)
    _, report = color_and_report(path)
    assert report.frames == 40
    assert report.overdeclared == pytest.approx(1.6, abs=0.2)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(MediaError, match="truncated"):
        color_and_report(path)


@pytest.mark.parametrize("suffix", ["mkv", "nut"])
def test_a_clock_that_begins_late_does_not_make_a_film_truncated(
    tmp_path: Path, suffix: str
) -> None:
    path = make_film(
        tmp_path / f"film.{suffix}",
        pts=[20_000 + 40 * number for number in range(6)],
        container_options={"avoid_negative_ts": "disabled"},
    )
    done, report = color_and_report(path)
    assert times(done) == times(path)
    assert times(done)[0] == 20
    assert report.overdeclared <= 0


def test_a_cut_off_wmv_is_refused_though_it_then_says_no_duration(tmp_path: Path) -> None:
    path = film(tmp_path / "film.wmv")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert probe_film(path).duration_seconds is None
    with pytest.raises(MediaError, match="more bytes than there are"):
        color_and_report(path)
    accepting = EXACT.model_copy(update={"damaged_percent": 100.0})
    assert 0 < color_and_report(path, accepting)[1].frames < 40
