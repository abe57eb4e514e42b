"""Colors frames that the network did not see, from the frames around them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from colordaemon.film.motion import MotionSearch

_DOUBT = 0.02  # trust in a neighbor whose luma does not agree; weights must not all be zero


@dataclass(frozen=True)
class _Waiting:
    number: int
    luma: np.ndarray
    sampled: bool


class ColorPropagator:
    """Fed all frames in order, and the final ab of those that the network saw; gives the ab of all.

    A frame in between takes each pixel's color from where the optical flow finds it in the frames
    before and after, by how near they are in time and how well the luma there agrees.
    """

    def __init__(self) -> None:
        self._search = MotionSearch()
        self._waiting: deque[_Waiting] = deque()
        self._before: tuple[_Waiting, np.ndarray] | None = None

    def feed(self, number: int, luma: np.ndarray, sampled: bool) -> None:
        """Take in a frame. number: rises with time. luma: (h, w) uint8 at the size of ab. sampled:
        whether its ab will arrive; if not, it is made here."""
        self._waiting.append(_Waiting(number, luma, sampled))

    def arrive(self, ab: np.ndarray, cut: bool) -> list[np.ndarray]:
        """The ab (2, h, w) of the next sampled frame; returns all that are known now.

        cut: that frame begins a shot, so those before it do not take its color.
        """
        between = []
        while not self._waiting[0].sampled:
            between.append(self._waiting.popleft())
        after = self._waiting.popleft(), np.ascontiguousarray(ab.transpose(1, 2, 0))
        made = [self._carry(frame, None if cut else after) for frame in between]
        self._before = after
        return [*made, ab]

    def finish(self, following: tuple[int, np.ndarray, np.ndarray] | None) -> list[np.ndarray]:
        """The ab of the frames after the last sampled one.

        following: number, luma and ab of a frame after all that were fed, if the shot has one.
        """
        after = None
        if following is not None:
            number, luma, ab = following
            after = _Waiting(number, luma, True), np.ascontiguousarray(ab.transpose(1, 2, 0))
        made = [self._carry(frame, after) for frame in self._waiting]
        self._waiting.clear()
        return made

    def _carry(self, frame: _Waiting, after: tuple[_Waiting, np.ndarray] | None) -> np.ndarray:
        """Mix the ab of both neighbors; at the ends of a shot there is only one."""
        sides = [side for side in (self._before, after) if side is not None]
        distances = [max(1, abs(frame.number - other.number)) for other, _ in sides]
        motions = [self._search.toward(frame.luma, other.luma) for other, _ in sides]
        weights = [
            (motion.trust + _DOUBT) / distance
            for motion, distance in zip(motions, distances, strict=True)
        ]
        carried = [
            motion.fetch(ab) * weight[..., None]
            for motion, (_, ab), weight in zip(motions, sides, weights, strict=True)
        ]
        ab = sum(carried[1:], carried[0]) / sum(weights[1:], weights[0])[..., None]
        return np.ascontiguousarray(ab.transpose(2, 0, 1))
