"""The objective of training: losses of the heads' outputs, and the step that makes them smaller.

| `train.loss`     | what it is                                                                |
|------------------|---------------------------------------------------------------------------|
| `l2`             | ½ Σ ‖Y − Ŷ‖² of the regression (Zhang et al. 2016, equation 1)             |
| `smooth_l1`      | the same with Huber's loss, which forgives outliers                       |
| `classification` | cross entropy over ab bins, soft-encoded and rebalanced (their equation 2) |
| `joint`          | classification + 10 smooth L1 + 0.2 colorfulness                          |

All run in float32 on ab / 110. `Objective` may add `Perceptual`, and the consistency of two
views of a picture.

The colors that classification tells apart are those of Zhang et al. 2016, sections 2.1 and 2.2: ab
is cut into squares of 10 units; of these only the ones that real pictures occupy are kept. A
pixel's truth is spread over its five nearest bins, and pixels of rare colors count for more, or
everything would come out brownish gray.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from colordaemon.color import AB_LIMIT, gray_to_lightness, lab_to_rgb
from colordaemon.config import TrainSettings
from colordaemon.network.device import autocast
from colordaemon.network.model import MID_GRAY, Encoder, Heads, ModelSpec
from colordaemon.network.vgg import load_vgg
from colordaemon.training.augment import degrade

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
BIN_SIDE = 10.0  # ab units
OCCUPIED = 1e-5  # a bin with less than this share of all pixels is left out
NEIGHBORS = 5
SPREAD = 5.0  # ab units, sigma of the soft encoding and of the smoothed prior
UNIFORM_SHARE = 0.5  # λ: how much of a uniform distribution is mixed into the prior
WEIGHTS = (0.1, 5.0)  # the least and the most that a pixel may count
_REACH = 110  # the table covers whole ab units in ±110
_TAPS = {1: 1 / 8, 2: 1 / 4, 3: 1 / 2}  # weights of relu2_2, relu3_3 and relu4_3
CONSISTENCY_FROM = 0.5  # shares of a run after which the late terms are added: before that the
PERCEPTUAL_FROM = 0.6  # colors are too far off for them


@dataclass(frozen=True)
class TrueColor:
    """The truth of a batch at half size.

    lightness: (N, 1, h/2, w/2) L in 0..100. ab: (N, 2, h/2, w/2) Lab units.
    """

    lightness: Tensor
    ab: Tensor


Loss = Callable[[Heads, TrueColor], Tensor]


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


def l2(heads: Heads, target: TrueColor) -> Tensor:
    """Half the squared ab distance, a mean over pixels."""
    return 0.5 * (heads.ab.float() - target.ab / AB_LIMIT).square().sum(dim=1).mean()


def smooth_l1(heads: Heads, target: TrueColor) -> Tensor:
    """Huber's loss on a and on b, a mean over both."""
    return functional.smooth_l1_loss(heads.ab.float(), target.ab / AB_LIMIT, beta=SMOOTH_BELOW)


def cross_entropy(heads: Heads, target: TrueColor, bins: SoftBins) -> Tensor:
    """Cross entropy against the soft-encoded truth, weighted by how rare its color is."""
    assert heads.scores is not None
    ab = functional.avg_pool2d(target.ab, 2)
    nearest, soft, weight = bins.encode(ab)
    log_likely = torch.log_softmax(heads.scores.float(), dim=1).permute(0, 2, 3, 1)
    surprise = -(log_likely.gather(-1, nearest) * soft).sum(dim=-1)
    return (weight * surprise).mean()


def colorfulness_gap(heads: Heads, target: TrueColor) -> Tensor:
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


