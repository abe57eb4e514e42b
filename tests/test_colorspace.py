"""What a film says of its colors is believed, kept or said; what it leaves open is guessed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from films import ARCHIVE, EXACT, color, color_and_report, decode, luma_of, make_film, picture_of
from films import luma_differences as differences
from test_transfer import displayed_ab

from colordaemon.color import Matrix, PixelCode, Siting, chroma_planes
from colordaemon.config import FilmSettings
from colordaemon.errors import AlreadyColor, MediaError
from colordaemon.film.colorize import plan_film
from colordaemon.media.demux import open_film
from colordaemon.media.originals import parameters_of
from colordaemon.media.probe import film_stream, probe_film
from colordaemon.media.tint import ExistingColor
from colordaemon.transfer import Transfer

LOSSLESS_HEVC = FilmSettings(codec="hevc", encoder_options={"x265-params": "lossless=1"})


def shown(path: Path) -> np.ndarray:
    """The first picture as FFmpeg shows it, in gray, (H, W)."""
    rgb = decode(path)[0].to_ndarray(format="rgb24").astype(float)
    return np.asarray(rgb @ [0.299, 0.587, 0.114])


def siting_of(path: Path) -> int:
    with open_film(path) as container:
        return parameters_of(film_stream(container, path)).siting


@pytest.mark.parametrize(
    ("codec", "name", "pix_fmt"),
    [
        ("ffv1", "film.mkv", "gray"),
        ("ffv1", "film.mkv", "gray16le"),
        ("ffv1", "film.mkv", "gray10le"),
        ("ffvhuff", "film.avi", "gray"),
        ("magicyuv", "film.avi", "gray"),
        ("rawvideo", "film.avi", "gray"),
        ("rawvideo", "film.nut", "gray12le"),
        ("jpeg2000", "film.mov", "gray"),
        ("png", "film.mov", "gray"),
        ("wrapped_avframe", "film.y4m", "gray"),
    ],
)
def test_gray_that_says_nothing_is_shown_as_before(
    tmp_path: Path, codec: str, name: str, pix_fmt: str
) -> None:
    source = make_film(tmp_path / name, 3, codec=codec, pix_fmt=pix_fmt)
    assert probe_film(source).code.full_range
    done = color(source, ARCHIVE)
    assert differences(source, done) == [0, 0, 0]
    assert decode(done)[0].color_range == 2
    assert np.abs(shown(source) - shown(done)).max() <= 3


def test_gray_that_says_limited_is_limited(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 3, codec="ffv1", pix_fmt="gray", color_range=1)
    assert not probe_film(source).code.full_range
    assert decode(color(source, ARCHIVE))[0].color_range == 1


@pytest.mark.parametrize(
    ("size", "rate", "tags", "expected"),
    [
        ((64, 288), 25, {}, (5, 5, 6)),
        ((64, 480), 30, {}, (6, 6, 6)),
        ((64, 480), 25, {}, (6, 6, 6)),
        ((64, 48), 25, {}, (5, 5, 6)),
        ((64, 48), 24, {}, (6, 6, 6)),
        ((64, 48), 24, {"colorspace": 5}, (5, 5, 6)),
        ((64, 576), 25, {"colorspace": 6, "color_primaries": 6}, (6, 6, 6)),
        ((64, 720), 25, {}, (1, 1, 1)),
        ((64, 48), 25, {"color_primaries": 9}, (9, 9, 14)),
    ],
)
def test_what_is_not_said_follows_from_the_television_system(
    tmp_path: Path,
    size: tuple[int, int],
    rate: int,
    tags: dict[str, Any],
    expected: tuple[int, int, int],
) -> None:
    source = make_film(tmp_path / "film.mp4", 1, size=size, rate=rate, **tags)
    frame = decode(color(source))[0]
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == expected


@pytest.mark.parametrize("settings", [EXACT, LOSSLESS_HEVC, ARCHIVE])
@pytest.mark.parametrize("siting", range(1, 5))
def test_chroma_stays_where_the_source_has_it(
    tmp_path: Path, settings: FilmSettings, siting: int
) -> None:
    options = {"qp": "0", "chroma_sample_location": str(siting)}
    source = make_film(tmp_path / "film.mp4", 2, options=options)
    assert siting_of(source) == siting
    job = plan_film(source, settings)
    assert job.encoder.code.siting is job.source.code.siting
    assert siting_of(color(source, settings)) == siting


def test_mpeg_1_has_its_chroma_in_the_middle(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mpg", 3, codec="mpeg1video", time_base=Fraction(1, 25))
    assert probe_film(source).code.siting is Siting.CENTER
    assert siting_of(color(source)) == 2


def test_dv_has_its_chroma_where_its_standard_says(tmp_path: Path) -> None:
    source = make_film(
        tmp_path / "tape.avi", 2, codec="dvvideo", size=(720, 576), time_base=Fraction(1, 25)
    )
    job = plan_film(source, EXACT)
    assert job.source.code.siting is job.encoder.code.siting is Siting.TOP_LEFT
    assert siting_of(color(source)) == 3


def test_a_siting_that_the_codec_cannot_say_is_told(tmp_path: Path) -> None:
    options = {"qp": "0", "chroma_sample_location": "center"}
    source = make_film(tmp_path / "film.mkv", 2, size=(128, 96), options=options)
    job = plan_film(source, FilmSettings(codec="av1"))
    assert [e.fate for e in job.inventory if e.kind == "color"] == ["left out"]
    assert job.encoder.code.siting is Siting.LEFT


@pytest.mark.parametrize("matrix", [8, 10, 14])
def test_gray_needs_no_matrix(tmp_path: Path, matrix: int) -> None:
    source = make_film(tmp_path / "film.mp4", 3, colorspace=matrix)
    assert decode(source)[0].colorspace == matrix
    job = plan_film(source, EXACT)
    told = [str(entry) for entry in job.inventory if entry.kind == "color"]
    assert len(told) == 1 and "in which grays have the same codes" in told[0]
    done = color(source)
    assert differences(source, done) == [0, 0, 0]
    assert decode(done)[0].colorspace == (5 if matrix == 8 else 9)


@pytest.mark.parametrize("matrix", [4, 7])
def test_old_matrices_are_kept(tmp_path: Path, matrix: int) -> None:
    source = make_film(tmp_path / "film.mp4", 3, colorspace=matrix)
    assert decode(color(source))[0].colorspace == matrix


def test_own_color_of_a_strange_matrix_is_not_passed_off_as_another(tmp_path: Path) -> None:
    images = [
        picture_of(luma_of(n, (64, 48), 8, n // 10), chroma=None if n < 30 else (90, 170))
        for n in range(40)
    ]
    for image in images[30:]:
        half = np.frombuffer(memoryview(image.planes[2]), np.uint8).copy()
        half[: half.size // 2] = 60
        image.planes[2].update(half.tobytes())
    source = make_film(tmp_path / "film.mp4", images, colorspace=8)
    with pytest.raises(MediaError, match=r"its color matrix is YCgCo, expected one of Y'CbCr"):
        color(source)
    assert color(source, force=True).exists()


def two_ranges(path: Path, *, says: bool = True, count: int = 5) -> Path:
    """A transport stream of limited range first, and then full range, `count` pictures each. says:
    whether it says so of the first part."""
    parts = []
    tags: dict[str, Any] = {"colorspace": 1, "color_primaries": 1} if says else {}
    for name, tag, pix_fmt in (("one.ts", 1, "yuv420p"), ("two.ts", 2, "yuvj420p")):
        parts.append(
            make_film(path.with_name(name), count, pix_fmt=pix_fmt, **tags, color_range=tag)
        )
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_a_change_of_range_is_refused_in_words(tmp_path: Path) -> None:
    source = two_ranges(tmp_path / "film.ts")
    with pytest.raises(
        MediaError, match=r"luma changes from limited to full range .*--assume-range"
    ):
        color(source)


def test_a_change_from_what_the_standard_implies_is_refused_too(tmp_path: Path) -> None:
    source = two_ranges(tmp_path / "film.ts", says=False, count=60)
    assert probe_film(source).tags.range == 0
    with pytest.raises(MediaError, match=r"luma changes from limited to full range"):
        color(source)


def test_a_change_to_hdr_is_refused_in_words(tmp_path: Path) -> None:
    parts = [
        make_film(tmp_path / f"{trc}.ts", 5, colorspace=1, color_primaries=1, color_trc=trc)
        for trc in (1, 16)
    ]
    source = tmp_path / "film.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(MediaError, match=r"curve changes from SDR to PQ .*--assume-transfer"):
        color(source)
    settings = EXACT.model_copy(update={"assume_transfer": "sdr"})
    assert {frame.color_trc for frame in decode(color(source, settings))} == {1}


@pytest.mark.parametrize(("assumed", "tag"), [("limited", 1), ("full", 2)])
def test_the_user_knows_the_range_better(tmp_path: Path, assumed: str, tag: int) -> None:
    source = two_ranges(tmp_path / "film.ts")
    settings = EXACT.model_copy(update={"assume_range": assumed})
    done, report = color_and_report(source, settings)
    assert report.frames == 10 and differences(source, done) == [0] * 10
    assert {frame.color_range for frame in decode(done)} == {tag}


def test_the_user_knows_matrix_and_curve_better(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", 3, colorspace=9, color_primaries=9, color_trc=16)
    assert probe_film(source).code.transfer is Transfer.PQ
    update = {"assume_matrix": "bt709", "assume_transfer": "sdr"}
    job = plan_film(source, EXACT.model_copy(update=update))
    assert job.source.code.transfer is Transfer.SDR
    tags = job.encoder.tags
    assert (tags.matrix, tags.primaries, tags.transfer) == (1, 1, 1)


@pytest.mark.parametrize(("number", "transfer"), [(16, Transfer.PQ), (18, Transfer.HLG)])
def test_hdr_film_stays_hdr_and_has_its_colors_on_its_own_curve(
    tmp_path: Path, number: int, transfer: Transfer
) -> None:
    luma = np.full((48, 64), 64 + round(876 * 0.5), np.uint16)
    images = [picture_of(luma, "yuv420p10le") for _ in range(3)]
    tags: dict[str, Any] = {
        "colorspace": 9,
        "color_primaries": 9,
        "color_trc": number,
        "color_range": 1,
    }
    source = make_film(tmp_path / "film.mkv", images, codec="ffv1", pix_fmt="yuv420p10le", **tags)
    done = color(source, ARCHIVE)
    frame = decode(done)[1]
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (9, 9, number)
    assert differences(source, done) == [0, 0, 0]
    planes = [np.frombuffer(memoryview(p), "<u2").reshape(p.height, -1) for p in frame.planes]
    cb, cr = ((plane[12, 8].astype(float) - 512) / 896 for plane in planes[1:])
    # The painter's a rises from -30 at the left edge to 30 at the right one; b from top to bottom.
    found = displayed_ab(0.5, cb, cr, transfer)
    np.testing.assert_allclose(found, (-15.0, 1.0), atol=2.0)


def hdr_film(path: Path, number: int, strength: float) -> Path:
    """A noisy ramp with a warm and a cool half, of so much Lab chroma as an HDR display shows."""
    chance = np.random.default_rng(2)
    transfer = {16: Transfer.PQ, 18: Transfer.HLG}[number]
    code = PixelCode(Matrix.BT2020, 10, transfer=transfer)
    ab = torch.zeros(1, 2, 24, 32)
    ab[:, :, :, :16], ab[:, :, :, 16:] = strength * 0.7, -strength * 0.7
    images = []
    for shift in range(4):
        luma = luma_of(shift, (64, 48), 10) // 2 + 250
        image = picture_of(luma, "yuv420p10le")
        planes = chroma_planes(torch.from_numpy(luma)[None, None], ab, code)[0].numpy()
        for plane, samples in zip(image.planes[1:], planes, strict=True):
            noise = chance.integers(-1, 2, samples.shape)
            plane.update((samples.astype(int) + noise).astype("<u2").tobytes())
        images.append(image)
    tags: dict[str, Any] = {
        "colorspace": 9,
        "color_primaries": 9,
        "color_trc": number,
        "color_range": 1,
    }
    return make_film(path, images, codec="ffv1", pix_fmt="yuv420p10le", **tags)


@pytest.mark.parametrize("number", [16, 18])
def test_hdr_film_in_color_is_known_by_colors_that_have_weak_codes(
    tmp_path: Path, number: int
) -> None:
    source = hdr_film(tmp_path / "film.mkv", number, 12.0)
    with pytest.raises(AlreadyColor):
        plan_film(source, ARCHIVE)


@pytest.mark.parametrize("number", [16, 18])
def test_noise_in_the_chroma_of_hdr_film_is_no_color(tmp_path: Path, number: int) -> None:
    info = probe_film(hdr_film(tmp_path / "film.mkv", number, 0.0))
    assert info.existing_color is ExistingColor.NONE


def test_what_ffmpeg_knows_of_other_streams_does_not_hurt(tmp_path: Path) -> None:
    """Codecs that Matroska does not hold say nothing of their siting."""
    path = make_film(tmp_path / "film.gif", 2, codec="gif", pix_fmt="gray")
    with av.open(str(path)) as container:
        assert parameters_of(container.streams.video[0]).siting == 0
