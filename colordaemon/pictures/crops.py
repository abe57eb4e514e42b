"""Square crops of pictures, as the network is fed with them: (3, side, side) uint8 sRGB.

Colors are converted on the device, in color.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from colordaemon.color import lightness_to_gray, rgb_to_lab

SMALLEST_CROP = 0.5  # of the short side
MOST_STRETCH = 4 / 3  # of width to height, either way


class Source(Protocol):
    """Anything that has pixels: a picture in its file, or one already decoded."""

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 sRGB, of any size."""


class Crops(Dataset[Tensor]):
    """The center of every picture, always the same: for validation."""

    def __init__(self, pictures: Sequence[Source], side: int) -> None:
        self.pictures, self.side = pictures, side

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return _resized(_center_crop(self.pictures[index].pixels()), self.side)


def random_crop(picture: Source, side: int, chance: np.random.Generator) -> Tensor:
    """50 to 100 % of the short side, stretched by up to 4/3, half of the time mirrored."""
    return _resized(_random_crop(picture.pixels(), chance), side)


def _resized(crop: np.ndarray, side: int) -> Tensor:
    height, width = crop.shape[:2]
    shrink = height * width >= side**2
    interpolation = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
    square = cv2.resize(np.ascontiguousarray(crop), (side, side), interpolation=interpolation)
    return torch.from_numpy(square).permute(2, 0, 1)


def _center_crop(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _random_crop(pixels: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """(H, W, 3) to a part of it, not yet square; mirrored or not."""
    height, width = pixels.shape[:2]
    # Both uniform in the logarithm: twice as large is as likely as half as large.
    side = min(height, width) * SMALLEST_CROP ** chance.uniform(0, 1)
    stretch = MOST_STRETCH ** chance.uniform(-0.5, 0.5)
    tall = min(height, max(1, round(side / stretch)))
    wide = min(width, max(1, round(side * stretch)))
    top = int(chance.integers(height - tall + 1))
    left = int(chance.integers(width - wide + 1))
    crop = pixels[top : top + tall, left : left + wide]
    return crop[:, ::-1] if chance.random() < 0.5 else crop


def to_gray_and_ab(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 3, h, w) uint8 sRGB to what the network sees and what it should say.

    Gray is the gamma-coded gray of equal lightness, (N, 1, h, w) in 0..1; ab is (N, 2, h/2, w/2).
    """
    lab = rgb_to_lab(rgb.float() / 255)
    return lightness_to_gray(lab[:, :1]), nn.functional.avg_pool2d(lab[:, 1:], 2)
