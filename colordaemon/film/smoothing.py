"""Colors that do not boil: ab of a shot, averaged along its motion, forward and backward.

A single frame's guess is noise around what the network would say on average. Each pixel therefore
takes the running mean of itself along the optical flow, from both sides, of up to MEMORY samples
each way. α = 1/n at the start instead of a fixed share, or one unlucky first frame would stay for
a second. Motion that cannot be trusted, and a cut, end the memory: nothing bleeds. So does what
changes little by little, as a dissolve does: luma is averaged along with ab, and colors that belong
to another luma than that of the present are forgotten.

Guesses are weighted by how sure the network was. What follows is known for LOOK_AHEAD samples at
least, so memory is bounded at any length and the result is all but that of the whole shot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from colordaemon.config import Smoothing
from colordaemon.film.motion import Motion, MotionSearch, difference

MEMORY = 20.0  # samples
# Samples that are known behind every one that is finished: with 50, ΔE to the whole shot was up to
# 0.66 at the 99th percentile of a real clip.
LOOK_AHEAD = 60
TOGETHER = 40  # samples that are finished at once, since the way back is walked each time
# Codes of 0..255 that luma may be off the mean that is remembered with ab, for grain and inexact
# motion; and how many more make it something else.
STILL, DRIFT = 4.0, 20.0
EMA_SHARE = 0.1  # of the new sample, in the plain moving average
LEAST_SURE = 0.15  # even a guess that the network has no trust in counts this much
DARK = 38.0  # codes of 0..255, L* 15: below, networks paint blue and red at random


@dataclass(frozen=True)
class Sample:
    """What the network says of a frame.

    luma: (h, w) uint8, the frame itself. ab: (2, h, w) float32 Lab. sure: (h, w) float32 0..1.
    """

    luma: np.ndarray
    ab: np.ndarray
    sure: np.ndarray


class Smoother:
    """Fed the samples of a film one after the other; gives back their ab, later and in order."""

    def __init__(self, mode: Smoothing) -> None:
        self.mode = mode
        self._search = MotionSearch()
        self._shot: list[_Step] = []
        self._warm = 0  # steps at the beginning of `_shot` that nobody waits for
        self._followed = 0  # and at its end

    def remember(self, sample: Sample) -> None:
        """Let a sample before all that will be fed be known; its own ab is not asked for."""
        self._append(sample)
        del self._shot[:-1]
        self._warm = 1

    def feed(self, sample: Sample, cut: bool) -> list[np.ndarray]:
        """Take in a sample; returns the ab (2, h, w) that are finished now.

        cut: it begins a shot, so what went before is forgotten.
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
        """Let a sample after all that were fed be known; its own ab is not asked for."""
        self._append(sample)
        self._followed += 1

    def finish(self, beyond: bool = False) -> list[np.ndarray]:
        """All ab that are still waited for, as if nothing more were to come.

        beyond: with that of the first sample which only followed.
        """
        return self._take(len(self._shot) - self._warm - self._followed + beyond)

    def _append(self, sample: Sample) -> None:
        previous = self._shot[-1] if self._shot else None
        self._shot.append(_Step.after(previous, sample, self.mode, self._search))

    def _take(self, count: int) -> list[np.ndarray]:
        """Finish the first `count` samples that are waited for."""
        if not count:
            return []
        steps = self._shot
        means = self._walk_back() if self.mode == "motion" else [step.past for step in steps]
        taken = means[self._warm : self._warm + count]
        # The last of them stays: what follows remembers through it.
        del self._shot[: self._warm + count - 1]
        self._warm = 1
        return [np.ascontiguousarray(mean[..., :2].transpose(2, 0, 1)) for mean in taken]

    def _walk_back(self) -> list[np.ndarray]:
        """The mean of past and future at each step, the future as far as it is known."""
        finished: list[np.ndarray] = []
        future: np.ndarray | None = None
        weight: np.ndarray | None = None
        way: Motion | None = None  # from a step to the one after it
        for step in reversed(self._shot):
            future, weight = _average(step, future, weight, way)
            way = step.back
            total = step.weight + weight - step.sure  # its own guess is in both
            mean = step.past * step.weight[..., None] + future * weight[..., None]
            finished.append((mean - step.own * step.sure[..., None]) / total[..., None])
        return finished[::-1]


@dataclass(frozen=True)
class _Step:
    """A sample with the mean of all before it, and the way to it from the one before.

    own, past: (h, w, 3), ab and luma. sure, weight: (h, w), of the guess and of the mean. back:
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
    """How much of its color a sample keeps, (h, w): all, but where it is dark and unsure."""
    darkness = np.clip(1 - sample.luma / np.float32(DARK), 0, 1)
    calm: np.ndarray = 1 - darkness * (1 - sample.sure)
    return calm


def _average(
    step: _Step, mean: np.ndarray | None, weight: np.ndarray | None, motion: Motion | None
) -> tuple[np.ndarray, np.ndarray]:
    """Take a step's guess into the mean of its neighbor, whose pixels come along `motion`."""
    if mean is None or weight is None or motion is None:
        return step.own, step.sure
    moved = motion.fetch(np.dstack((mean, weight)))
    drift = np.maximum(difference(moved[..., 2], step.luma) - STILL, 0)
    trust = motion.trust * np.exp(drift * drift * (-0.5 / DRIFT**2))
    kept = np.minimum(moved[..., 3] * trust, MEMORY - 1)
    total = kept + step.sure
    merged = moved[..., :3] * kept[..., None] + step.own * step.sure[..., None]
    return merged / total[..., None], total
