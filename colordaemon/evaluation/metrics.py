"""Metrics of predicted color against the truth, for batches of pictures, and their mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ACCURACY_DISTANCE = 10.0  # ab units; a pixel closer than this to the truth counts as right
BLOT_CHROMA = 20.0  # ab units, about the mean of color photos
# The error of rounding to 8 bits, in codes²: no picture can be told to be nearer than that, and
# without it a single gray photo, left gray, would make a mean PSNR infinite.
ROUNDING_ERROR = 1 / 12


@dataclass(frozen=True)
class Scores:
    """Means over pictures, ab units.

    mse: mean of the squared errors of a and of b. accuracy: share of pixels whose ab lies within
    ACCURACY_DISTANCE of the truth. chroma: mean chroma sqrt(a² + b²). The gray_ figures are those
    of leaving the picture gray: pale output flatters every mean error, so they belong beside it.
    """

    pictures: int
    mse: float
    accuracy: float
    chroma: float
    true_chroma: float
    gray_mse: float
    gray_accuracy: float


class ScoreSum:
    """Collects scores batch by batch; sums stay on the device until `scores` is asked for."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: Tensor | None = None

    def add(self, ab: Tensor, truth: Tensor) -> None:
        """ab, truth: (N, 2, h, w) Lab units."""
        gray = torch.zeros_like(truth)
        per_picture = torch.stack(
            [
                squared_error(ab, truth),
                accuracy(ab, truth),
                chroma(ab),
                chroma(truth),
                squared_error(gray, truth),
                accuracy(gray, truth),
            ]
        )
        total = per_picture.double().sum(dim=1)
        self._sums = total if self._sums is None else self._sums + total
        self._count += len(ab)

    def state(self) -> dict[str, Any]:
        """What `resume` needs to go on adding later."""
        return {"count": self._count, "sums": self._sums}

    def resume(self, state: dict[str, Any]) -> None:
        self._count, self._sums = state["count"], state["sums"]

    def scores(self) -> Scores:
        if self._sums is None:
            raise ValueError("no picture has been scored")
        return Scores(self._count, *(self._sums / self._count).tolist())


def squared_error(ab: Tensor, truth: Tensor) -> Tensor:
    """(N, 2, h, w) twice to (N,) mean squared error over both channels, ab units squared."""
    return (ab - truth).square().mean(dim=(1, 2, 3))


def accuracy(ab: Tensor, truth: Tensor, distance: float = ACCURACY_DISTANCE) -> Tensor:
    """(N, 2, h, w) twice to (N,) share of pixels whose ab error is below `distance`."""
    errors: Tensor = torch.linalg.vector_norm(ab - truth, dim=1)
    return (errors < distance).float().mean(dim=(1, 2))


def chroma(ab: Tensor) -> Tensor:
    """(N, 2, h, w) to (N,) mean chroma."""
    strengths: Tensor = torch.linalg.vector_norm(ab, dim=1)
    return strengths.mean(dim=(1, 2))


def blots(ab: Tensor, truth: Tensor) -> Tensor:
    """(N, 2, h, w) twice to (N,) share of pixels that are blots: their
    chroma is above BLOT_CHROMA and above twice the truth's."""
    strengths, true = (torch.linalg.vector_norm(x, dim=1) for x in (ab, truth))
    blotted: Tensor = (strengths > BLOT_CHROMA) & (strengths > 2 * true)
    return blotted.float().mean(dim=(1, 2))


def psnr(rgb: Tensor, truth: Tensor) -> Tensor:
    """sRGB (N, 3, h, w) in 0..1 twice to (N,) peak signal to noise in dB, at most 58.9."""
    errors = ((rgb - truth) * 255).square().mean(dim=(1, 2, 3))
    return 20 * math.log10(255) - 10 * errors.clamp(min=ROUNDING_ERROR).log10()


