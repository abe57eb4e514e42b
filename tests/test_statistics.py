"""Figures of single pictures, and what decoding leaves of them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from pictures import colorful, encode

from colordaemon.color import rgb_to_lab
from colordaemon.pictures.dataset import decode_picture
from colordaemon.pictures.statistics import (
    THUMBNAIL,
    colorfulness,
    difference_hash,
    mean_chroma,
    measure,
)


def bits(one: np.ndarray, other: np.ndarray) -> int:
    """How many bits of their difference hashes differ."""
    hashes = [difference_hash(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)) for x in (one, other)]
    return (hashes[0] ^ hashes[1]).bit_count()


def test_gray_has_neither_colorfulness_nor_chroma() -> None:
    levels = np.random.default_rng(0).uniform(0, 255, (16, 16, 1)).astype(np.float32)
    gray = np.repeat(levels, 3, axis=2)
    assert colorfulness(gray) == pytest.approx(0, abs=1e-3)
    assert mean_chroma(gray) == pytest.approx(0, abs=0.05)  # OpenCV looks its curves up


def test_colorfulness_is_that_of_its_formula() -> None:
    """Half red, half blue, by hand: rg is 255 or 0, yb is 127.5 or -255."""
    halves = np.zeros((2, 2, 3), np.float32)
    halves[0, :, 0] = halves[1, :, 2] = 255
    spread = np.hypot(127.5, 191.25)
    assert colorfulness(halves) == pytest.approx(spread + 0.3 * np.hypot(127.5, 63.75), rel=1e-5)


def test_opponent_colors_keep_their_sign() -> None:
    """Without it, red and cyan would be alike and a picture of both less colorful than this."""
    halves = np.zeros((2, 2, 3), np.float32)
    halves[0] = (255, 0, 0)
    halves[1] = (0, 255, 255)
    assert colorfulness(halves) > 255


def test_chroma_is_that_of_our_own_lab() -> None:
    pixels = colorful(1)
    rgb = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    ours = torch.linalg.vector_norm(rgb_to_lab(rgb)[1:], dim=0).mean().item()
    assert mean_chroma(pixels.astype(np.float32)) == pytest.approx(ours, rel=0.01)


def test_a_large_picture_has_the_figures_of_a_small_one() -> None:
    small = measure(colorful(2), b"")
    large = measure(colorful(2, 480, 640), b"")
    assert large.colorfulness == pytest.approx(small.colorfulness, rel=0.1)
    assert large.chroma == pytest.approx(small.chroma, rel=0.1)
    assert len(large.thumbnail) == len(small.thumbnail) == THUMBNAIL**2


def test_a_hash_survives_another_size_and_encoder_but_not_another_picture() -> None:
    pixels = colorful(3, 96, 128)
    again = decode_picture(encode(pixels, ".jpg", 40))
    assert again is not None
    assert bits(pixels, again) <= 3
    assert bits(pixels, cv2.resize(pixels, (100, 75), interpolation=cv2.INTER_AREA)) <= 3
    assert bits(pixels, colorful(4, 96, 128)) > 16


def test_content_tells_files_apart_not_pictures() -> None:
    pixels = colorful(5)
    assert measure(pixels, b"one").content != measure(pixels, b"other").content


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2, 3)])
def test_the_smallest_pictures_can_be_looked_at(size: tuple[int, int]) -> None:
    assert len(measure(np.full((*size, 3), 200, np.uint8), b"").thumbnail) == THUMBNAIL**2


def test_pictures_come_as_rgb() -> None:
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 2] = 255  # OpenCV's order is BGR
    pixels = decode_picture(cv2.imencode(".png", red)[1].tobytes())
    assert pixels is not None
    assert pixels.shape == (4, 6, 3)
    assert (pixels == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 200), (50, 100)), ((200, 100), (100, 50)), ((50, 70), (50, 70)), ((30, 90), (30, 90))],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_the_short_side_shrinks_and_never_grows(
    size: tuple[int, int], expected: tuple[int, int], suffix: str
) -> None:
    pixels = decode_picture(encode(colorful(6, *size), suffix), 50)
    assert pixels is not None
    assert pixels.shape == (*expected, 3)


@pytest.mark.parametrize("factor", [2, 3, 4, 8, 9])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_large_jpeg_looks_as_if_it_had_been_read_whole(factor: int, progressive: int) -> None:
    large = cv2.cvtColor(colorful(7, 40 * factor, 60 * factor), cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = cv2.imencode(".jpg", large, options)[1].tobytes()
    whole, reduced = decode_picture(data), decode_picture(data, 40)
    assert whole is not None and reduced is not None
    expected = cv2.resize(whole, (60, 40), interpolation=cv2.INTER_AREA)
    assert reduced.shape == expected.shape
    assert np.abs(reduced.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x04ab"])
def test_what_is_no_picture_gives_nothing(data: bytes) -> None:
    assert decode_picture(data) is None
    assert decode_picture(data, 50) is None