class Perceptual(nn.Module):
    """How different output and truth are for an ImageNet VGG16: L1 between its activations for RGB,
    each scaled by its own mean strength.

    It sees the pictures at half size, where ab is predicted.
    """

    def __init__(self, vgg: Path | None, spec: ModelSpec | None = None) -> None:
        """vgg: as in `load_vgg`; spec: VGG's widths, if it is not VGG16. Raises ModelError."""
        super().__init__()
        self.encoder = Encoder((spec or ModelSpec()).encoder, channels=3)
        load_vgg(vgg, self.encoder)
        self.requires_grad_(False)

    def forward(self, heads: Heads, target: TrueColor) -> Tensor:
        ab = heads.ab.float() * AB_LIMIT
        output, truth = (self._activations(target.lightness, x) for x in (ab, target.ab))
        parts = [
            weight * (output[tap] - truth[tap]).abs().mean() / truth[tap].mean().clamp(min=1e-6)
            for tap, weight in _TAPS.items()
        ]
        return torch.stack(parts).sum()

    def _activations(self, lightness: Tensor, ab: Tensor) -> list[Tensor]:
        rgb = lab_to_rgb(torch.cat((lightness, ab), dim=1)).clamp(0, 1)
        with autocast(rgb.device):
            taps: list[Tensor] = self.encoder(rgb - MID_GRAY)
        return taps


class Objective:
    """The objective of a step, all terms together.

    perceptual: compares two RGB pictures, or None; see `Perceptual`.
    """

    def __init__(
        self,
        settings: TrainSettings,
        loss: Loss,
        perceptual: Callable[[Heads, TrueColor], Tensor] | None = None,
    ) -> None:
        self.settings, self.loss, self.perceptual = settings, loss, perceptual

    def __call__(
        self, model: nn.Module, gray: Tensor, ab: Tensor, progress: float, chance: Generator
    ) -> tuple[Tensor, Heads]:
        """The loss of a batch, and the output of the network.

        gray: (N, 1, h, w) in 0..1. ab: (N, 2, h/2, w/2) Lab units. progress: share of the run.
        """
        settings = self.settings
        lightness = gray_to_lightness(functional.avg_pool2d(gray, 2))
        target = TrueColor(lightness, ab * _boosts(ab, settings.saturation, chance))
        twice = settings.consistency > 0 and progress >= CONSISTENCY_FROM
        views = [
            degrade(gray, ab, chance) if settings.degradations else gray for _ in range(1 + twice)
        ]
        with autocast(gray.device):
            both: Heads = model(torch.cat(views))
        scores = None if both.scores is None else both.scores[: len(gray)]
        first = Heads(both.ab[: len(gray)], scores)
        loss = self.loss(first, target)
        if twice:
            one, other = both.ab.float().chunk(2)
            loss = loss + settings.consistency * (one - other).abs().mean()
        if self.perceptual is not None and progress >= PERCEPTUAL_FROM:
            loss = loss + settings.perceptual * self.perceptual(first, target)
        return loss, first


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """Move the parameters once, down the gradient of `loss`; returns its length, on the device.

    Where that is not a finite number, no parameter changes, without waiting for the GPU: the fused
    optimizer looks at `found_inf` on the device.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    length = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.found_inf = (~length.isfinite()).float()  # type: ignore[attr-defined]
    optimizer.step()
    return length


def compiled(model: nn.Module, device: torch.device, wanted: bool) -> nn.Module:
    """The model as training runs it: on a GPU with fused kernels, made for its one batch size.

    On a CPU that takes longer than it saves (7 % more a step on two cores). Where nothing can be
    compiled, say without a C compiler, torch says so and goes on without.
    """
    if device.type != "cuda":
        return model
    torch.backends.cudnn.benchmark = True
    if not wanted:
        return model
    torch._dynamo.config.suppress_errors = True
    return cast(nn.Module, torch.compile(model, dynamic=False))


def _boosts(ab: Tensor, most: float, chance: Generator) -> Tensor:
    """The factor by which the colors of each picture are strengthened, (N, 1, 1, 1) in 1..most."""
    return 1 + (most - 1) * torch.rand(len(ab), 1, 1, 1, generator=chance, device=ab.device)
