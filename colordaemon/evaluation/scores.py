"""Scores one way of coloring against the truth, picture by picture, as a row of a table.

Pictures are compared at a bounded size, so that a shelf of large photos takes no longer than it has
to: the truth is area-shrunk to a short side of at most 256 px, and the ab of a network, which never
has more detail than that, is enlarged bicubically as it is for results.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from colordaemon.color import lab_to_rgb, rgb_to_lab
from colordaemon.errors import DataError
from colordaemon.evaluation.metrics import (
    accuracy,
    blots,
    chroma,
    colorfulness,
    delta_e_2000,
    psnr,
    squared_error,
)
from colordaemon.pictures.dataset import Picture, decode_picture

GRID_SIDE = 256  # short side, pixels
VIEW_SIDE = 512  # short side of what a network is given: more than it looks at in best quality
LONGEST_ASPECT = 4  # a panorama longer than this is compared smaller
EVEN_CHROMA = 0.7  # of the truth's mean chroma, which ΔE@70 gives to every output
AUC_FARTHEST = 150  # ab units, the last threshold
AUC_BIN_SIDE = 10.0  # ab units; bins are centered on multiples of it
_AUC_REACH = 11  # bins on either side of gray: real colors stay within ±110
_AUC_LINE = 2 * _AUC_REACH + 1


@dataclass(frozen=True)
class Truth:
    """A picture as it is compared: rgb (1, 3, h, w) sRGB in 0..1, and the same as lab."""

    rgb: Tensor
    lab: Tensor

    @property
    def ab(self) -> Tensor:
        return self.lab[:, 1:]


@dataclass(frozen=True)
class Row:
    """Scores of one way of coloring: means over pictures, each weighing the same.

    mse: mean of the squared errors of a and of b, ab units². accuracy: share of pixels within 10
    ab units. auc, auc_rebalanced: percent, see `AucSum`. psnr: dB, of the output clipped to sRGB.
    delta_e: CIEDE2000 at the truth's lightness. delta_e_70: the same after chroma was multiplied by
    chroma_factor, one for the whole evaluation, which gives the output 70 % of the truth's mean
    chroma; None where there is no chroma to multiply. chroma: mean chroma. chroma_share: its ratio
    to the truth's, None if that is gray. colorfulness, blots: see `metrics`; the first also as its
    ratio to the truth's.
    """

    name: str
    mse: float
    accuracy: float
    auc: float
    auc_rebalanced: float
    psnr: float
    delta_e: float
    delta_e_70: float | None
    chroma_factor: float | None
    chroma: float
    chroma_share: float | None
    colorfulness: float
    colorfulness_share: float | None
    blots: float


class RowSum:
    """Collects a row picture by picture."""

    def __init__(self, name: str, factor: float | None) -> None:
        self.name, self.factor = name, factor
        self.count = 0
        self._sums = torch.zeros(8, dtype=torch.float64)
        self._auc = AucSum()

    def add(self, ab: Tensor, truth: Truth) -> float:
        """Add a picture, ab (1, 2, h, w) Lab units; returns its mean CIEDE2000."""
        lab = torch.cat((truth.lab[:, :1], ab), dim=1)
        rgb = lab_to_rgb(lab).clamp(0, 1)
        scaled = torch.cat((truth.lab[:, :1], ab * (self.factor or 0.0)), dim=1)
        measured = torch.cat(
            [
                squared_error(ab, truth.ab),
                accuracy(ab, truth.ab),
                psnr(rgb, truth.rgb),
                delta_e_2000(lab, truth.lab).mean(dim=(1, 2)),
                delta_e_2000(scaled, truth.lab).mean(dim=(1, 2)),
                chroma(ab),
                colorfulness(rgb),
                blots(ab, truth.ab),
            ]
        ).cpu()  # waits for the GPU
        self._sums += measured
        self._auc.add(ab, truth.ab)
        self.count += 1
        return measured[3].item()

    def merge(self, other: RowSum) -> None:
        """Add the pictures of another sum of the same way."""
        self._sums += other._sums
        self._auc.merge(other._auc)
        self.count += other.count

    def row(self, truth: RowSum) -> Row:
        """The scores, beside the truth's over the same pictures."""
        mse, right, noise, delta_e, delta_e_70, strength, fullness, blotted = (
            self._sums / self.count
        ).tolist()
        return Row(
            name=self.name,
            mse=mse,
            accuracy=right,
            auc=self._auc.raw(),
            auc_rebalanced=self._auc.rebalanced(),
            psnr=noise,
            delta_e=delta_e,
            delta_e_70=None if self.factor is None else delta_e_70,
            chroma_factor=self.factor,
            chroma=strength,
            chroma_share=strength / truth.chroma if truth.chroma else None,
            colorfulness=fullness,
            colorfulness_share=fullness / truth.colorfulness if truth.colorfulness else None,
            blots=blotted,
        )

    @property
    def chroma(self) -> float:
        """Mean chroma so far."""
        return float(self._sums[5] / self.count)

    @property
    def colorfulness(self) -> float:
        """Mean colorfulness so far."""
        return float(self._sums[6] / self.count)


