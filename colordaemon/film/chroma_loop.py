"""The loop over the samples of chroma planes, compiled by Numba.

It goes through a frame once, some hundred samples at a time, so that all that is computed stays in
a first level cache, and without the GIL. LLVM makes the loops parallel (SIMD) as they are written
here: each has few arrays, and looking up in a table is a loop of its own. Everything is float32,
and no sum is reordered or contracted (no `fastmath`), so every processor finds the same codes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit
from numpy import float32, int32, uint32

from colordaemon.color import KAPPA, TOE

# How to sample a line of values at each of n places: the indices of four of them, and their
# weights; both (n, 4).
Taps = tuple[np.ndarray, np.ndarray]
# Nine of the matrix from XYZ to linear RGB, line by line; the three shares of R'G'B' in luma; the
# luma code of black, and one over the codes between it and white; the chroma codes of one unit of
# B' - Y' and of R' - Y'; the chroma code of no color, and half a code for rounding.
Figures = tuple[np.float32, ...]

_TOE_3, _SLOPE, _LEVEL = float32(3 * TOE), float32(116 / KAPPA), float32((116 * TOE - 16) / KAPPA)
_LINEAR, _STEEP = float32(0.0031308), float32(12.92)  # of sRGB: up to this light a straight line
# 1.055 s^(5/3) for s from 0.236 to 2: least squares at Chebyshev's nodes, off by 2e-5 at most.
_C0, _C1, _C2, _C3 = map(float32, (-0.00631692586, 0.159975469, 1.27492785, -0.651033819))
_C4, _C5, _C6, _C7 = map(float32, (0.423722923, -0.189836293, 0.048989065, -0.00543579878))
_ZERO, _ONE = float32(0), float32(1)
_TINY = float32(1e-6)  # black and white themselves leave no room for color at all

_SAMPLES = 512  # of a chroma line, computed together
_WIDTH = 4 * _SAMPLES  # luma samples above them, at most
# Arrays in one, a fixed distance apart: LLVM has to prove that arrays do not overlap.
_LOW, _HIGH = _WIDTH, 2 * _WIDTH  # of blocks, after their sums
_Z, _Y = _SAMPLES, 2 * _SAMPLES  # of roots, after those of X


def compile_loop(*, cached: bool) -> Callable[..., None]:
    """`_paint`, which is compiled when it is first called, for each type of luma.

    cached: Numba keeps and finds it in a folder: NUMBA_CACHE_DIR, `__pycache__` beside this file or
    the user's cache folder, whichever can be written first. Raises RuntimeError if none can.
    """
    loop: Callable[..., None] = njit(nogil=True, error_model="numpy", cache=cached)(_paint)
    return loop


_inlined = njit(nogil=True, error_model="numpy")


@_inlined
def _first_line(line: np.ndarray, blocks: np.ndarray) -> None:
    for x in range(line.size):
        luma = int32(line[x])
        blocks[x] = luma
        blocks[_LOW + x] = luma
        blocks[_HIGH + x] = luma


@_inlined
def _add_line(line: np.ndarray, blocks: np.ndarray) -> None:
    for x in range(line.size):
        luma = int32(line[x])
        blocks[x] += luma
        blocks[_LOW + x] = min(blocks[_LOW + x], luma)
        blocks[_HIGH + x] = max(blocks[_HIGH + x], luma)


@_inlined
def _repeat_last(blocks: np.ndarray, found: int, wanted: int) -> None:
    for x in range(found, wanted):
        blocks[x] = blocks[found - 1]
        blocks[_LOW + x] = blocks[_LOW + found - 1]
        blocks[_HIGH + x] = blocks[_HIGH + found - 1]


@_inlined
def _join_pairs(blocks: np.ndarray, joined: np.ndarray, count: int) -> None:
    for x in range(count):
        joined[x] = blocks[2 * x] + blocks[2 * x + 1]
        joined[_LOW + x] = min(blocks[_LOW + 2 * x], blocks[_LOW + 2 * x + 1])
        joined[_HIGH + x] = max(blocks[_HIGH + 2 * x], blocks[_HIGH + 2 * x + 1])


@_inlined
def _enlarge_lines(ab: np.ndarray, taps: Taps) -> np.ndarray:
    """ab (2, h, w) to (2, h, W')."""
    places, weights = taps
    _, height, _ = ab.shape
    wide = np.empty((2, height, len(places)), np.float32)
    for part in range(2):
        for y in range(height):
            for x in range(len(places)):
                wide[part, y, x] = (
                    weights[x, 0] * ab[part, y, places[x, 0]]
                    + weights[x, 1] * ab[part, y, places[x, 1]]
                    + weights[x, 2] * ab[part, y, places[x, 2]]
                    + weights[x, 3] * ab[part, y, places[x, 3]]
                )
    return wide


@_inlined
def _enlarge(
    wide: np.ndarray, places: np.ndarray, weights: np.ndarray, roots: np.ndarray, begin: int
) -> None:
    """A line from wide (h, n), with the taps (4,) that are for it, into roots."""
    one, two, three, four = wide[places[0]], wide[places[1]], wide[places[2]], wide[places[3]]
    w_1, w_2, w_3, w_4 = weights[0], weights[1], weights[2], weights[3]
    for x in range(one.size):
        roots[begin + x] = w_1 * one[x] + w_2 * two[x] + w_3 * three[x] + w_4 * four[x]


@_inlined
def _look_up(root_of: np.ndarray, blocks: np.ndarray, roots: np.ndarray, count: int) -> None:
    last = uint32(root_of.size - 1)  # a damaged film may hold codes of more bits than it declares
    for x in range(count):
        roots[_Y + x] = root_of[min(uint32(blocks[x]), last)]


@_inlined
def _light(root: float32) -> float32:
    """X, Y or Z from f - TOE = u: u^2 (u + 3 TOE) + (116 f - 16) / KAPPA where u is positive.

    At the toe, cube and straight line have the same value and slope, and below it only the second
    part is left.
    """
    above = max(root, _ZERO)
    light: float32 = above * above * (above + _TOE_3) + (_SLOPE * root + _LEVEL)
    return light


@_inlined
def _curve(light: float32) -> float32:
    """sRGB of linear light, and 0.055 more, which drops out of differences between channels."""
    bent = max(light, _LINEAR)
    s = np.sqrt(np.sqrt(bent))
    high = _C4 + s * (_C5 + s * (_C6 + s * _C7))
    low = _C0 + s * (_C1 + s * (_C2 + s * _C3))
    encoded: float32 = _STEEP * (light - bent) + (low + (s * s) * (s * s) * high)
    return encoded


@_inlined
def _color(
    roots: np.ndarray, blocks: np.ndarray, figures: Figures, cb: np.ndarray, cr: np.ndarray
) -> None:
    """A line of chroma codes; see `Figures`."""
    r_x, r_y, r_z, g_x, g_y, g_z, b_x, b_y, b_z = figures[:9]
    kr, kg, kb, black, shrunk, blue_span, red_span, neutral = figures[9:]
    for x in range(cb.size):
        root = roots[_Y + x]
        x_light, y_light = _light(root + roots[x]), _light(root)
        z_light = _light(root + roots[_Z + x])
        red = _curve(r_x * x_light + r_y * y_light + r_z * z_light)
        green = _curve(g_x * x_light + g_y * y_light + g_z * z_light)
        blue = _curve(b_x * x_light + b_y * y_light + b_z * z_light)
        luma = kr * red + kg * green + kb * blue
        red, green, blue = red - luma, green - luma, blue - luma
        above = max(_ONE - (float32(blocks[_HIGH + x]) - black) * shrunk, _TINY)
        below = max((float32(blocks[_LOW + x]) - black) * shrunk, _TINY)
        up, down = max(max(red, green), blue) / above, -min(min(red, green), blue) / below
        fitted = _ONE / max(max(up, down), _ONE)
        cb[x] = int32(blue * fitted * blue_span + neutral)
        cr[x] = int32(red * fitted * red_span + neutral)


def _paint(
    luma: np.ndarray,
    ab: np.ndarray,
    across: int,
    down: int,
    fields: int,
    lines: Taps,
    columns: Taps,
    root_of: np.ndarray,
    figures: Figures,
    planes: np.ndarray,
) -> None:
    """Write the chroma planes (2, H', W') of a frame; `film.chroma` makes what it needs.

    luma: (H, W) codes, each block of which, `across` by `down`, has one chroma sample; odd edges
    repeat the last. fields: 2 if lines belong to two fields in turn, which have blocks of their
    own, else 1. ab: (2, h, w), what it adds to f(X) and f(Z). lines, columns: by which it is
    enlarged. root_of: f - TOE of each sum of the luma codes of a block.
    """
    height, width = luma.shape
    _, rows, total = planes.shape
    field_height = (height + fields - 1) // fields  # an odd last line stands in both
    wide = _enlarge_lines(ab, columns)
    places, weights = lines
    blocks, joined = np.empty(3 * _WIDTH, np.int32), np.empty(3 * _WIDTH, np.int32)
    roots = np.empty(3 * _SAMPLES, np.float32)
    for row in range(rows):
        for left in range(0, total, _SAMPLES):
            right = min(left + _SAMPLES, total)
            begin, end = left * across, min(right * across, width)
            for number in range(down):
                y = min(row // fields * down + number, field_height - 1) * fields + row % fields
                line = luma[min(y, height - 1), begin:end]
                if number == 0:
                    _first_line(line, blocks)
                else:
                    _add_line(line, blocks)
            count = across * (right - left)
            _repeat_last(blocks, end - begin, count)
            while count > right - left:
                count //= 2
                _join_pairs(blocks, joined, count)
                blocks, joined = joined, blocks
            for part, begin in ((0, 0), (1, _Z)):
                _enlarge(wide[part, :, left:right], places[row], weights[row], roots, begin)
            _look_up(root_of, blocks, roots, right - left)
            _color(roots, blocks, figures, planes[0, row, left:right], planes[1, row, left:right])
