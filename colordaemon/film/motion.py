"""Finds where each pixel of one small picture is in another, and how far that can be trusted.

Dense inverse search (Kroeger et al. 2016, OpenCV's DIS) on luma at about the size of ab. Trust is
high where the luma of both agrees. Differences of the whole picture do not count: brightness and
contrast are matched first (old film flickers), and noise is tolerated (or grain would shorten the
memory everywhere). Trust is low where the flow back leads to another place (what was covered and is
uncovered now has no place to come from).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

TOLERANCE = 10.0  # codes of 0..255, about 4 L*: luma further off than this is something else
NOISE = 3.0  # times the median difference, about two standard deviations of noise
MOST_NOISE = 6.0  # codes; with more, the pictures differ by more than noise
PATCH = 3  # pixels a side over which luma is compared
MATCH = 1.5  # brightness and contrast are matched up to this factor
SMALLEST = 16  # pixels a side, which DIS needs; smaller pictures have no motion worth following
# A pixel and its way back may differ by this much: Sundaram, Brox & Keutzer 2010, equation 5.
RELATIVE_SLIP, ABSOLUTE_SLIP = 0.01, 0.5


@dataclass(frozen=True)
class Motion:
    """For each pixel (h, w): `places` (h, w, 2), float32 x and y in the other picture, and `trust`
    (h, w), float32 0..1."""

    places: np.ndarray
    trust: np.ndarray

    def fetch(self, values: np.ndarray) -> np.ndarray:
        """Values (h, w) or (h, w, n) of the other picture at these places; beyond its edge, those
        at it."""
        return fetched(values, self.places)


class MotionSearch:
    """Finds the motion between pictures of one size; not to be shared by threads."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._grid = np.zeros((0, 0, 2), np.float32)

    def between(self, one: np.ndarray, other: np.ndarray) -> tuple[Motion, Motion]:
        """From `one` to `other`, and back. Both (h, w) uint8 luma."""
        there, back = self.flows(one, other)
        return self._motion(one, other, there, back), self._motion(other, one, back, there)

    def toward(self, here: np.ndarray, other: np.ndarray) -> Motion:
        """From `here` to `other`, with trust by luma alone, which is half the work."""
        return self._motion(here, other, self._flow(here, other), None)

    def flows(self, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From `one` to `other`, and back, (h, w, 2) float32 x and y, without any trust."""
        return self._flow(one, other), self._flow(other, one)

    def _flow(self, here: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(h, w, 2) float32, x and y, from each pixel of `here` to its place in `other`."""
        flow = np.zeros((*here.shape, 2), np.float32)
        if min(here.shape) < SMALLEST:
            return flow
        return np.asarray(self._dis.calc(here, other, flow))

    def _motion(
        self, here: np.ndarray, other: np.ndarray, flow: np.ndarray, back: np.ndarray | None
    ) -> Motion:
        if self._grid.shape != flow.shape:
            axes = (np.arange(count, dtype=np.float32) for count in here.shape[::-1])
            self._grid = np.stack(np.meshgrid(*axes), axis=-1)
        motion = Motion(self._grid + flow, np.ones(here.shape, np.float32))
        error = difference(motion.fetch(other), here)
        noise = min(MOST_NOISE, NOISE * float(np.median(error[::2, ::2])))
        doubt = np.square(np.maximum(error - noise, 0)) / TOLERANCE**2
        if back is not None:
            way_back = motion.fetch(back)
            slip = _squared(flow + way_back)
            allowed = RELATIVE_SLIP * (_squared(flow) + _squared(way_back)) + ABSOLUTE_SLIP
            doubt += np.maximum(slip / allowed - 1, 0)
        return Motion(motion.places, np.exp(-0.5 * doubt))


def fetched(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values (h, w) or (h, w, n) at `places` (h, w, 2), x and y; beyond the edge, those at it."""
    x, y = cv2.split(places)
    moved: np.ndarray = cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The difference of luma (h, w) over small patches, (h, w) float32 in codes, after brightness
    and contrast were matched within MATCH."""
    apart = cv2.absdiff(_matched(one, other), other.astype(np.float32))
    smooth: np.ndarray = cv2.blur(apart, (PATCH, PATCH))
    return smooth


def _matched(luma: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Luma (h, w) as float32 with the brightness and contrast of `like`, within MATCH."""
    (mean, spread), (wanted, other) = cv2.meanStdDev(luma), cv2.meanStdDev(like)
    gain = float(np.clip((other + 1) / (spread + 1), 1 / MATCH, MATCH)[0, 0])
    shift = float(np.clip(wanted / np.maximum(mean, 1), 1 / MATCH, MATCH)[0, 0] * mean[0, 0])
    return (luma.astype(np.float32) - float(mean[0, 0])) * np.float32(gain) + np.float32(shift)


def _squared(vectors: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.square(vectors).sum(axis=-1)
    return lengths