def read_pixels(picture: Picture) -> np.ndarray:
    """A readable picture, no larger than a network needs it: (H, W, 3) uint8 sRGB."""
    pixels = decode_picture(picture.read(), VIEW_SIDE)
    if pixels is None:
        raise DataError(f"{picture.path}: {picture.name} could be read before, now it cannot")
    return pixels


def truth_of(pixels: np.ndarray, device: torch.device) -> Truth:
    """(H, W, 3) uint8 sRGB at the size and on the device at which it is compared."""
    rgb = shrunk(pixels, GRID_SIDE).to(device)
    return Truth(rgb, rgb_to_lab(rgb))


def shrunk(pixels: np.ndarray, side: int) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, h, w) in 0..1, its short side at most `side`; never enlarged."""
    height, width = pixels.shape[:2]
    scale = min(side / min(height, width), LONGEST_ASPECT * side / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def chroma_factor(mean_chroma: float, true_chroma: float) -> float | None:
    """What brings an output to 70 % of the truth's mean chroma; None if it is gray."""
    # Gray from a color conversion in float32 has a chroma of up to 1e-4.
    return EVEN_CHROMA * true_chroma / mean_chroma if mean_chroma > 1e-3 else None


class AucSum:
    """The area under the curve of ab errors, as Zhang, Isola & Efros 2016 compare colorizers.

    The curve is the share of pixels whose ab lies within t of the truth, at t = 0, 1, … 150; its
    area by the trapezoid rule, over that of a perfect curve, is the score in percent. Most pixels
    of any photo are nearly gray, so the rebalanced score weighs each pixel by the inverse
    probability of its true color: their equation 4 with λ = 0, on a grid of 10 ab units. Theirs
    takes the smoothed probabilities of ImageNet; here they are counted on the evaluated truth
    itself and not smoothed, so every color that occurs counts the same, however rare, and a small
    set gives a noisy score.

    Collects both scores picture by picture; each weighs the same, whatever its size.

    Remembers two numbers per color bin: the share of pixels in it and the area that they earned.
    """

    def __init__(self) -> None:
        self._shares = torch.zeros(_AUC_LINE**2, dtype=torch.float64)
        self._areas = torch.zeros(_AUC_LINE**2, dtype=torch.float64)

    def add(self, ab: Tensor, truth: Tensor) -> None:
        """ab, truth: (N, 2, h, w) Lab units."""
        errors = torch.linalg.vector_norm(ab - truth, dim=1)
        column, row = (
            (truth / AUC_BIN_SIDE).round().clamp(-_AUC_REACH, _AUC_REACH).long().unbind(dim=1)
        )
        bins = ((column + _AUC_REACH) * _AUC_LINE + row + _AUC_REACH).flatten()
        earned = area_of(errors).double().flatten() / errors[0].numel()
        even = torch.full_like(earned, 1 / errors[0].numel())
        # On a GPU both lines wait for it.
        self._shares += torch.bincount(bins, even, minlength=_AUC_LINE**2).cpu()
        self._areas += torch.bincount(bins, earned, minlength=_AUC_LINE**2).cpu()

    def merge(self, other: AucSum) -> None:
        """Add what another sum has collected."""
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
    area = (AUC_FARTHEST - first + 0.5) / AUC_FARTHEST
    return torch.where(first == 0, 1.0, area).clamp(min=0) * (first <= AUC_FARTHEST)
