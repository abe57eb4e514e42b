"""Fits the axes along which a model compares pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from colordaemon.network.colorizer import Colorizer
from colordaemon.network.places import Axes, AxesFit
from colordaemon.pictures.loader import HasPixels, to_gray_and_ab

_PICTURES = 160


def fit_axes(colorizer: Colorizer, pictures: Sequence[HasPixels]) -> Axes:
    """Fit the axes of a colorizer's model on some of the pictures, evenly spaced, as they are."""
    count = min(_PICTURES, len(pictures))
    fit = AxesFit(torch.Generator().manual_seed(0))
    for number in range(count):
        pixels = pictures[number * len(pictures) // count].pixels().copy()
        gray, _ = to_gray_and_ab(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        for look in colorizer.looks(gray):
            fit.add(look.features)
    return fit.fit()
