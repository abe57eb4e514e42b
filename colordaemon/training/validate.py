"""A model judged on held-out crops, after its decoding was tuned on half of them.

Temperature and bin share are those with the least ΔE@70: mean CIEDE2000 with the output's chroma
scaled until its mean is 70 % of the truth's, because pale output flatters every other mean error.
The gain is tuned last, to give the output CHROMA_SHARE of the truth's mean chroma. All this is
measured on the pictures of even number; what is reported comes from the others alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from colordaemon.color import AB_LIMIT, gray_to_lightness
from colordaemon.config import TrainSettings
from colordaemon.judging.comparison import chroma_factor
from colordaemon.judging.delta_e import delta_e_2000
from colordaemon.judging.metrics import Scores, ScoreSum, chroma
from colordaemon.network.model import ColorNet, Decoding, Heads, annealed_mean, decode
from colordaemon.pictures.crops import Crops, Source, to_gray_and_ab
from colordaemon.pictures.loader import load
from colordaemon.training.losses import BIN_SHARES, Loss, Target
from colordaemon.training.step import autocast

AnySource = TypeVar("AnySource", bound=Source)

TEMPERATURES = (0.2, 0.25, 0.3, 0.38, 0.5, 0.65, 0.8, 1.0)
CHROMA_SHARE = 0.8  # of the truth's mean chroma; more is vivid and more often wrong
GAINS = (0.7, 1.3)  # beyond, noise would be blown up


@dataclass(frozen=True)
class Validation:
    """What was measured. loss: of undamaged pictures. tuning_delta_e_70: that of the half which the
    decoding was tuned on, by which models are compared; all others are of the other half."""

    loss: float
    scores: Scores
    delta_e: float
    delta_e_70: float
    gray_delta_e: float
    tuning_delta_e_70: float


@torch.inference_mode()
def validate(
    model: ColorNet,
    pictures: Sequence[Source],
    settings: TrainSettings,
    loss: Loss,
    device: torch.device,
) -> Validation:
    """Tune `model.decoding` on one half of the pictures and judge the model on the other."""
    model.eval()
    tuning = _Tuning(model.bins, BIN_SHARES[settings.loss])
    for gray, ab in _batches(pictures[::2], settings, device):
        tuning.add(_heads(model, gray), gray, ab)
    model.decoding, tuned = tuning.best()
    sums, losses, measured = ScoreSum(), 0.0, _Quarters()
    for gray, ab in _batches(reporting_half(pictures), settings, device):
        heads = _heads(model, gray)
        target = Target(gray_to_lightness(functional.avg_pool2d(gray, 2)), ab)
        losses += float(loss(heads, target)) * len(gray)
        predicted = decode(heads, model.bins, model.decoding)
        sums.add(predicted, ab)
        measured.add(gray, ab, predicted)
    scores = sums.scores()
    factor = chroma_factor(scores.chroma, scores.true_chroma) or 0.0
    return Validation(
        loss=losses / scores.pictures,
        scores=scores,
        delta_e=measured.delta_e(1.0),
        delta_e_70=measured.delta_e(factor),
        gray_delta_e=measured.delta_e(0.0),
        tuning_delta_e_70=tuned,
    )


def reporting_half(pictures: Sequence[AnySource]) -> Sequence[AnySource]:
    """The pictures that have no say in the decoding; a single picture serves both halves."""
    return pictures[1::2] or pictures


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
        total, count = 0.0, 0
        for truth, ab in zip(self._truths, self._predicted, strict=True):
            difference = delta_e_2000(torch.cat((truth[:, :1], ab * factor), dim=1), truth)
            total, count = total + float(difference.mean()) * len(ab), count + len(ab)
        return total / count


class _Tuning:
    """Tries every temperature and share on what the heads said."""

    def __init__(self, bins: Tensor, shares: Sequence[float]) -> None:
        self._bins, self._shares = bins, shares
        self._truths: list[Tensor] = []
        self._said: list[Tensor] = []
        self._annealed: dict[float, list[Tensor]] = {
            temperature: [] for temperature in (TEMPERATURES if max(shares) else [1.0])
        }

    def add(self, heads: Heads, gray: Tensor, ab: Tensor) -> None:
        lightness = gray_to_lightness(functional.avg_pool2d(gray, 4))
        truth = torch.cat((lightness, functional.avg_pool2d(ab, 2)), dim=1)
        said = functional.avg_pool2d(heads.ab.float() * AB_LIMIT, 2)
        self._truths.append(truth[..., ::2, ::2])  # every fourth pixel tells as much, sooner
        self._said.append(said[..., ::2, ::2])
        for temperature, annealed in self._annealed.items():
            if heads.scores is not None:
                mean = annealed_mean(heads.scores, self._bins, temperature)
                annealed.append(mean[..., ::2, ::2])

    def best(self) -> tuple[Decoding, float]:
        """The decoding with the least ΔE@70, and that."""
        truth, said = torch.cat(self._truths), torch.cat(self._said)
        true_chroma = float(chroma(truth[:, 1:]).mean())
        results = []
        for temperature, share in product(self._annealed, self._shares):
            ab = said
            if share:
                ab = torch.lerp(said, torch.cat(self._annealed[temperature]), share)
            strength = float(chroma(ab).mean())
            factor = chroma_factor(strength, true_chroma) or 0.0
            lab = torch.cat((truth[:, :1], ab * factor), dim=1)
            wanted = CHROMA_SHARE * true_chroma / max(strength, 1e-6)
            gain = min(max(wanted, GAINS[0]), GAINS[1])
            results.append((float(delta_e_2000(lab, truth).mean()), temperature, share, gain))
        delta_e_70, temperature, share, gain = min(results)
        return Decoding(temperature, share, gain), delta_e_70


def _heads(model: ColorNet, gray: Tensor) -> Heads:
    with autocast(gray.device):
        heads: Heads = model(gray)
    return heads


def _batches(
    pictures: Sequence[Source], settings: TrainSettings, device: torch.device
) -> Iterable[tuple[Tensor, Tensor]]:
    for batch in load(Crops(pictures, settings.validation_side, train=False), settings):
        yield to_gray_and_ab(batch.to(device))
