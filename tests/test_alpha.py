"""Transparency of films: kept bit for bit where the codec has any, else named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from films import ARCHIVE, EXACT, SIZE, color, decode, luma_differences, luma_of, make_film

from colordaemon.config import FilmSettings
from colordaemon.film.colorize import plan_film
from colordaemon.media.inventory import remarks
from colordaemon.media.pixels import alpha_of, layout_of, plane_array

PRORES = FilmSettings(codec="prores")


def transparent(pix_fmt: str, count: int = 3) -> Iterator[VideoFrame]:
    """Pictures of gray noise, with other noise for how opaque they are."""
    depth = layout_of(pix_fmt).depth
    chance = np.random.default_rng(3)
    for number in range(count):
        picture = VideoFrame(*SIZE, pix_fmt)
        alpha = chance.integers(0, 1 << depth, SIZE[::-1])
        neutral = np.uint16(1 << (depth - 1))
        parts = [luma_of(number, SIZE, depth), neutral, neutral, alpha]
        for plane, samples in zip(picture.planes, parts, strict=True):
            target = plane_array(plane, depth)
            target.setflags(write=True)
            target[:] = samples
        yield picture


def alphas(path: Path) -> list[np.ndarray]:
    return [alpha_of(frame).copy() for frame in decode(path)]


@pytest.mark.parametrize("pix_fmt", ["yuva420p", "yuva422p10le", "yuva444p", "yuva444p12le"])
def test_ffv1_keeps_transparency_and_luma_bit_for_bit(tmp_path: Path, pix_fmt: str) -> None:
    source = make_film(tmp_path / "film.mkv", transparent(pix_fmt), codec="ffv1", pix_fmt=pix_fmt)
    done = color(source, ARCHIVE)
    assert decode(done)[0].format.name == pix_fmt
    assert all(map(np.array_equal, alphas(done), alphas(source)))
    assert luma_differences(source, done) == [0] * 3
    kept = [str(entry) for entry in plan_film(source, ARCHIVE).inventory]
    assert "transparency kept" in kept


def test_prores_4444_stays_so_and_keeps_transparency_bit_for_bit(tmp_path: Path) -> None:
    source = make_film(
        tmp_path / "film.mov", transparent("yuva444p10le"), codec="prores_ks",
        pix_fmt="yuva444p10le", options={"profile": "4444"},
    )  # fmt: skip
    done = color(source, PRORES)
    with av.open(str(done)) as container:
        assert container.streams.video[0].codec_tag == "ap4h"
    assert len(alphas(done)) == 3
    assert all(map(np.array_equal, alphas(done), alphas(source)))


def test_transparency_of_packed_rgb_is_kept(tmp_path: Path) -> None:
    chance = np.random.default_rng(4)
    samples = [chance.integers(0, 256, (*SIZE[::-1], 4)).astype(np.uint8) for _ in range(2)]
    for picture in samples:
        picture[..., :3] = picture[..., :1]
    images = (VideoFrame.from_ndarray(picture, "rgba") for picture in samples)
    source = make_film(tmp_path / "film.mov", images, codec="png", pix_fmt="rgba")
    done = color(source, ARCHIVE)
    assert all(map(np.array_equal, alphas(done), [picture[..., 3] for picture in samples]))
    told = remarks(plan_film(source, EXACT).inventory)
    assert "transparency left out: h264 holds none; ffv1 does, and prores in limited range" in told


@pytest.mark.parametrize("pix_fmt", ["rgba", "argb", "gbrap", "ya8", "rgba64le", "ya16be"])
def test_how_opaque_a_picture_is_comes_out_of_every_layout(pix_fmt: str) -> None:
    deep = "16" in pix_fmt or "64" in pix_fmt
    alpha: Any = np.random.default_rng(5).integers(0, 1 << (16 if deep else 8), (16, 16))
    alpha = alpha.astype(np.uint16 if deep else np.uint8)
    if pix_fmt.startswith("ya"):
        picture = VideoFrame(16, 16, pix_fmt)
        pairs = np.dstack([alpha, alpha]).astype(">u2" if deep else "u1")
        rows = pairs.tobytes()
        line, width = picture.planes[0].line_size, pairs.strides[0]
        padded = b"".join(
            rows[i : i + width].ljust(line, b"\0") for i in range(0, len(rows), width)
        )
        picture.planes[0].update(padded)
    else:
        packed: np.ndarray = np.dstack([alpha] * 4)
        picture = VideoFrame.from_ndarray(packed, "rgba64le" if deep else "rgba")
        picture = picture.reformat(format=pix_fmt)
    assert np.array_equal(alpha_of(picture), alpha)


def test_the_transparency_of_vp9_beside_the_picture_is_kept(tmp_path: Path) -> None:
    images = transparent("yuva420p")
    source = make_film(
        tmp_path / "film.webm", images, codec="libvpx-vp9", pix_fmt="yuva420p",
        options={"lossless": "1", "auto-alt-ref": "0", "deadline": "realtime"},
    )  # fmt: skip
    done = color(source, ARCHIVE)
    expected = [alpha_of(picture) for picture in transparent("yuva420p")]
    assert len(alphas(done)) == len(expected)
    assert all(map(np.array_equal, alphas(done), expected))
    assert luma_differences(source, done) == [0] * 3
    settings = FilmSettings(codec="av1")
    told = remarks(plan_film(source, settings).inventory)
    assert "transparency left out: av1 holds none; ffv1 does, and prores in limited range" in told
    with av.open(str(color(source, settings))) as container:
        assert not {"alpha_mode", "ALPHA_MODE"} & {*container.streams.video[0].metadata}