def colorfulness(rgb: Tensor) -> Tensor:
    """sRGB (N, 3, h, w) in 0..1 to (N,) colorfulness, 0 for gray, about 40 for the average photo.

    Hasler & Süsstrunk 2003, "Measuring colourfulness in natural images", their M(3) on codes of
    0..255. Opponent channels keep their signs; code that takes their absolute values first (that of
    DDColor does) finds some 8 % less.
    """
    red, green, blue = (rgb * 255).unbind(dim=1)
    opponents = torch.stack((red - green, (red + green) / 2 - blue), dim=1).flatten(2)
    spread = opponents.var(dim=2, correction=0).sum(dim=1).sqrt()
    shift: Tensor = torch.linalg.vector_norm(opponents.mean(dim=2), dim=1)
    return spread + 0.3 * shift


# The mean of two hues takes the short way round unless they lie exactly opposite, where the paper
# has h1 + h2 over 2. In float32 such hues differ from π by up to two roundings of 5e-7.
_OPPOSITE = math.pi + 1e-6


def delta_e_2000(lab: Tensor, other: Tensor) -> Tensor:
    """CIEDE2000, how different two colors look: Lab (*, 3, H, W) twice to the difference (*, H, W);
    about 1 can just be seen. Never NaN.

    Source: Sharma, Wu & Dalal 2005, "The CIEDE2000 Color-Difference Formula: Implementation Notes,
    Supplementary Test Data, and Mathematical Observations", Color Research & Application 30 (1),
    whose 34 pairs are the test. Names and the order of terms follow theirs; kL = kC = kH = 1.
    """
    light_1, a_1, b_1 = lab.unbind(dim=-3)
    light_2, a_2, b_2 = other.unbind(dim=-3)
    stretch = 1.5 - 0.5 * _saturation((torch.hypot(a_1, b_1) + torch.hypot(a_2, b_2)) / 2)
    a_1, a_2 = stretch * a_1, stretch * a_2  # 1 + G: makes grays rounder
    chroma_1, chroma_2 = torch.hypot(a_1, b_1), torch.hypot(a_2, b_2)
    chroma = (chroma_1 + chroma_2) / 2
    turn, hue = _hues(a_1, b_1, a_2, b_2)

    offset = ((light_1 + light_2) / 2 - 50).square()
    term_l = (light_2 - light_1) / (1 + 0.015 * offset / (20 + offset).sqrt())
    term_c = (chroma_2 - chroma_1) / (1 + 0.045 * chroma)
    shift_h = 2 * (chroma_1 * chroma_2).sqrt() * torch.sin(turn / 2)
    term_h = shift_h / (1 + 0.015 * chroma * _hue_weight(hue))
    # Blues: chroma and hue differences are not independent there.
    theta = math.radians(30) * torch.exp(-((torch.rad2deg(hue) - 275) / 25).square())
    rotation = -torch.sin(2 * theta) * 2 * _saturation(chroma)
    total = term_l.square() + term_c.square() + term_h.square() + rotation * term_c * term_h
    return total.clamp(min=0).sqrt()  # rounding can bring it just below zero


def _saturation(chroma: Tensor) -> Tensor:
    """0 at gray, towards 1 far beyond a chroma of 25."""
    power = chroma**7
    return (power / (power + 25.0**7)).sqrt()


def _hues(a_1: Tensor, b_1: Tensor, a_2: Tensor, b_2: Tensor) -> tuple[Tensor, Tensor]:
    """From the first hue to the second (±π) and their mean (0..2π); gray has neither."""
    full = 2 * math.pi
    hue_1, hue_2 = torch.atan2(b_1, a_1) % full, torch.atan2(b_2, a_2) % full
    turn, total = hue_2 - hue_1, hue_1 + hue_2
    around = turn.abs() > _OPPOSITE
    turn = torch.where(around, turn - full * turn.sign(), turn)
    mean = torch.where(around, torch.where(total < full, total + full, total - full), total) / 2
    gray = ((a_1 == 0) & (b_1 == 0)) | ((a_2 == 0) & (b_2 == 0))
    return torch.where(gray, 0, turn), torch.where(gray, total, mean)


def _hue_weight(hue: Tensor) -> Tensor:
    """T: how much a difference in hue counts at this mean hue (radians)."""
    return (
        1
        - 0.17 * torch.cos(hue - math.radians(30))
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + math.radians(6))
        - 0.20 * torch.cos(4 * hue - math.radians(63))
    )
