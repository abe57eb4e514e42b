"""Films out of MXF, which go into MXF again."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
from films import (
    ARCHIVE,
    color,
    decode,
    field_orders,
    make_film,
    packets,
    pictures,
    short_segments,
    sound,
    times,
    with_fields,
)

from colordaemon.config import Codec, FilmSettings
from colordaemon.errors import MediaError
from colordaemon.film.colorize import plan_film
from colordaemon.media.fields import FieldOrder
from colordaemon.media.probe import probe_film
from colordaemon.media.tags import is_result

SIZE = (256, 128)


def make_mxf(path: Path, count: int = 8, order: FieldOrder = "progressive") -> Path:
    flags = {} if order == "progressive" else {"flags": "+ildct+ilme"}
    return make_film(
        path, with_fields(pictures(count, SIZE, "yuv422p"), order), codec="mpeg2video", size=SIZE,
        pix_fmt="yuv422p", time_base=Fraction(1, 25), options=flags,
        metadata={"timecode": "10:00:00:00", "comment_reel": "7", "comment_comment": "Scanned"},
        extras=[sound("pcm_s24le", seconds=count / 25)],
    )  # fmt: skip


@pytest.mark.parametrize("codec", ["h264", "prores", "dnxhr"])
def test_mxf_goes_into_mxf(tmp_path: Path, codec: Codec) -> None:
    source = make_mxf(tmp_path / "film.mxf")
    settings = short_segments(FilmSettings(codec=codec), 0.2)
    assert not plan_film(source, settings).remarks
    done = color(source, settings)
    assert done.suffix == ".mxf"
    with av.open(str(done)) as container:
        said = container.metadata
        assert said["operational_pattern_ul"] == "060e2b34.04010101.0d010201.01010900"  # OP1a
        assert (said["timecode"], said["comment_reel"]) == ("10:00:00:00", "7")
        assert said["comment_comment"].startswith("Scanned; Colors are synthetic")
        assert is_result(container, done)
    assert times(done) == times(source)
    assert [frame.pts for frame in decode(done)] == list(range(8))
    assert b"".join(packets(done, 1)) == b"".join(packets(source, 1)) != b""


@pytest.mark.parametrize(
    ("codec", "suffix"), [("h264", "mxf"), ("prores", "mxf"), ("dnxhr", "mov")]
)
def test_fields_of_mxf_are_said_in_the_result(tmp_path: Path, codec: Codec, suffix: str) -> None:
    source = make_mxf(tmp_path / "film.mxf", 3, "top first")
    done = color(source, FilmSettings(codec=codec))
    assert done.suffix == f".{suffix}"
    assert probe_film(done).field_order == "top first"
    if suffix == "mxf":
        assert field_orders(done) == ["top first"] * 3


@pytest.mark.parametrize(
    "settings",
    [ARCHIVE, FilmSettings(codec="hevc"), FilmSettings(encoder_options={"bf": "2"})],
    ids=["ffv1", "hevc", "reordered"],
)
def test_what_mxf_cannot_hold_goes_into_matroska(tmp_path: Path, settings: FilmSettings) -> None:
    source = make_mxf(tmp_path / "film.mxf", 3)
    job = plan_film(source, settings)
    assert job.target.format == "matroska"
    assert job.remarks == ("writing Matroska instead of .mxf",)


def test_a_film_with_missing_pictures_is_refused_in_words(tmp_path: Path) -> None:
    """MXF counts pictures and knows no times; nothing is moved in silence."""
    source = make_film(
        tmp_path / "film.mxf", pictures(20, SIZE), codec="libx264", size=SIZE,
        time_base=Fraction(1, 25), options={"g": "1", "qp": "0"},
    )  # fmt: skip
    data = bytearray(source.read_bytes())
    damaged = packets(source, 0)[10]
    place = data.index(damaged)
    data[place : place + len(damaged)] = bytes(len(damaged))
    source.write_bytes(data)
    with pytest.raises(MediaError, match=r"frames are missing .* --codec ffv1"):
        color(source)
    assert len(times(color(source, ARCHIVE))) == 19
