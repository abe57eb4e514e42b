"""Which encoder a film gets, and what the encoder is told."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from films import (
    ARCHIVE,
    EXACT,
    color,
    decode,
    luma_differences,
    make_film,
    short_segments,
    times,
)

from colordaemon.config import Codec, FilmSettings
from colordaemon.errors import ConfigError, MediaError
from colordaemon.film.colorize import plan_film
from colordaemon.media import encoders
from colordaemon.media.codec import choose_encoder
from colordaemon.media.inventory import level_of
from colordaemon.media.probe import probe_film

TINY = {"h264": "ultrafast", "hevc": "ultrafast", "av1": "12"}
NAMES = {"h264": "h264", "hevc": "hevc", "av1": "libdav1d", "prores": "prores", "dnxhr": "dnxhd"}


def codec_name(path: Path) -> str:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.name


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "prores", "dnxhr", "ffv1"])
def test_every_codec_makes_a_film_with_the_same_times(
    tmp_path: Path, codec: Codec, capfd: pytest.CaptureFixture[str]
) -> None:
    source = make_film(tmp_path / "film.mov", 5, size=(256, 128), pts=(0, 40, 41, 120, 500))
    settings = FilmSettings(codec=codec, preset=TINY.get(codec))
    done = color(source, short_segments(settings, 0.05))
    assert codec_name(done) == NAMES.get(codec, codec)
    assert times(done) == times(source)
    assert len(decode(done)) == 5
    assert max(luma_differences(source, done)) < 80 if codec not in ("prores", "dnxhr") else True
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p10le", "gray10le"])
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "prores", "dnxhr", "ffv1"])
def test_ten_bits_in_are_ten_bits_out(tmp_path: Path, codec: Codec, pix_fmt: str) -> None:
    limited: dict[str, Any] = {"size": (256, 128), "pix_fmt": pix_fmt, "color_range": 1}
    source = make_film(tmp_path / "f.mkv", 2, codec="ffv1", **limited)
    done = color(source, FilmSettings(codec=codec, preset=TINY.get(codec)))
    assert all("10le" in frame.format.name for frame in decode(done))
    assert codec_name(done) == ("hevc" if codec == "h264" else NAMES.get(codec, codec))


@pytest.mark.parametrize(("pix_fmt", "codec"), [("gray12le", "hevc"), ("gray16le", "ffv1")])
def test_deeper_films_get_a_codec_that_holds_them_and_a_remark(
    tmp_path: Path, pix_fmt: str, codec: str
) -> None:
    source = make_film(tmp_path / "film.mkv", 2, codec="ffv1", pix_fmt=pix_fmt)
    job = plan_film(source, EXACT)
    assert job.encoder.codec == codec
    assert any(f"as {codec}, because h264" in remark for remark in job.remarks)
    assert codec_name(color(source, EXACT)) == codec


def test_a_picture_that_a_codec_refuses_goes_to_another(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 2, codec="ffv1", size=(24, 18))
    encoder, remarks = choose_encoder(probe_film(source), FilmSettings(codec="dnxhr"))
    assert encoder.codec in ("hevc", "ffv1")
    assert remarks == [f"encoding 8-bit 24x18 as {encoder.codec}, because dnxhr suits it badly"]
    assert level_of(remarks[0]) == logging.WARNING  # dnxhr was asked for by name


def test_options_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", 2)
    with pytest.raises(ConfigError, match="libx264 has no option crff"):
        plan_film(source, FilmSettings(encoder_options={"crff": "1"}))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_presets_that_do_not_exist_are_refused(tmp_path: Path, codec: Codec) -> None:
    source = make_film(tmp_path / "film.mp4", 2)
    with pytest.raises(ConfigError, match="does not start with preset quickly"):
        plan_film(source, FilmSettings(codec=codec, preset="quickly"))


def test_parameters_of_the_user_go_beside_ours(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", 2)
    settings = FilmSettings(codec="hevc", encoder_options={"x265-params": "lossless=1"})
    options = dict(choose_encoder(probe_film(source), settings)[0].options)
    assert options["x265-params"] == "lossless=1:open-gop=0:info=0:log-level=error"


@pytest.mark.parametrize(("lines", "tags"), [(576, (5, 5, 6)), (720, (1, 1, 1))])
def test_a_film_without_color_tags_gets_those_that_its_size_implies(
    tmp_path: Path, lines: int, tags: tuple[int, int, int]
) -> None:
    source = make_film(tmp_path / "film.mp4", 1, size=(64, lines))
    assert decode(source)[0].colorspace == 2
    frame = decode(color(source))[0]
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == tags
    assert frame.color_range == 1


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "prores", "dnxhr", "ffv1"])
def test_color_tags_are_kept(tmp_path: Path, codec: Codec) -> None:
    tags: dict[str, Any] = {"colorspace": 1, "color_primaries": 5, "color_trc": 1, "color_range": 1}
    source = make_film(tmp_path / "film.mov", 1, size=(256, 128), **tags)
    with av.open(str(color(source, FilmSettings(codec=codec, preset=TINY.get(codec))))) as done:
        context = done.streams.video[0].codec_context
        next(done.decode(video=0))
        assert {name: int(getattr(context, name)) for name in tags} == tags


def test_a_rate_that_is_no_whole_number_is_kept(tmp_path: Path) -> None:
    base = Fraction(1, 24000)
    pts = [number * 1001 for number in range(5)]
    source = make_film(tmp_path / "film.mp4", 5, pts=pts, time_base=base)
    assert times(color(source)) == [pts[n] * base for n in range(5)]


def test_a_picture_without_luma_is_refused(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", iter(()), codec="ffv1", pix_fmt="gray")
    with pytest.raises(MediaError, match=r"film\.mkv"):
        plan_film(source, ARCHIVE)


def test_x264_does_without_avx512_which_gives_other_bytes_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"qp": "0", "x264-params": "bframes=1"}
    monkeypatch.setattr(encoders, "_has_avx512", lambda: False)
    assert encoders.with_steady_code("h264", options) == options
    monkeypatch.setattr(encoders, "_has_avx512", lambda: True)
    steady = encoders.with_steady_code("h264", options)
    assert steady == {"qp": "0", "x264-params": "asm=AVX2:bframes=1"}
    assert encoders.with_steady_code("hevc", options) == options
    source = make_film(tmp_path / "film.mp4", 3)
    assert luma_differences(source, color(source, EXACT)) == [0] * 3
