"""The fast way to chroma planes against the plain one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colordaemon.color import Matrix, PixelCode, Siting, chroma_planes
from colordaemon.film.chroma import fast_planes

CODES = st.builds(
    PixelCode,
    matrix=st.sampled_from(Matrix),
    depth=st.sampled_from((8, 9, 10, 12, 14, 16)),
    full_range=st.booleans(),
    subsampling=st.sampled_from(((2, 2), (2, 1), (1, 1), (4, 1), (1, 2), (4, 4))),
    siting=st.sampled_from(Siting),
    interlaced=st.booleans(),
).filter(lambda code: code.depth == 8 or code.subsampling != (4, 4))  # as those of FFmpeg
SIZES = st.tuples(st.integers(2, 130), st.integers(2, 170))
STRENGTHS = (0.0, 5.0, 20.0, 60.0)


def picture(size: tuple[int, int], depth: int, seed: int) -> np.ndarray:
    """Luma codes with edges, slopes and noise, from below black to above white."""
    height, width = size
    random = np.random.default_rng(seed)
    rough = random.uniform(-0.1, 1.1, (height // 9 + 1, width // 9 + 1)).astype(np.float32)
    smooth = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    noisy = smooth + random.normal(0, 0.02, smooth.shape)
    kind = np.uint8 if depth == 8 else np.uint16
    codes: np.ndarray = (noisy.clip(0, 1) * ((1 << depth) - 1)).astype(kind)
    return codes


def colors(size: tuple[int, int], strength: float, seed: int) -> np.ndarray:
    """Smooth ab (2, h, w) at about a third of a picture's size."""
    height, width = size
    random = np.random.default_rng(seed)
    rough = random.normal(0, strength, (height // 20 + 1, width // 20 + 1, 2)).astype(np.float32)
    smooth = cv2.resize(rough, (width // 3 + 1, height // 3 + 1), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(smooth.transpose(2, 0, 1)).clip(-110, 110)


def plain(luma: np.ndarray, ab: np.ndarray, code: PixelCode) -> np.ndarray:
    planes = chroma_planes(torch.from_numpy(luma)[None, None], torch.from_numpy(ab)[None], code)
    found: np.ndarray = planes[0].numpy()
    return found


@settings(max_examples=100, deadline=None)
@given(CODES, SIZES, st.sampled_from(STRENGTHS), st.integers(0, 1000))
def test_fast_planes_are_within_a_code_of_plain_ones(
    code: PixelCode, size: tuple[int, int], strength: float, seed: int
) -> None:
    luma, ab = picture(size, code.depth, seed), colors(size, strength, seed)
    found, wanted = fast_planes(luma, ab, code), plain(luma, ab, code)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    apart = np.abs(found.astype(int) - wanted.astype(int))
    if code.depth < 16:
        assert apart.max() <= 1
    else:
        assert apart.max() <= 2
        assert (apart > 1).sum() <= 1 + 0.001 * apart.size


@settings(max_examples=30, deadline=None)
@given(CODES, SIZES, st.integers(0, 1000))
def test_without_color_fast_planes_are_neutral_everywhere(
    code: PixelCode, size: tuple[int, int], seed: int
) -> None:
    planes = fast_planes(picture(size, code.depth, seed), np.zeros((2, 5, 7), np.float32), code)
    assert (planes == code.neutral).all()


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("width", [1022, 1024, 1026])
def test_a_wide_frame_is_done_in_parts_without_seams(depth: int, width: int) -> None:
    size, code = (12, width), PixelCode(Matrix.BT709, depth=depth)
    luma, ab = picture(size, depth, 1), colors(size, 20.0, 1)
    apart = np.abs(fast_planes(luma, ab, code).astype(int) - plain(luma, ab, code).astype(int))
    assert apart.max() <= 1


def test_luma_with_gaps_between_its_lines_gets_the_same_planes() -> None:
    size, code = (18, 50), PixelCode(Matrix.BT709)
    luma, ab = picture(size, 8, 1), colors(size, 20.0, 1)
    apart = np.zeros((18, 64), np.uint8)
    apart[:, :50] = luma
    assert (fast_planes(apart[:, :50], ab, code) == fast_planes(luma, ab, code)).all()


def test_codes_of_more_bits_than_declared_are_white() -> None:
    code, ab = PixelCode(Matrix.BT709, depth=10), np.full((2, 3, 3), 40.0, np.float32)
    planes = fast_planes(np.full((6, 8), 65535, np.uint16), ab, code)
    assert (planes == code.neutral).all()
