"""The colors that classification tells apart, and how likely and how rare they are.

Zhang et al. 2016, sections 2.1 and 2.2: ab is cut into squares of 10 units; of these only the ones
that real pictures occupy are kept. A pixel's truth is spread over its five nearest bins, and pixels
of rare colors count for more, or everything would come out brownish gray.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BIN_SIDE = 10.0  # ab units
OCCUPIED = 1e-5  # a bin with less than this share of all pixels is left out
NEIGHBORS = 5
SPREAD = 5.0  # ab units, sigma of the soft encoding and of the smoothed prior
UNIFORM_SHARE = 0.5  # λ: how much of a uniform distribution is mixed into the prior
WEIGHTS = (0.1, 5.0)  # the least and the most that a pixel may count
_REACH = 110  # the table covers whole ab units in ±110


@dataclass(frozen=True)
class SoftBins:
    """Lookup tables from an ab color, rounded to whole units, to what the loss needs.

    nearest: (221 * 221, 5) indices of the nearest bins; soft: their shares, which add up to 1.
    weight: (221 * 221,) how much a pixel of this color counts.
    """

    nearest: Tensor
    soft: Tensor
    weight: Tensor

    def encode(self, ab: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ab (N, 2, h, w) in Lab units to nearest and soft (N, h, w, 5) and weight (N, h, w)."""
        a, b = (ab.round().long().clamp(-_REACH, _REACH) + _REACH).unbind(dim=1)
        color = a * (2 * _REACH + 1) + b
        return self.nearest[color], self.soft[color], self.weight[color]


def occupied_bins(ab: Tensor) -> tuple[tuple[float, float], ...]:
    """The centers of the bins that colors (2, M) occupy, sorted."""
    squares, counts = torch.unique((ab / BIN_SIDE).round().long(), dim=1, return_counts=True)
    kept = squares[:, counts >= OCCUPIED * ab.shape[1]]
    return tuple((float(a), float(b)) for a, b in (kept * BIN_SIDE).T.tolist())


def soft_bins(centers: Tensor, ab: Tensor) -> SoftBins:
    """Tables for bins with `centers` (Q, 2), rebalanced for pictures whose colors are `ab` (2, M).

    w ∝ 1 / ((1 - λ) p + λ / Q), scaled so that its mean over the pictures is 1, then bounded.
    """
    side = torch.arange(-_REACH, _REACH + 1, dtype=torch.float32, device=centers.device)
    colors = torch.cartesian_prod(side, side)
    distance, nearest = torch.cdist(colors, centers).topk(
        min(NEIGHBORS, len(centers)), largest=False
    )
    soft = torch.softmax(-distance.square() / (2 * SPREAD**2), dim=-1)
    weight = _rarity(centers, ab.to(centers.device))[nearest[:, 0]]
    return SoftBins(nearest, soft, weight)


def _rarity(centers: Tensor, ab: Tensor) -> Tensor:
    """(Q,) weight of a pixel in each bin."""
    parts = torch.split(ab.T, 65536)  # or the distances of millions of pixels fill the memory
    nearest = torch.cat([torch.cdist(part, centers).argmin(dim=1) for part in parts])
    prior = torch.bincount(nearest, minlength=len(centers)) / len(nearest)
    blur = torch.exp(-torch.cdist(centers, centers).square() / (2 * SPREAD**2))
    prior = (blur / blur.sum(dim=0)) @ prior
    weight = 1 / ((1 - UNIFORM_SHARE) * prior + UNIFORM_SHARE / len(centers))
    return (weight / (weight * prior).sum()).clamp(*WEIGHTS)
