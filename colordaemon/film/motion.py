"""Where each pixel of one small picture lies in another, and how far that can be trusted.

Dense inverse search (Kroeger et al. 2016, OpenCV's DIS) on luma at about the size of ab. Trust is
high where the luma found there agrees, after brightness and contrast of the whole pictures were
matched (old film flickers), and where the way back leads to the same place (what was covered and
is uncovered now has no place to come from).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

TOLERANCE = 7.0  # codes of 0..255, about 3 L*: luma further off than this is something else
MATCH = 1.5  # brightness and contrast are matched up to this factor
# A pixel and its way back may differ by this much: Sundaram, Brox & Keutzer 2010, equation 5.
RELATIVE_SLIP, ABSOLUTE_SLIP = 0.01, 0.5


@dataclass(frozen=True)
class Motion:
    """For each pixel (h, w): `places` (h, w, 2), float32 x and y in the other picture, and `trust`
    (h, w), float32 0..1."""

    places: np.ndarray
    trust: np.ndarray

    def fetch(self, values: np.ndarray) -> np.ndarray:
        """What the other picture's (h, w) or (h, w, n) values are here; its edge goes on."""
        return _fetched(values, self.places)


class MotionSearch:
    """Finds the motion between pictures of one size; not to be shared by threads."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._grid = np.zeros((0, 0, 2), np.float32)

    def between(self, one: np.ndarray, other: np.ndarray) -> tuple[Motion, Motion]:
        """From `one` to `other`, and back. Both (h, w) uint8 luma."""
        if self._grid.shape[:2] != one.shape:
            self._grid = np.stack(
                np.meshgrid(*(np.arange(n, dtype=np.float32) for n in one.shape[::-1])), axis=-1
            )
        # DIS wants a few pixels; what is smaller has no motion worth following.
        if min(one.shape) < 16:
            there = back = np.zeros_like(self._grid)
        else:
            empty = np.zeros_like(
                self._grid
            )  # written into; None would do, but is not in the types
            there = np.asarray(self._dis.calc(one, other, empty))
            back = np.asarray(self._dis.calc(other, one, empty.copy()))
        return self._motion(one, other, there, back), self._motion(other, one, back, there)

    def _motion(
        self, here: np.ndarray, other: np.ndarray, flow: np.ndarray, back: np.ndarray
    ) -> Motion:
        places = self._grid + flow
        found = _fetched(np.dstack((_matched(other, here), back)), places)
        error = here - found[..., 0]
        trust = np.exp(error * error * (-0.5 / TOLERANCE**2))
        slip = _squared(flow + found[..., 1:])
        allowed = RELATIVE_SLIP * (_squared(flow) + _squared(found[..., 1:])) + ABSOLUTE_SLIP
        return Motion(places, trust * (slip <= allowed))


def _fetched(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    x, y = cv2.split(places)
    moved: np.ndarray = cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved


def _matched(luma: np.ndarray, like: np.ndarray) -> np.ndarray:
    """(h, w) float32 luma with the brightness and contrast of `like`, as far as flicker goes."""
    (mean, spread), (wanted, other) = cv2.meanStdDev(luma), cv2.meanStdDev(like)
    gain = float(np.clip((other + 1) / (spread + 1), 1 / MATCH, MATCH)[0, 0])
    shift = float(np.clip(wanted / np.maximum(mean, 1), 1 / MATCH, MATCH)[0, 0] * mean[0, 0])
    return (luma.astype(np.float32) - float(mean[0, 0])) * np.float32(gain) + np.float32(shift)


def _squared(vectors: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.square(vectors).sum(axis=-1)
    return lengths
