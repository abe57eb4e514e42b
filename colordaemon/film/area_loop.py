"""The loop that makes pictures small, compiled by Numba: sums of areas, as OpenCV's INTER_AREA.

It adds up lines first, which LLVM makes parallel (SIMD); OpenCV first adds up within each line.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit


def compile_loop(*, cached: bool) -> Callable[..., None]:
    """`_shrink`; see `chroma_loop.compile_loop`."""
    loop: Callable[..., None] = njit(nogil=True, error_model="numpy", cache=cached)(_shrink)
    return loop


@njit(nogil=True, error_model="numpy")
def _add(line: np.ndarray, weight: np.float32, sums: np.ndarray) -> None:
    for x in range(line.size):
        sums[x] += weight * np.float32(line[x])


def _shrink(luma: np.ndarray, small: np.ndarray) -> None:
    """Write the means of areas of luma (H, W) into small (h, w), rounded; h <= H and w <= W."""
    (height, width), (rows, columns) = luma.shape, small.shape
    tall, wide = height / rows, width / columns
    sums = np.empty(width, np.float32)
    for row in range(rows):
        top, bottom = row * tall, min((row + 1) * tall, height)
        sums[:] = 0
        for y in range(int(top), min(int(np.ceil(bottom)), height)):
            share = min(y + 1, bottom) - max(y, top)
            _add(luma[y], np.float32(share / (tall * wide)), sums)
        for column in range(columns):
            left, right = column * wide, min((column + 1) * wide, width)
            first, last = int(left), min(int(right), width - 1)
            total = sums[first] * (first + 1 - left)
            for x in range(first + 1, last):
                total += sums[x]
            if last > first:
                total += sums[last] * (right - last)
            small[row, column] = int(np.rint(total))
