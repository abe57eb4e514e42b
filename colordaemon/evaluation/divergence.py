"""Color distribution consistency: how much the histograms of frames change over a few frames.

The CDC of Liu et al. 2021, "Temporally Consistent Video Colorization", as their eval_results.py
computes it: for t in 1, 2 and 4 the Jensen-Shannon divergence of the 256-bin histograms of frames i
and i + t, natural logarithm, averaged over i; the mean of the three; the mean of R, G and B. It
looks at RGB, so what moves in the picture dominates it, and gray scores less than the truth does:
the target is the truth's own value. Pairs across a cut are left out here, and histograms are those
of frames as small as ab, so compare it within one table only.
"""

from __future__ import annotations

from collections import deque

import numpy as np

STEPS = (1, 2, 4)  # frames
BINS = 256


class DivergenceSum:
    """Fed the frames of a film one after the other."""

    def __init__(self) -> None:
        self._recent: deque[np.ndarray] = deque(maxlen=max(STEPS))
        self._sums = dict.fromkeys(STEPS, 0.0)
        self._pairs = dict.fromkeys(STEPS, 0)

    def add(self, rgb: np.ndarray, cut: bool) -> None:
        """rgb: (3, h, w) uint8. cut: it begins a shot, so none before it is compared with it."""
        if cut:
            self._recent.clear()
        shares = histograms(rgb)
        for step in STEPS:
            if len(self._recent) >= step:
                self._sums[step] += float(divergence(self._recent[-step], shares).mean())
                self._pairs[step] += 1
        self._recent.append(shares)

    def value(self) -> float | None:
        """None before there are two frames; steps that no shot is long enough for do not count."""
        means = [self._sums[step] / self._pairs[step] for step in STEPS if self._pairs[step]]
        return sum(means) / len(means) if means else None


def histograms(rgb: np.ndarray) -> np.ndarray:
    """(3, h, w) uint8 to (3, 256), the share of pixels with each code."""
    counts = [np.bincount(channel.ravel(), minlength=BINS) for channel in rgb]
    shares: np.ndarray = np.stack(counts) / rgb[0].size
    return shares


def divergence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of shares (n, 256) twice, (n,); 0 for equal ones, at most ln 2."""
    middle = (one + other) / 2
    mean: np.ndarray = (_relative(one, middle) + _relative(other, middle)) / 2
    return mean


def _relative(shares: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence; where a share is 0 it adds nothing."""
    there = shares > 0
    ratio = np.divide(shares, of, out=np.ones_like(shares), where=there)
    total: np.ndarray = (shares * np.log(ratio)).sum(axis=-1)
    return total
