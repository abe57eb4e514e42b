"""Fits to a finished model the axes along which it compares pictures, and its peaks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from colordaemon.network.colorizer import Colorizer
from colordaemon.network.device import choose_dtype
from colordaemon.network.model import ColorNet
from colordaemon.network.places import Axes, AxesFit
from colordaemon.network.quantized import watched_peaks
from colordaemon.pictures.loader import HasPixels, to_gray_and_ab

_PICTURES = 160


def fit(
    model: ColorNet, device: torch.device, pictures: Sequence[HasPixels]
) -> tuple[Axes, dict[str, float]]:
    """Axes and peaks of a model, by some of the pictures, evenly spaced, as they are.

    The model is on the device afterwards, and its norms are folded.
    """
    colorizer = Colorizer(model, device, choose_dtype("auto", device))
    count = min(_PICTURES, len(pictures))
    axes = AxesFit(torch.Generator().manual_seed(0))
    with watched_peaks(model) as peaks:
        for number in range(count):
            pixels = pictures[number * len(pictures) // count].pixels().copy()
            gray, _ = to_gray_and_ab(torch.from_numpy(pixels).permute(2, 0, 1)[None])
            for look in colorizer.looks(gray):
                axes.add(look.features)
    return axes.fit(), peaks
