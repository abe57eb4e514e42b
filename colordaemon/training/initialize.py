"""Sets up a training run: the starting weights, the trained parameters, and the objective."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from colordaemon.config import TrainSettings
from colordaemon.network.checkpoint import BUILT_IN, load_model, read_notes
from colordaemon.network.model import ColorNet, Decoding, ModelSpec
from colordaemon.network.vgg import balance, load_vgg
from colordaemon.pictures.loader import Crops, HasPixels, to_gray_and_ab
from colordaemon.training.losses import (
    BIN_SHARES,
    Objective,
    Perceptual,
    make_loss,
    occupied_bins,
    soft_bins,
)

log = logging.getLogger(__name__)

_SAMPLED = 1000  # pictures whose colors determine the bins


def starting_model(settings: TrainSettings, pictures: Sequence[HasPixels]) -> ColorNet:
    """The network before the first step, as `settings.encoder` says. Raises ModelError."""
    if settings.encoder == "model":
        built_in = f"the built-in model ({BUILT_IN})"
        log.info("starting from %s", settings.start or built_in)
        model = load_model(settings.start or BUILT_IN)
        model.axes = model.peaks = None  # they belong to these weights, which will change
    else:
        model = ColorNet(ModelSpec())
        if settings.encoder != "scratch":
            log.info("starting from ImageNet VGG16: %s", settings.vgg or "torchvision's weights")
            load_vgg(settings.vgg, model.encoder)
        gray, _ = to_gray_and_ab(_center_crops(pictures, 32, settings.side))
        balance(model.encoder, gray)
    shares = BIN_SHARES[settings.loss]
    if max(shares) and not model.spec.bins:
        model = _with_bins(model, occupied_bins(_colors(pictures)))
    model.decoding = Decoding(bin_share=shares[len(shares) // 2])
    return model


def origin_of(settings: TrainSettings) -> dict[str, Any]:
    """Which weights a run starts from, for its report. Raises ModelError.

    weights: their name. notes: what is known of the data behind a model, its own origin included.
    """
    if settings.encoder == "scratch":
        return {"weights": "noise"}
    if settings.encoder != "model":
        file = settings.vgg.name if settings.vgg else "from torchvision"
        return {"weights": f"ImageNet VGG16 ({file})"}
    name = settings.start.name if settings.start else "the built-in model"
    notes = read_notes(settings.start or BUILT_IN)
    kept = ("labels", "pictures", "crops_seen", "data_fingerprint", "origin")
    return {"weights": name, "notes": {key: notes[key] for key in kept if key in notes}}


def make_objective(
    settings: TrainSettings, model: ColorNet, pictures: Sequence[HasPixels], device: torch.device
) -> Objective:
    """The objective that a run minimizes. Raises ModelError when VGG weights are wanted and
    missing.

    The rarity of colors is measured on the training pictures, whatever the model saw before.
    """
    bins = None
    if max(BIN_SHARES[settings.loss]):
        bins = soft_bins(model.bins.to(device), _colors(pictures))
    perceptual = Perceptual(settings.vgg).to(device) if settings.perceptual else None
    return Objective(settings, make_loss(settings.loss, bins), perceptual)


def set_training_mode(model: ColorNet, settings: TrainSettings) -> None:
    """Which parameters are trained: of the encoder the stages that are not frozen, of the decoder
    whatever leads to the heads that the loss looks at.

    ImageNet's first two stages are edges and textures that any picture has. A finished model keeps
    its encoder unless `frozen_stages` says otherwise: its weights are stored as int8, which rounds
    away what a short run would change.
    """
    model.train()
    stages = len(model.encoder.stages)
    frozen = settings.frozen_stages
    if frozen is None:
        frozen = {"model": stages, "frozen": stages, "imagenet": 2, "scratch": 0}[settings.encoder]
    for number, stage in enumerate(model.encoder.stages):
        stage.requires_grad_(number >= frozen)
    shares = BIN_SHARES[settings.loss]
    for part in (model.decoder.climbs[-1], model.decoder.head):
        part.requires_grad_(min(shares) < 1)
    if model.decoder.classifier is not None:
        model.decoder.classifier.requires_grad_(max(shares) > 0)


def _colors(pictures: Sequence[HasPixels]) -> Tensor:
    """ab of a sample of pictures, (2, M) Lab units."""
    _, ab = to_gray_and_ab(_center_crops(pictures, _SAMPLED, 64))
    return ab.transpose(0, 1).flatten(1)


def _center_crops(pictures: Sequence[HasPixels], count: int, side: int) -> Tensor:
    """(n, 3, side, side) uint8 sRGB of up to `count` pictures, evenly spaced."""
    crops = Crops(pictures[:: max(1, len(pictures) // count)][:count], side)
    return torch.stack([crops[i] for i in range(len(crops))])


def _with_bins(model: ColorNet, bins: tuple[tuple[float, float], ...]) -> ColorNet:
    """The same network with a second, untrained head."""
    grown = ColorNet(replace(model.spec, bins=bins))
    grown.load_state_dict(model.state_dict(), strict=False)
    return grown
