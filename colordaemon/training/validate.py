"""Validates a model on held-out crops, after tuning its decoding on half of them.

Where whole sources are held out, the decoding is tuned on half of their pictures, because what a
model is asked to color comes from none of its sources either. What is reported comes from pictures
that have no say in the decoding: of the sources trained on, and of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from colordaemon.color import gray_to_lightness, lab_to_rgb
from colordaemon.config import TrainSettings
from colordaemon.evaluation.metrics import Scores, ScoreSum, blots, colorfulness, delta_e_2000
from colordaemon.evaluation.scores import chroma_factor
from colordaemon.network.device import autocast
from colordaemon.network.model import ColorNet, Heads, certainty, decode
from colordaemon.pictures.loader import to_gray_and_ab
from colordaemon.training.losses import BIN_SHARES, Loss, TrueColor
from colordaemon.training.tuning import Tuning

FEWEST = 20  # pictures; tuning on fewer is mostly chance

AnyPicture = TypeVar("AnyPicture")


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
