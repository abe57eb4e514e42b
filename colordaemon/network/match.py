"""Finds the colors of a picture's places in other pictures that have color.

Each place of the picture takes the mean color of all places of the references, weighted by how
alike they are. Where nothing is alike, that has no weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from colordaemon.color import lightness_to_gray, rgb_to_lab
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.places import STEP, places_size

TOGETHER = 2  # references that a frame takes colors from; each takes a fifth of the network's time
_TEMPERATURE = 0.03  # of the cosines
_MOST_PLACES = 2048  # of a reference: all 4128 of a film in 16:9 gain 0.1 ΔE, 1024 lose 0.1
_ROWS = 1024  # places whose cosines are in memory at once, 8 MB with one reference
_SHARE_OF_MEAN = 0.6  # of the weight; the rest is the place's own
_WEIGHT_FROM, _WEIGHT_RAMP = 0.55, 0.20
_COARSE = 2  # places from one to the next when references are chosen
_MOST_CHOSEN_BY = 512  # places of a reference that it is chosen by


@dataclass(frozen=True)
class Matchable:
    """Places that others are compared with, in random order, and what is known of them.

    places: (M, D) of unit length. values: (M, C).
    """

    places: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        if not 0 < len(self.places) == len(self.values):
            raise ValueError(f"found {len(self.places)} places with {len(self.values)} values")


@dataclass(frozen=True)
class Reference:
    """A picture in color, as places with their Lab ab; see GuidePicture for start and end."""

    known: Matchable
    start: float | None = None
    end: float | None = None

    def serves(self, seconds: float | None) -> bool:
        """Whether it is for the frame at this time; None: of a photo."""
        if seconds is None:
            return True
        return (self.start or 0.0) <= seconds and (self.end is None or seconds < self.end)


def make_reference(
    colorizer: Colorizer,
    rgb: NDArray[np.uint8],
    opaque: NDArray[np.bool_] | None = None,
    *,
    start: float | None = None,
    end: float | None = None,
) -> Reference:
    """Look at a picture in color.

    rgb: (H, W, 3) sRGB, upright, at any size. opaque: (H, W), where it has color; None: everywhere.
    Raises ModelError for a model without axes, and ValueError if nothing is opaque.
    """
    if opaque is not None and not opaque.any():
        raise ValueError("found no opaque pixel, expected a picture in color")
    height, width = colorizer.network_size(*rgb.shape[:2])
    alpha = torch.ones(rgb.shape[:2]) if opaque is None else torch.from_numpy(opaque).float()
    color = torch.from_numpy(rgb).permute(2, 0, 1).float() / 255
    shown = functional.interpolate(
        torch.cat((color * alpha, alpha[None]))[None], (height, width), mode="area"
    )
    covered = shown[:, 3:]
    lab = rgb_to_lab(shown[:, :3] / covered.clamp(min=1e-6))
    gray = torch.where(covered > 0, lightness_to_gray(lab[:, :1]), 0.5)
    with torch.inference_mode():
        [look] = colorizer.looks(gray)
        size = places_size(height, width)
        places = colorizer.describe(look.features, *size)
    by_place = mean_by_place(torch.cat((lab[:, 1:] * covered, covered), dim=1))
    ab, share = by_place[:, :2], by_place[:, 2:]
    visible = (share[:, 0] > 0.5).nonzero()[:, 0]
    if not len(visible):
        visible = share[:, 0].argmax()[None]
    known = sampled(places, (ab / share.clamp(min=1e-6)).to(places.device), visible)
    return Reference(known, start, end)


def mean_by_place(maps: Tensor, step: int = STEP) -> Tensor:
    """The means (P, C) over each place of maps (1, C, h, w) that have `step` pixels a place; those
    at the edges cover what there is of them."""
    pooled = functional.avg_pool2d(maps, step, ceil_mode=True, count_include_pad=False)
    return pooled[0].flatten(1).T.contiguous()


def sampled(places: Tensor, values: Tensor, among: Tensor, kept: Tensor | None = None) -> Matchable:
    """Up to so many places as are worth comparing with, in random order, always the same.

    among: indices (n,) of those that may be taken. kept: of those that are taken in any case, last.
    """
    chance = torch.Generator().manual_seed(len(among))
    order = among.cpu()[torch.randperm(len(among), generator=chance)]
    if kept is not None:
        order = torch.cat((order[~torch.isin(order, kept.cpu())], kept.cpu()))
        order = order[max(0, len(order) - _MOST_PLACES) :]
    chosen = order[:_MOST_PLACES].to(places.device)
    return Matchable(places[chosen], values[chosen])


def match(places: Tensor, knowns: Sequence[Matchable]) -> tuple[Tensor, Tensor]:
    """What is known at the places (P, D) of a picture, by likeness.

    Returns the values (P, C), and the weight (P,) that they deserve, 0..1.
    """
    others = torch.cat([known.places for known in knowns]).T.contiguous()
    values = torch.cat([known.values for known in knowns])
    found, best = [], []
    for rows in torch.split(places, _ROWS):
        cosines = rows @ others
        best.append(cosines.amax(dim=1))
        found.append(torch.softmax(cosines.div_(_TEMPERATURE), dim=1) @ values)
    nearest = torch.cat(best)
    confidence = _SHARE_OF_MEAN * nearest.mean() + (1 - _SHARE_OF_MEAN) * nearest
    weight = ((confidence - _WEIGHT_FROM) / _WEIGHT_RAMP).clamp(0, 1)
    return torch.cat(found), weight


def closest(places: Tensor, columns: int, knowns: Sequence[Matchable]) -> list[Matchable]:
    """The few that a picture is most like, by every other place both ways. columns: of its grid."""
    if len(knowns) <= TOGETHER:
        return list(knowns)
    grid = places.reshape(-1, columns, places.shape[1])
    coarse = grid[::_COARSE, ::_COARSE].flatten(0, 1)
    likeness = likenesses(coarse, knowns)
    order = sorted(range(len(knowns)), key=lambda number: -likeness[number])
    return [knowns[number] for number in sorted(order[:TOGETHER])]


def likenesses(places: Tensor, knowns: Sequence[Matchable]) -> list[float]:
    """How much places (P, D) are like each of others: the mean of the best cosines, -1..1."""
    return [
        float((places @ known.places[:_MOST_CHOSEN_BY].T).amax(dim=1).mean()) for known in knowns
    ]
