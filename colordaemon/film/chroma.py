"""The chroma planes of frames: as `color.chroma_planes` computes them, on a processor faster.

There the same formulas run on a few lines at a time, so that what is computed stays in the cache;
what depends on a luma code alone is in tables, and sums of channels are products of matrices. With
99.9 % of samples that is at most one code apart from `color.chroma_planes`.
"""

from __future__ import annotations

from functools import lru_cache, reduce

import cv2
import numpy as np
import torch
from torch import Tensor

from colordaemon.color import (
    PixelCode,
    chroma_planes,
    enlarging,
    lightness_root,
    offset_in_block,
    rgb_from_xyz,
    srgb_to_linear,
)
from colordaemon.media.decode import Frame
from colordaemon.media.pixels import at_depth
from colordaemon.transfer import Transfer

_BAND_SAMPLES = 46_080  # of chroma at a time; measured: with all arrays that is about 3 MB
_TOE = 6 / 29  # of f in CIE Lab: below it the cube becomes a straight line
_KAPPA = 24389 / 27
_LINEAR = 0.0031308  # of sRGB: below this light the curve is a straight line
_TINY = 1e-6  # black and white themselves leave no room for color at all


@torch.inference_mode()
def frame_chroma(frame: Frame, ab: Tensor, code: PixelCode) -> np.ndarray:
    """Chroma planes (2, H', W') for a frame from its ab (2, h, w); runs where ab is."""
    luma = at_depth(frame.luma, frame.depth, code.depth)
    if ab.device.type == "cpu" and code.transfer is Transfer.SDR:
        return fast_planes(luma, ab.numpy(), code)
    planes = torch.from_numpy(luma)[None, None].to(ab.device)
    return chroma_planes(planes, ab[None], code)[0].cpu().numpy()  # the GPU has to wait here


