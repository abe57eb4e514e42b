"""The area under the curve of ab errors, as Zhang, Isola & Efros 2016 compare colorizers.

The curve is the share of pixels whose ab lies within t of the truth, at t = 0, 1, … 150; its area
by the trapezoid rule, over that of a perfect curve, is the score in percent. Most pixels of any
photo are nearly gray, so the rebalanced score weighs each pixel by the inverse probability of its
true color: their equation 4 with λ = 0, on a grid of 10 ab units. Theirs takes the smoothed
probabilities of ImageNet; here they are counted on the evaluated truth itself and not smoothed, so
every color that occurs counts the same, however rare, and a small set gives a noisy score.
"""

from __future__ import annotations

import torch
from torch import Tensor

FARTHEST = 150  # ab units, the last threshold
BIN_SIDE = 10.0  # ab units; bins are centered on multiples of it
_REACH = 11  # bins on either side of gray: real colors stay within ±110
_LINE = 2 * _REACH + 1


class AucSum:
    """Collects both scores picture by picture; each weighs the same, whatever its size.

    Remembers two numbers per color bin: the share of pixels in it and the area that they earned.
    """

    def __init__(self) -> None:
        self._shares = torch.zeros(_LINE**2, dtype=torch.float64)
        self._areas = torch.zeros(_LINE**2, dtype=torch.float64)

    def add(self, ab: Tensor, truth: Tensor) -> None:
        """ab, truth: (N, 2, h, w) Lab units."""
        errors = torch.linalg.vector_norm(ab - truth, dim=1)
        column, row = (truth / BIN_SIDE).round().clamp(-_REACH, _REACH).long().unbind(dim=1)
        bins = ((column + _REACH) * _LINE + row + _REACH).flatten()
        earned = area_of(errors).double().flatten() / errors[0].numel()
        even = torch.full_like(earned, 1 / errors[0].numel())
        # On a GPU both lines wait for it.
        self._shares += torch.bincount(bins, even, minlength=_LINE**2).cpu()
        self._areas += torch.bincount(bins, earned, minlength=_LINE**2).cpu()

    def merge(self, other: AucSum) -> None:
        """Take in what another sum has collected."""
        self._shares += other._shares
        self._areas += other._areas

    def raw(self) -> float:
        """Percent of the perfect area, every pixel of a picture counting the same."""
        return 100 * (self._areas.sum() / self._shares.sum()).item()

    def rebalanced(self) -> float:
        """Percent of the perfect area, every color that occurs counting the same."""
        there = self._shares > 0
        return 100 * (self._areas[there] / self._shares[there]).mean().item()


def area_of(errors: Tensor) -> Tensor:
    """What pixels of these errors, any shape, add to the area, 0..1: the sweep in closed form.

    A pixel joins the curve at the first whole threshold t >= error; the trapezoid just before it
    counts half, and before t = 0 there is none.
    """
    first = errors.ceil()
    area = (FARTHEST - first + 0.5) / FARTHEST
    return torch.where(first == 0, 1.0, area).clamp(min=0) * (first <= FARTHEST)
