"""Reduces flicker: averages the ab of a shot along its motion, forward and backward.

The network's output for a single frame is noisy. Each pixel therefore gets its running mean along
the optical flow, from both sides, over up to MEMORY samples each way. The weight of a new sample is
1/n at the start and not a fixed share, or one bad first frame would stay for a second. The mean
starts again at a cut and where the motion cannot be trusted, so that colors do not bleed. It also
starts again where the picture changes little by little, as in a dissolve: luma is averaged along
with ab, and colors that belong to another luma than the current one are dropped.

Samples are weighted by the confidence of the network. At least LOOK_AHEAD samples after a frame are
known, so memory is bounded at any length, and the result is almost that of the whole shot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from colordaemon.config import Smoothing
from colordaemon.film.motion import Motion, MotionSearch, difference

MEMORY = 20.0  # samples
# Samples that are known after every one that is finished. With 50, ΔE to the result of the whole
# shot was up to 0.66 at the 99th percentile of a real clip.
LOOK_AHEAD = 60
TOGETHER = 40  # samples that are finished at once, since each time all are averaged backward
# Codes of 0..255 by which luma may differ from the mean that is kept with ab, because of grain and
# inexact motion; and by how many more it has to differ to be something else.
STILL, DRIFT = 4.0, 20.0
EMA_SHARE = 0.1  # of the new sample, in the plain moving average
LEAST_SURE = 0.15  # weight of a sample that the network has no confidence in
DARK = 38.0  # codes of 0..255, L* 15: below, networks paint blue and red at random


@dataclass(frozen=True)
class Sample:
    """The network's output for a frame.

    luma: (h, w) uint8, the frame itself. ab: (2, h, w) float32 Lab. sure: (h, w) float32 0..1.
    """

    luma: np.ndarray
    ab: np.ndarray
    sure: np.ndarray


class Smoother:
    """Fed the samples of a film one after the other; returns their ab, later and in order."""

    def __init__(self, mode: Smoothing) -> None:
        self.mode = mode
        self._search = MotionSearch()
        self._shot: list[Any] = []  # steps, of the kind that `_append` makes
        self._warm = 0  # steps at the beginning of `_shot` whose ab is not returned
        self._followed = 0  # and at its end

    def remember(self, sample: Sample) -> None:
        """Add a sample before all that will be fed; its own ab is not returned."""
        self._append(sample)
        del self._shot[:-1]
        self._warm = 1

    def feed(self, sample: Sample, cut: bool) -> list[np.ndarray]:
        """Add a sample; returns the ab (2, h, w) that are finished now.

        cut: it begins a shot, so all before it is dropped.
        """
        finished = self.finish() if cut else []
        if cut:
            self._shot, self._warm = [], 0
        self._append(sample)
        waiting = len(self._shot) - self._warm
        if self.mode != "motion":
            finished += self._take(1)
        elif waiting >= TOGETHER + LOOK_AHEAD:
            finished += self._take(TOGETHER)
        return finished

    def follow(self, sample: Sample) -> None:
        """Add a sample after all that were fed; its own ab is not returned."""
        self._append(sample)
        self._followed += 1

    def finish(self, beyond: bool = False) -> list[np.ndarray]:
        """All ab that were not returned yet, as if no more samples came.

        beyond: also that of the first sample added by `follow`.
        """
        return self._take(len(self._shot) - self._warm - self._followed + beyond)

    def _append(self, sample: Sample) -> None:
        previous = self._shot[-1] if self._shot else None
        self._shot.append(_Step.after(previous, sample, self.mode, self._search))

    def _take(self, count: int) -> list[np.ndarray]:
        """Finish the next `count` samples."""
        if not count:
            return []
        steps = self._shot
        means = self._walk_back() if self.mode == "motion" else [step.past for step in steps]
        taken = means[self._warm : self._warm + count]
        # The last of them stays, since the mean of what follows begins with it.
        del self._shot[: self._warm + count - 1]
        self._warm = 1
        return self._ab(taken)

    def _ab(self, means: list[Any]) -> list[np.ndarray]:
        return [np.ascontiguousarray(mean[..., :2].transpose(2, 0, 1)) for mean in means]

    def _walk_back(self) -> list[Any]:
        """The mean of past and future at each step, as far as the future is known."""
        finished: list[np.ndarray] = []
        future: np.ndarray | None = None
        weight: np.ndarray | None = None
        way: Motion | None = None  # from a step to the one after it
        for step in reversed(self._shot):
            future, weight = _average(step, future, weight, way)
            way = step.back
            total = step.weight + weight - step.sure  # its own sample is in both
            mean = step.past * step.weight[..., None] + future * weight[..., None]
            finished.append((mean - step.own * step.sure[..., None]) / total[..., None])
        return finished[::-1]


@dataclass(frozen=True)
class _Step:
    """A sample with the mean of all before it, and the motion from the one before.

    own, past: (h, w, 3), ab and luma. sure, weight: (h, w), of the sample and of the mean. back:
    from the sample before to this one.
    """

    luma: np.ndarray
    own: np.ndarray
    sure: np.ndarray
    past: np.ndarray
    weight: np.ndarray
    back: Motion | None

    @classmethod
    def after(
        cls, previous: _Step | None, sample: Sample, mode: Smoothing, search: MotionSearch
    ) -> _Step:
        calm = _calm(sample) if mode == "motion" else np.float32(1)
        codes, sure = sample.luma, LEAST_SURE + (1 - LEAST_SURE) * sample.sure
        own = np.dstack((*(sample.ab * calm), codes.astype(np.float32)))
        step = cls(codes, own, sure, own, sure, None)
        if mode == "ema" and previous is not None:
            past = EMA_SHARE * own + (1 - EMA_SHARE) * previous.past
            return cls(codes, own, sure, past, sure, None)
        if mode != "motion" or previous is None:
            return step
        there, back = search.between(codes, previous.luma)
        past, weight = _average(step, previous.past, previous.weight, there)
        return cls(codes, own, sure, past, weight, back)


def _calm(sample: Sample) -> np.ndarray:
    """How much of its color a sample keeps, (h, w): all, except where it is dark and unsure."""
    darkness = np.clip(1 - sample.luma / np.float32(DARK), 0, 1)
    calm: np.ndarray = 1 - darkness * (1 - sample.sure)
    return calm


def _average(
    step: _Step, mean: np.ndarray | None, weight: np.ndarray | None, motion: Motion | None
) -> tuple[np.ndarray, np.ndarray]:
    """Add a step's sample to the mean of its neighbor, which is moved along `motion`."""
    if mean is None or weight is None or motion is None:
        return step.own, step.sure
    moved = motion.fetch(np.dstack((mean, weight)))
    drift = np.maximum(difference(moved[..., 2], step.luma) - STILL, 0)
    trust = motion.trust * np.exp(drift * drift * (-0.5 / DRIFT**2))
    kept = np.minimum(moved[..., 3] * trust, MEMORY - 1)
    total = kept + step.sure
    merged = moved[..., :3] * kept[..., None] + step.own * step.sure[..., None]
    return merged / total[..., None], total
