"""Where each pixel of a frame was in the frame before, and whether it could be seen there.

The measurement must not have the errors of what it measures. Smoothing follows DIS in its fastest
preset at the size of ab; here its medium preset runs at the size of the gray, twice as large, where
it descends to finer patches and refines them (Kroeger et al. 2016, table 1). Farnebäck's flow would
be stranger still, but its windows blur the outlines of things: of a textured square that moved 8 px
it called over four times the pixels uncovered that were, this one a good two.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from colordaemon.film.motion import fetched

# A pixel and its way back may differ by this much: Sundaram, Brox & Keutzer 2010, equation 5, as in
# the warp error of Lai et al. 2018.
RELATIVE_SLIP, ABSOLUTE_SLIP = 0.01, 0.5
_SMALLEST = 16  # pixels a side, which DIS wants


@dataclass(frozen=True)
class Passage:
    """From a frame's ab to that of the frame before.

    places: (h, w, 2) float32, x and y there. visible: (h, w) bool, seen there as a whole.
    uncovered: (h, w) bool, for the most part not seen there: something lay over it or it came in at
    the edge. Pixels at outlines are neither.
    """

    places: np.ndarray
    visible: np.ndarray
    uncovered: np.ndarray

    def fetch(self, values: np.ndarray) -> np.ndarray:
        """What values (h, w, n) of the frame before become in this one."""
        return fetched(values, self.places)


class PassageFinder:
    """Fed the gray of one frame after the other; not to be shared by threads."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._last: np.ndarray | None = None

    def next(self, gray: np.ndarray, cut: bool) -> Passage | None:
        """gray: (h, w) float32 0..1, even sides. None for the first frame of a shot (cut)."""
        codes = (gray * 255).round().clip(0, 255).astype(np.uint8)
        last, self._last = self._last, codes
        if cut or last is None:
            return None
        back, forth = self._flow(codes, last), self._flow(last, codes)
        return passage_along(back, forth)

    def _flow(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        flow = np.zeros((*one.shape, 2), np.float32)
        if min(one.shape) < _SMALLEST:
            return flow
        return np.asarray(self._dis.calc(one, other, flow))


def passage_along(back: np.ndarray, forth: np.ndarray) -> Passage:
    """From flow (2h, 2w, 2) to the frame before and from there, both in pixels of the gray."""
    height, width = back.shape[:2]
    x, y = cv2.split(_grid(height, width) + back)
    there = cv2.remap(forth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    slip = _squared(back + there)
    same = slip <= RELATIVE_SLIP * (_squared(back) + _squared(there)) + ABSOLUTE_SLIP
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    half = width // 2, height // 2
    seen = cv2.resize((same & inside).astype(np.float32), half, interpolation=cv2.INTER_AREA)
    flow = cv2.resize(back, half, interpolation=cv2.INTER_AREA) / 2
    return Passage(_grid(*half[::-1]) + flow, seen > 0.99, seen < 0.5)


def _grid(height: int, width: int) -> np.ndarray:
    axes = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return np.stack(np.meshgrid(*axes), axis=-1)


def _squared(vectors: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.square(vectors).sum(axis=-1)
    return lengths
