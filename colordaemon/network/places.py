"""Describes the places of a picture by what the network saw there, so that those of different
pictures can be compared.

A description joins the encoder's activations at a quarter of the size and below, which tell what is
there, and the decoder's at a quarter, which tell where it ends. Each layer is centered and
projected on the axes along which it varies most over many pictures. Mean and axes belong to the
model: they are fitted once, at the end of its training, and stand in its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

STEP = 4  # pixels of the network's picture from place to place
_ENCODER_AXES, _DECODER_AXES = 64, 32
_DECODER_WEIGHT = 3.0  # of its cosine, where that of each layer of the encoder counts once


@dataclass(frozen=True)
class Axes:
    """For each layer of `Look.features`: the mean (C,) of its activations and (axes, C) what they
    are projected on, unscaled for the encoder, by λ^-1/4 for the decoder (λ: the variance along the
    axis)."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    def to(self, device: torch.device, dtype: torch.dtype) -> Axes:
        return Axes(tuple((m.to(device, dtype), a.to(device, dtype)) for m, a in self.layers))

    def of_codes(self, codes: Sequence[tuple[float, int]]) -> Axes:
        """The same for activations that are (code - zero) * scale. codes: scale and zero of each
        layer."""
        return Axes(
            tuple(
                (mean / scale + zero, axes * scale)
                for (mean, axes), (scale, zero) in zip(self.layers, codes, strict=True)
            )
        )

    def describe(self, features: Sequence[Tensor], height: int, width: int) -> Tensor:
        """The places of one picture, (height * width, D) float32 of unit length.

        features: as in `Look`, of one picture, their width and height a whole number of times those
        of the last one. height, width: of the grid of places, which is at a quarter of the size;
        features may reach beyond it, below and to the right.
        """
        size = features[-1].shape[-2:]
        parts = []
        for (mean, axes), feature in zip(self.layers, features, strict=True):
            part = functional.conv2d(
                feature.to(axes.dtype), axes[..., None, None], -(axes @ mean)
            ).float()
            if part.shape[-2:] != size:  # projected first, since fewer numbers are to be enlarged
                part = functional.interpolate(part, size, mode="bilinear", align_corners=False)
            parts.append(functional.normalize(part[0, :, :height, :width].flatten(1), dim=0))
        weights = [1.0] * (len(parts) - 1) + [_DECODER_WEIGHT]
        total = sum(weights)
        scaled = [p * (w / total) ** 0.5 for p, w in zip(parts, weights, strict=True)]
        return torch.cat(scaled).T.contiguous()


def places_size(height: int, width: int) -> tuple[int, int]:
    """The grid of places of a picture that the network sees in this size, in pixels."""
    return -(-height // STEP), -(-width // STEP)


class AxesFit:
    """Collects activations, one picture after another, and fits axes to them."""

    def __init__(self, chance: torch.Generator, per_picture: int = 150) -> None:
        self._chance, self._per_picture = chance, per_picture
        self._samples: list[list[Tensor]] = []

    def add(self, features: Sequence[Tensor]) -> None:
        """Take a sample of the places of one picture; features: as in `Look`."""
        samples = []
        for feature in features:
            columns = feature[0].flatten(1).cpu()
            chosen = torch.randperm(columns.shape[1], generator=self._chance)
            samples.append(columns[:, chosen[: self._per_picture]].double())
        self._samples.append(samples)

    def fit(self) -> Axes:
        """Principal components, in float64: the eigenvalues of many channels span more than
        float32 tells apart."""
        layers = []
        for number, parts in enumerate(zip(*self._samples, strict=True), 1):
            columns = torch.cat(parts, dim=1)
            mean = columns.mean(dim=1, keepdim=True)
            values, vectors = torch.linalg.eigh((columns - mean) @ (columns - mean).T)
            values = (values / columns.shape[1]).flip(0)
            values = values.clamp(min=1e-6 * float(values[0]))  # rounding leaves some below zero
            is_decoder = number == len(self._samples[0])
            count = _DECODER_AXES if is_decoder else _ENCODER_AXES
            axes = vectors.flip(1).T[:count]
            if is_decoder:
                axes = axes * values[:count, None] ** -0.25
            layers.append((mean[:, 0].float(), axes.float().contiguous()))
        return Axes(tuple(layers))
