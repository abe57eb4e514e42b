"""The display matrix: how a player rotates and mirrors the pictures of a film."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
from av.video.frame import VideoFrame

from colordaemon.media.frames import all_side_data

_ONE, _WHOLE = 1 << 16, 1 << 30  # fixed point with 16 and 30 binary digits
_NUMBERS = struct.Struct("=9i")


@dataclass(frozen=True)
class Orientation:
    """The display matrix (a, b, u, c, d, v, x, y, w) as mp4 and mov have it, in fixed point: a
    pixel at (p, q) is shown at (a p + c q + x, b p + d q + y).

    A turn by less than 45 degrees is none to the network.
    """

    matrix: tuple[int, ...] = (_ONE, 0, 0, 0, _ONE, 0, 0, 0, _WHOLE)

    @classmethod
    def of(cls, picture: VideoFrame) -> Self:
        for side in all_side_data(picture):
            if side.type.name == "DISPLAYMATRIX" and len(bytes(side)) == _NUMBERS.size:
                return cls(_NUMBERS.unpack(bytes(side)))
        return cls()

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self != Orientation()

    @property
    def stretch(self) -> Fraction:
        """By how much more it scales across than down."""
        a, b, _, c, d = self.matrix[:5]
        across, down = round(math.hypot(a, b)), round(math.hypot(c, d))
        return Fraction(across, down) if across and down else Fraction(1)

    def upright(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures (*, H, W) as a viewer sees them, in whole quarter turns; a view."""
        if self._swaps:
            pictures = pictures.swapaxes(-2, -1)
        return pictures[..., :: self._down, :: self._across]

    def as_stored(self, pictures: np.ndarray) -> np.ndarray:
        """The inverse of `upright`."""
        pictures = pictures[..., :: self._down, :: self._across]
        return pictures.swapaxes(-2, -1) if self._swaps else pictures

    @property
    def _swaps(self) -> bool:
        """Whether lines become columns."""
        a, b, _, c, d = self.matrix[:5]
        return abs(b) + abs(c) > abs(a) + abs(d)

    @property
    def _across(self) -> int:
        return -1 if self.matrix[3 if self._swaps else 0] < 0 else 1

    @property
    def _down(self) -> int:
        return -1 if self.matrix[1 if self._swaps else 4] < 0 else 1
