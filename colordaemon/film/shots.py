"""Finds cuts, and decides which frames the network sees; both from small luma pictures."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

CUT_THUMBNAIL = (64, 48)  # width, height; small enough that grain and camera shake average out
CUT_DIFFERENCE = 18.0  # mean absolute difference of codes after matching exposure
FLICKER = 4 / 3  # each of two pictures may be this much too bright or too dark
CUT_RATIO = 3.0  # and this many times the usual difference of this shot, or fast motion would cut
ALIKE = 0.8  # correlation; at another exposure, in a flash or a fade, it is still the same picture
FLAT = 4.0  # codes, spread; frames that are all black or white cannot be compared
StrideSetting = int | Literal["auto"]
_STRIDE_THUMBNAIL = (48, 32)  # width, height
# On five color clips the error (CIEDE2000) of strides up to 8 was within 1 % of that of stride 1.
# On four, colors are .3 to .4 ΔE from those of stride 1, with 6 as with 8 (benchmarks/cpu.md).
AUTO_STRIDE = 8  # frames that have changed since the last one seen, at the most
LONGEST_STILL = 12  # frames, even where nothing changes
NOTHING = 0.8  # codes of 0..255, mean difference; below, only the grain differs
MUCH = 16.0  # codes; above, too much has moved to carry color along
# Codes, mean difference from the frame before. Below, it is shown again: in telecine, animation on
# twos and silent film at the speed of sound. Then a quarter of the looks is saved (chaplin_bw,
# test_mpeg4), and colors are .2 to .3 ΔE from those with them, as with other frames looked at.
REPEATED = 0.2
# Codes, mean difference of the square that differs most, of what the network is shown: below, it
# would say the same but for .02 to .13 ΔE. Titles and stills with little grain.
SAME = 2.0
_SQUARE = 8  # pixels a side; something small that moves must not get the color of what it hides


class CutDetector:
    """Fed one frame at a time, decides whether a new shot begins with it."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._usual = 0.0  # running mean of the differences inside the shot

    def is_cut(self, luma: np.ndarray) -> bool:
        """luma: (h, w) uint8 or float32 0..255 at any size. The first frame is a cut."""
        thumbnail = cv2.resize(luma, CUT_THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        thumbnail -= thumbnail.mean()
        last = self._last
        if last is None:
            self._last = thumbnail
            return True
        if thumbnail.std() < FLAT:  # the next frame is compared with the one before this
            return False
        self._last = thumbnail
        difference = float(np.abs(np.subtract(*_match_contrast(thumbnail, last))).mean())
        cut = (
            difference > CUT_DIFFERENCE
            and difference > CUT_RATIO * self._usual
            and _correlation(thumbnail, last) < ALIKE
        )
        self._usual = 0.0 if cut else 0.8 * self._usual + 0.2 * difference
        return cut


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of two pictures without their means, -1..1."""
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / max(lengths, 1e-6)


def _match_contrast(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale both to the same contrast, within FLICKER: old film changes its exposure from frame to
    frame."""
    contrasts = [max(float(x.std()), 1.0) for x in (one, other)]
    middle = sum(contrasts) / 2
    low, high = 1 / FLICKER, FLICKER
    gains = [min(max(middle / contrast, low), high) for contrast in contrasts]
    return one * gains[0], other * gains[1]


class Stride:
    """Fed one frame at a time, decides whether the network has to see it.

    It counts from the start of each shot, so that it does not matter where reading began.
    """

    def __init__(self, setting: StrideSetting) -> None:
        self.setting = setting
        self._seen: np.ndarray | None = None  # thumbnail of the last frame that the network saw
        self._last: np.ndarray | None = None  # of the last frame
        self._passed = 0  # frames since then
        self._changed = 0  # and how many of them showed something new

    def takes(self, luma: np.ndarray, cut: bool) -> bool:
        """luma: (h, w) float32 0..255 at any size. cut: it begins a shot."""
        thumbnail = cv2.resize(luma, _STRIDE_THUMBNAIL, interpolation=cv2.INTER_AREA)
        thumbnail = thumbnail - thumbnail.mean()
        last, self._last = self._last, thumbnail
        self._passed += 1
        if cut or last is None or self._seen is None or self._is_due(thumbnail, last, self._seen):
            self._seen = thumbnail
            self._passed = self._changed = 0
            return True
        return False

    def _is_due(self, thumbnail: np.ndarray, last: np.ndarray, seen: np.ndarray) -> bool:
        if self.setting != "auto":
            return self._passed >= self.setting
        change, step = (float(np.abs(thumbnail - other).mean()) for other in (seen, last))
        self._changed += change > NOTHING and step > REPEATED
        return change > MUCH or self._changed >= AUTO_STRIDE or self._passed >= LONGEST_STILL


def is_same(gray: np.ndarray, other: np.ndarray) -> bool:
    """Whether the network would say the same of both, (2h, 2w) float32 0..1 as it is shown them."""
    apart = cv2.absdiff(gray, other)
    height, width = (max(1, side // _SQUARE) for side in apart.shape)
    squares = cv2.resize(apart, (width, height), interpolation=cv2.INTER_AREA)
    return 255 * float(squares.max()) <= SAME