def fast_planes(luma: np.ndarray, ab: np.ndarray, code: PixelCode) -> np.ndarray:
    """`color.chroma_planes` of one frame, on a processor.

    luma: (H, W) uint8 or uint16 codes of SDR. ab: (2, h, w) float32 Lab units at any size. Returns
    (2, H', W') of luma's dtype, Cb then Cr.
    """
    mean, low, high = _blocks(luma, code)
    shift = _enlarged(ab, luma.shape, code)
    rows, columns = mean.shape
    planes = np.empty((2, rows, columns), luma.dtype)
    step = max(1, _BAND_SAMPLES // columns)
    band = _Band(_tables(code), min(step, rows) * columns)
    for start in range(0, rows, step):
        lines = slice(start, start + step)
        band.paint(shift[:, lines], mean[lines], low[lines], high[lines], planes[:, lines])
    return planes


class _Tables:
    """What depends on a luma code alone, and the matrices between channels."""

    def __init__(self, code: PixelCode) -> None:
        codes = torch.arange(1 << code.depth, dtype=torch.float32)
        gray = (codes - code.black) / code.luma_span
        self.root = (lightness_root(gray) - _TOE).numpy()  # f(Y), as it lies above the toe
        self.light = srgb_to_linear(gray).numpy()  # Y
        self.over_white = (1 / (1 - gray).clamp(min=_TINY)).numpy()
        self.over_black = (-1 / gray.clamp(min=_TINY)).numpy()
        # X = u^2 (u + 3 TOE) + (116 f - 16) / KAPPA with u = f - TOE where that is positive, else
        # 0: at the toe, cube and straight line have the same value and slope.
        slope, level = 116 / _KAPPA, (116 * _TOE - 16) / _KAPPA
        x, y, z = rgb_from_xyz(code.matrix).numpy().T
        to_light = (x, z, slope * x, slope * z, y, level * (x + z))
        self.to_light = np.stack(to_light, axis=1).astype(np.float32)
        # From R', G', B' in two parts, curve and straight line, to their differences from luma.
        kr, kb = code.matrix.value
        differences = np.eye(3) - np.array([kr, 1 - kr - kb, kb])
        self.differences = np.hstack((1.055 * differences, 12.92 * differences)).astype(np.float32)
        self.scales = code.chroma_span / (2 - 2 * kb), code.chroma_span / (2 - 2 * kr)
        self.neutral = np.float32(code.neutral)


_tables = lru_cache(maxsize=8)(_Tables)


class _Band:
    """Some lines of a picture, with room for `samples` and everything computed on the way."""

    def __init__(self, tables: _Tables, samples: int) -> None:
        self._tables = tables
        self._terms = np.ones((6, samples), np.float32)  # the last is the constant
        self._curve = np.empty((6, samples), np.float32)
        self._rgb = np.empty((3, samples), np.float32)
        self._above = np.empty((2, samples), np.float32)

    def paint(
        self,
        shift: np.ndarray,
        mean: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        planes: np.ndarray,
    ) -> None:
        """shift: (2, h, w), what ab adds to f(X) and f(Z). mean, low, high: luma codes (h, w) under
        each sample. planes: (2, h, w), is written."""
        tables, count = self._tables, mean.size
        terms, curve = self._terms[:, :count], self._curve[:, :count]
        rgb, above = self._rgb[:, :count], self._above[:, :count]

        cubes, roots = terms[0:2], terms[2:4]
        np.add(shift.reshape(2, count), _look_up(tables.root, mean), out=roots)
        np.maximum(roots, 0, out=above)
        np.multiply(above, above, out=cubes)
        above += np.float32(3 * _TOE)
        cubes *= above
        terms[4] = _look_up(tables.light, mean)
        np.matmul(tables.to_light, terms, out=rgb)

        bent, straight = curve[0:3], curve[3:6]
        np.maximum(rgb, np.float32(_LINEAR), out=bent)
        np.subtract(rgb, bent, out=straight)
        cv2.pow(bent, 1 / 2.4, bent)
        np.matmul(tables.differences, curve, out=rgb)

        red, green, blue = rgb
        up, down = terms[0], terms[1]
        np.maximum(np.maximum(red, green, out=up), blue, out=up)
        np.minimum(np.minimum(red, green, out=down), blue, out=down)
        up *= _look_up(tables.over_white, high)
        down *= _look_up(tables.over_black, low)
        np.maximum(np.maximum(up, down, out=up), 1, out=up)  # by how much the gamut is exceeded
        for plane, difference, scale in zip(planes, (blue, red), tables.scales, strict=True):
            difference /= up
            difference *= np.float32(scale)
            difference += tables.neutral
            np.rint(difference, out=difference)
            np.copyto(plane, difference.reshape(plane.shape), casting="unsafe")


def _look_up(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The float32 entries of a table, as one row; OpenCV is faster, and takes bytes only."""
    found = cv2.LUT(codes, table) if codes.dtype == np.uint8 else np.take(table, codes)
    return found.reshape(-1)


def _enlarged(ab: np.ndarray, size: tuple[int, ...], code: PixelCode) -> np.ndarray:
    """What ab adds to f(X) and f(Z), (2, H', W') float32 on the chroma grid of a luma plane."""
    height, width = size
    terms = torch.from_numpy(ab * np.array([1 / 500, -1 / 200], np.float32)[:, None, None])
    tall, wide = enlarging(terms[None], (height, width), code)
    down = code.subsampling[1]
    if height % down or offset_in_block(code.siting.value[1], down) != 0.5:
        product: np.ndarray = (tall @ wide)[0].numpy()
        return product
    rows, columns = code.chroma_size(height, width)
    enlarged = np.empty((2, rows, columns), np.float32)
    for lines, target in zip(wide[0].numpy(), enlarged, strict=True):  # faster than the product
        cv2.resize(lines, (columns, rows), target, interpolation=cv2.INTER_CUBIC)
    return enlarged


def _blocks(luma: np.ndarray, code: PixelCode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, least and greatest luma code (H', W') under each chroma sample; odd edges repeat the
    last. Each field has blocks of its own."""
    across, down = code.subsampling
    if not (code.interlaced and down > 1):
        return _plain_blocks(luma, across, down)
    rows, columns = code.chroma_size(*luma.shape)
    both = tuple(np.empty((rows, columns), luma.dtype) for _ in range(3))
    if len(luma) % 2:
        luma = np.concatenate((luma, luma[-1:]))  # an odd last line stands in both fields
    fields = luma[0::2], luma[1::2]
    for number, field in enumerate(fields):
        for target, found in zip(both, _plain_blocks(field, across, down), strict=True):
            lines = target[number::2]
            lines[:] = found[: len(lines)]
    mean, low, high = both
    return mean, low, high


def _plain_blocks(
    luma: np.ndarray, across: int, down: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if (across, down) == (1, 1):
        return luma, luma, luma
    missing = -luma.shape[0] % down, -luma.shape[1] % across
    if any(missing):
        luma = np.pad(luma, ((0, missing[0]), (0, missing[1])), "edge")
    size = luma.shape[1] // across, luma.shape[0] // down
    mean = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    lines = [luma[row::down] for row in range(down)]
    low, high = reduce(np.minimum, lines), reduce(np.maximum, lines)
    low = reduce(np.minimum, [low[:, column::across] for column in range(across)])
    high = reduce(np.maximum, [high[:, column::across] for column in range(across)])
    return mean, low, high
