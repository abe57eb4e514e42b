"""The perceptual loss: how different output and truth look to an ImageNet VGG16."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from colordaemon.color import AB_LIMIT, lab_to_rgb
from colordaemon.network.device import autocast
from colordaemon.network.model import MID_GRAY, Encoder, Heads, ModelSpec
from colordaemon.network.vgg import load_vgg
from colordaemon.training.losses import Target

_TAPS = {1: 1 / 8, 2: 1 / 4, 3: 1 / 2}  # weights of relu2_2, relu3_3 and relu4_3


class Perceptual(nn.Module):
    """L1 between activations of VGG16 for RGB, each scaled by its own mean strength.

    It sees the pictures at half size, where ab is predicted.
    """

    def __init__(self, vgg: Path | None, spec: ModelSpec | None = None) -> None:
        """vgg: as in `load_vgg`; spec: VGG's widths, if it is not VGG16. Raises ModelError."""
        super().__init__()
        self.encoder = Encoder((spec or ModelSpec()).encoder, channels=3)
        load_vgg(vgg, self.encoder)
        self.requires_grad_(False)

    def forward(self, heads: Heads, target: Target) -> Tensor:
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
