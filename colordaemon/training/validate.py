"""Validates a model on held-out crops, after tuning its decoding on half of them.

Where whole sources are held out, the decoding is tuned on half of their pictures, because what a
model is asked to color comes from none of its sources either. What is reported comes from pictures
that have no say in the decoding: of the sources trained on, and of the others.

The decoding is tuned by error and colorfulness. Mean error alone picks the palest colors that pay:
where a network is in doubt, brown is the safest bet. So first the heads are mixed (temperature,
share of the bins) for the least ΔE@70, which is blind to strength: mean CIEDE2000 with the output's
chroma scaled until its mean is 70 % of the truth's. Then of all strengths (exponent, gain) whose
mean CIEDE2000 stays within TOLERANCE of the least, and which paint few blots, the most colorful one
is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from colordaemon.color import AB_LIMIT, gray_to_lightness, lab_to_rgb
from colordaemon.config import TrainSettings
from colordaemon.evaluation.metrics import (
    Scores,
    ScoreSum,
    blots,
    chroma,
    colorfulness,
    delta_e_2000,
)
from colordaemon.evaluation.scores import chroma_factor
from colordaemon.network.device import autocast
from colordaemon.network.model import ColorNet, Decoding, Heads, annealed_mean, certainty, decode
from colordaemon.pictures.loader import to_gray_and_ab
from colordaemon.training.losses import BIN_SHARES, Loss, TrueColor

TEMPERATURES = (0.2, 0.25, 0.3, 0.38, 0.5, 0.65, 0.8, 1.0)
CERTAINTIES = (0.0, 0.1, 0.2, 0.3)  # at which the bins begin to have a share
# More brings more colorfulness, but by making stronger what is strong already: at 1.3 a wrong patch
# of blue on a plain background glowed, and faces came out 16 % too strong.
EXPONENTS = (1.0, 1.1, 1.2)
CHROMA_SHARES = tuple(share / 100 for share in range(20, 125, 5))  # of the truth's mean chroma
GAINS = (0.5, 2.0)  # outside, noise would be amplified
TOLERANCE = 1.03  # of the least mean CIEDE2000
MOST_BLOTS = 0.04  # share of pixels
FEWEST = 20  # pictures; tuning on fewer is mostly chance

AnyPicture = TypeVar("AnyPicture")


@dataclass(frozen=True)
class Tuned:
    """delta_e_70: of the mixture that was chosen, by which models are compared."""

    decoding: Decoding
    delta_e_70: float


class Tuning:
    """Collects the outputs of the heads for pictures, and tries decodings on them.

    shares: of the bins, see `losses.BIN_SHARES`.
    """

    def __init__(self, bins: Tensor, shares: Sequence[float]) -> None:
        self._bins, self._shares = bins, shares
        self._truths: list[Tensor] = []
        self._said: list[Tensor] = []
        self._sure: list[Tensor] = []
        self._annealed: dict[float, list[Tensor]] = {
            temperature: [] for temperature in (TEMPERATURES if max(shares) else [1.0])
        }

    def add(self, heads: Heads, gray: Tensor, ab: Tensor) -> None:
        """heads: of a batch of gray pictures (N, 1, h, w) whose truth is ab (N, 2, h/2, w/2)."""
        lightness = gray_to_lightness(functional.avg_pool2d(gray, 4))
        truth = torch.cat((lightness, functional.avg_pool2d(ab, 2)), dim=1)
        self._truths.append(_sampled(truth))
        self._said.append(_sampled(functional.avg_pool2d(heads.ab.float() * AB_LIMIT, 2)))
        self._sure.append(_sampled(functional.avg_pool2d(certainty(heads), 2)))
        for temperature, annealed in self._annealed.items():
            if heads.scores is not None:
                mean = annealed_mean(heads.scores, self._bins, temperature)
                annealed.append(_sampled(mean))

    def best(self) -> Tuned:
        """The best decoding, and how good its mixture of the heads is."""
        truth = torch.cat(self._truths)
        said, sure = torch.cat(self._said), torch.cat(self._sure)
        best, least, mixed = Decoding(), math.inf, said
        for mixture in self._mixtures():
            ab = said
            if mixture.bin_share:
                annealed = torch.cat(self._annealed[mixture.temperature])
                ab = torch.lerp(said, annealed, mixture.share_of_bins(sure))
            delta_e_70 = _delta_e_70(ab, truth)
            if delta_e_70 < least:
                best, least, mixed = mixture, delta_e_70, ab
        return Tuned(_strongest(best, mixed, truth), least)

    def _mixtures(self) -> list[Decoding]:
        temperatures = list(self._annealed)
        mixtures = [Decoding(temperatures[0], 0.0)] if 0 in self._shares else []
        mixtures += [
            Decoding(temperature, share)
            for temperature, share in product(temperatures, self._shares)
            if share
        ]
        if min(self._shares) == 0 and max(self._shares) == 1:
            mixtures += [
                Decoding(temperature, 1.0, certainty_from=certain)
                for temperature, certain in product(temperatures, CERTAINTIES)
            ]
        return mixtures


def _sampled(x: Tensor) -> Tensor:
    """Only every fourth pixel, which is as good and faster."""
    return x[..., ::2, ::2]


def _delta_e_70(ab: Tensor, truth: Tensor) -> float:
    factor = chroma_factor(float(chroma(ab).mean()), float(chroma(truth[:, 1:]).mean())) or 0.0
    return _delta_e(ab * factor, truth)


def _delta_e(ab: Tensor, truth: Tensor) -> float:
    return float(delta_e_2000(torch.cat((truth[:, :1], ab), dim=1), truth).mean())


def _strongest(mixture: Decoding, ab: Tensor, truth: Tensor) -> Decoding:
    """The most colorful strength whose error is within TOLERANCE."""
    true_chroma = float(chroma(truth[:, 1:]).mean())
    tried = []
    for exponent in EXPONENTS:
        spread = replace(mixture, chroma_exponent=exponent)
        strength = max(float(chroma(spread.strengthen(ab)).mean()), 1e-6)
        gains = {min(max(s * true_chroma / strength, GAINS[0]), GAINS[1]) for s in CHROMA_SHARES}
        for gain in sorted(gains):
            decoding = replace(spread, chroma_gain=gain)
            painted = decoding.strengthen(ab)
            lab = torch.cat((truth[:, :1], painted), dim=1)
            full = float(colorfulness(lab_to_rgb(lab).clamp(0, 1)).mean())
            blotted = float(blots(painted, truth[:, 1:]).mean())
            tried.append((full, _delta_e(painted, truth), blotted, decoding))
    least = min(delta_e for _, delta_e, _, _ in tried)
    good = [choice for choice in tried if choice[1] <= TOLERANCE * least]
    calm = [choice for choice in good if choice[2] <= MOST_BLOTS]
    if not calm:  # a network that blots whatever is done: as few as it can
        return min(good, key=lambda choice: choice[2])[3]
    return max(calm, key=lambda choice: choice[0])[3]


@dataclass(frozen=True)
class Measured:
    """Scores of pictures that the decoding was not tuned on.

    loss: of undamaged pictures. delta_e, gray_delta_e: mean CIEDE2000 of the output and of leaving
    all gray. colorfulness: mean of Hasler & Süsstrunk 2003. blots: see `metrics.blots`.
    """

    loss: float
    scores: Scores
    delta_e: float
    delta_e_70: float
    gray_delta_e: float
    colorfulness: float
    true_colorfulness: float
    blots: float


@dataclass(frozen=True)
class Validation:
    """held_out: of sources that were trained on. unseen: of others, if any are held out whole.
    tuning_delta_e_70: that of the pictures which the decoding was tuned on, by which models are
    compared."""

    held_out: Measured
    unseen: Measured | None
    tuning_delta_e_70: float


@torch.inference_mode()
def validate(
    model: ColorNet,
    crops: Tensor,
    unseen: Tensor,
    settings: TrainSettings,
    loss: Loss,
    device: torch.device,
) -> Validation:
    """Tune `model.decoding` on one half of the crops of unseen sources, or of the others where
    those are too few, and judge the model on the other half of both.

    crops, unseen: (N, 3, side, side) uint8 sRGB; N may be 0 for the latter.
    """
    model.eval()
    tuning = Tuning(model.bins, BIN_SHARES[settings.loss])
    for gray, ab in _batches((unseen if tunes(unseen) else crops)[::2], settings, device):
        tuning.add(_heads(model, gray), gray, ab)
    tuned = tuning.best()
    model.decoding = tuned.decoding
    return Validation(
        _measure(model, _reporting_half(crops), settings, loss, device),
        _measure(model, _reporting_half(unseen), settings, loss, device) if len(unseen) else None,
        tuned.delta_e_70,
    )


def _measure(
    model: ColorNet, crops: Tensor, settings: TrainSettings, loss: Loss, device: torch.device
) -> Measured:
    sums, losses, quarters = ScoreSum(), 0.0, _Quarters()
    for gray, ab in _batches(crops, settings, device):
        heads = _heads(model, gray)
        target = TrueColor(gray_to_lightness(functional.avg_pool2d(gray, 2)), ab)
        losses += float(loss(heads, target)) * len(gray)
        predicted = decode(heads, certainty(heads), model.bins, model.decoding)
        sums.add(predicted, ab)
        quarters.add(gray, ab, predicted)
    scores = sums.scores()
    factor = chroma_factor(scores.chroma, scores.true_chroma) or 0.0
    return Measured(
        loss=losses / scores.pictures,
        scores=scores,
        delta_e=quarters.delta_e(1.0),
        delta_e_70=quarters.delta_e(factor),
        gray_delta_e=quarters.delta_e(0.0),
        colorfulness=quarters.colorfulness(),
        true_colorfulness=quarters.true_colorfulness(),
        blots=quarters.blots(),
    )


def tunes(unseen: Sequence[object] | Tensor) -> bool:
    """Whether the decoding is tuned on the pictures of unseen sources: if there are enough."""
    return len(unseen) >= 2 * FEWEST


def reporting_half(pictures: Sequence[AnyPicture]) -> Sequence[AnyPicture]:
    """The pictures that the decoding is not tuned on; a single picture serves as both halves."""
    return pictures[1::2] or pictures


def _reporting_half(crops: Tensor) -> Tensor:
    return crops[1::2] if len(crops) > 1 else crops


class _Quarters:
    """Truths and predictions at a quarter of the crops' size, where they fit into memory."""

    def __init__(self) -> None:
        self._truths: list[Tensor] = []
        self._predicted: list[Tensor] = []

    def add(self, gray: Tensor, ab: Tensor, predicted: Tensor) -> None:
        """gray: (N, 1, h, w). ab, predicted: (N, 2, h/2, w/2)."""
        lightness = gray_to_lightness(functional.avg_pool2d(gray, 4))
        self._truths.append(torch.cat((lightness, functional.avg_pool2d(ab, 2)), dim=1))
        self._predicted.append(functional.avg_pool2d(predicted, 2))

    def delta_e(self, factor: float) -> float:
        """Mean CIEDE2000 of the predictions with their chroma multiplied by `factor`."""
        pairs = zip(self._truths, self._predicted, strict=True)
        painted = ((torch.cat((truth[:, :1], ab * factor), dim=1), truth) for truth, ab in pairs)
        return _mean(delta_e_2000(lab, truth).mean(dim=(1, 2)) for lab, truth in painted)

    def colorfulness(self) -> float:
        pairs = zip(self._truths, self._predicted, strict=True)
        return _mean(_colorfulness(torch.cat((truth[:, :1], ab), dim=1)) for truth, ab in pairs)

    def true_colorfulness(self) -> float:
        return _mean(_colorfulness(truth) for truth in self._truths)

    def blots(self) -> float:
        pairs = zip(self._truths, self._predicted, strict=True)
        return _mean(blots(ab, truth[:, 1:]) for truth, ab in pairs)


def _colorfulness(lab: Tensor) -> Tensor:
    return colorfulness(lab_to_rgb(lab).clamp(0, 1))


def _mean(batches: Iterable[Tensor]) -> float:
    """Over the pictures of all batches, each (N,)."""
    return float(torch.cat(list(batches)).mean())


def _heads(model: ColorNet, gray: Tensor) -> Heads:
    with autocast(gray.device):
        heads: Heads = model(gray)
    return heads


def _batches(
    crops: Tensor, settings: TrainSettings, device: torch.device
) -> Iterable[tuple[Tensor, Tensor]]:
    return (to_gray_and_ab(part.to(device)) for part in torch.split(crops, settings.batch_size))
