"""What training minimizes: how far what the heads say is from the truth, as one number.

| `train.loss`     | what it is                                                                |
|------------------|---------------------------------------------------------------------------|
| `l2`             | ½ Σ ‖Y − Ŷ‖² of the regression (Zhang et al. 2016, equation 1)             |
| `smooth_l1`      | the same with Huber's loss, which forgives outliers                       |
| `classification` | cross entropy over ab bins, soft-encoded and rebalanced (their equation 2) |
| `joint`          | classification + 10 smooth L1 + 0.2 colorfulness                          |

All run in float32 on ab / 110. Terms that compare whole pictures (perceptual, consistency) are in
`perceptual` and `step`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from colordaemon.color import AB_LIMIT, lab_to_rgb
from colordaemon.network.model import Heads
from colordaemon.training.bins import SoftBins

LossName = Literal["joint", "classification", "smooth_l1", "l2"]
SMOOTH_BELOW = 0.05  # of ab / 110: errors under 5.5 ab units count by their square
REGRESSION_WEIGHT = 10.0
COLORFULNESS_WEIGHT = 0.2
# Which shares the bins may have in the decoding: a head that the loss does not teach is not asked.
BIN_SHARES: dict[LossName, tuple[float, ...]] = {
    "joint": (0.0, 0.25, 0.5, 0.75, 1.0),
    "classification": (1.0,),
    "smooth_l1": (0.0,),
    "l2": (0.0,),
}


@dataclass(frozen=True)
class Target:
    """The truth of a batch at half size.

    lightness: (N, 1, h/2, w/2) L in 0..100. ab: (N, 2, h/2, w/2) Lab units.
    """

    lightness: Tensor
    ab: Tensor


Loss = Callable[[Heads, Target], Tensor]


def make_loss(name: LossName, bins: SoftBins | None) -> Loss:
    """The loss of that name; those that classify need `bins`."""
    if name == "l2":
        return l2
    if name == "smooth_l1":
        return smooth_l1
    if bins is None:
        raise ValueError(f"the loss {name} needs ab bins")
    if name == "classification":
        return lambda heads, target: cross_entropy(heads, target, bins)
    return lambda heads, target: (
        cross_entropy(heads, target, bins)
        + REGRESSION_WEIGHT * smooth_l1(heads, target)
        + COLORFULNESS_WEIGHT * colorfulness_gap(heads, target)
    )


def l2(heads: Heads, target: Target) -> Tensor:
    """Half the squared ab distance, a mean over pixels."""
    return 0.5 * (heads.ab.float() - target.ab / AB_LIMIT).square().sum(dim=1).mean()


def smooth_l1(heads: Heads, target: Target) -> Tensor:
    """Huber's loss on a and on b, a mean over both."""
    return functional.smooth_l1_loss(heads.ab.float(), target.ab / AB_LIMIT, beta=SMOOTH_BELOW)


def cross_entropy(heads: Heads, target: Target, bins: SoftBins) -> Tensor:
    """Cross entropy against the soft-encoded truth, weighted by how rare its color is."""
    assert heads.scores is not None
    ab = functional.avg_pool2d(target.ab, 2)
    nearest, soft, weight = bins.encode(ab)
    log_likely = torch.log_softmax(heads.scores.float(), dim=1).permute(0, 2, 3, 1)
    surprise = -(log_likely.gather(-1, nearest) * soft).sum(dim=-1)
    return (weight * surprise).mean()


def colorfulness_gap(heads: Heads, target: Target) -> Tensor:
    """How far each picture's colorfulness is from the truth's, either way, in hundreds; the mean.

    DDColor rewards colorfulness without bound and gets red blots; a gap cannot blow up.
    """
    wanted = _colorfulness(lab_to_rgb(torch.cat((target.lightness, target.ab), dim=1)))
    ab = heads.ab.float() * AB_LIMIT
    found = _colorfulness(lab_to_rgb(torch.cat((target.lightness, ab), dim=1)))
    return (found - wanted).abs().mean()


def _colorfulness(rgb: Tensor) -> Tensor:
    """Hasler & Süsstrunk 2003 in hundreds of 8-bit codes, smooth at gray; (N, 3, h, w) to (N,)."""
    red, green, blue = (rgb * 2.55).flatten(2).unbind(dim=1)
    opponents = torch.stack((red - green, (red + green) / 2 - blue))
    tiny = 1e-6  # the root's slope is infinite at zero, where every untrained network begins
    spread = (opponents.var(dim=-1, correction=0).sum(dim=0) + tiny).sqrt()
    return spread + 0.3 * (opponents.mean(dim=-1).square().sum(dim=0) + tiny).sqrt()
