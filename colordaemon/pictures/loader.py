"""Batches of square crops, cut by worker processes: (N, 3, side, side) uint8 sRGB.

Colors are converted on the device. For training there is one pool of workers for the whole run,
which goes from epoch to epoch without waiting. Several processes that train together share an
epoch: in every step, all of them together see what one process with a batch as large as all of
theirs would see.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Generator, Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from colordaemon.color import lightness_to_gray, rgb_to_lab
from colordaemon.config import TrainSettings
from colordaemon.pictures.schedule import Schedule

_AHEAD = 4  # batches that each worker has ready
SMALLEST_CROP = 0.5  # of the short side
MOST_STRETCH = 4 / 3  # of width to height, either way
Position = tuple[int, int]  # an epoch and a place in its order


class HasPixels(Protocol):
    """Anything that has pixels: a picture in its file, or one already decoded."""

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 sRGB, of any size."""


class Crops(Dataset[Tensor]):
    """The center of every picture, always the same: for validation."""

    def __init__(self, pictures: Sequence[HasPixels], side: int) -> None:
        self.pictures, self.side = pictures, side

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return _resized(_center_crop(self.pictures[index].pixels()), self.side)


def random_crop(picture: HasPixels, side: int, chance: np.random.Generator) -> Tensor:
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


def stream(
    pictures: Sequence[HasPixels],
    schedule: Schedule,
    settings: TrainSettings,
    epoch: int,
    done: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Generator[Tensor, None, None]:
    """The batches of an epoch after the first `done`, then those of the next ones, without an end.

    rank: which of `world` processes, from 0; its pictures are every world-th of the epoch's.
    Closing the generator ends its workers.
    """

    def positions() -> Iterator[Position]:
        for number in itertools.count(epoch):
            first = done * settings.batch_size * world if number == epoch else 0
            for place in range(first + rank, schedule.pictures, world):
                yield number, place

    yield from DataLoader(
        _TrainingCrops(pictures, schedule, settings),
        settings.batch_size,
        sampler=positions(),
        num_workers=settings.loader_workers,
        prefetch_factor=_AHEAD,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # or it would draw from the global one
    )


class _TrainingCrops(Dataset[Tensor]):
    """Random crops by their position. Chance depends on the seed and the position alone, so that a
    resumed run sees the crops that it would have seen."""

    def __init__(
        self, pictures: Sequence[HasPixels], schedule: Schedule, settings: TrainSettings
    ) -> None:
        self._pictures, self._schedule, self._settings = pictures, schedule, settings
        self._epoch, self._order = -1, list[int]()

    def __getitem__(self, position: Position) -> Tensor:
        epoch, place = position
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._schedule.order(epoch)
        chance = np.random.default_rng((self._settings.seed, epoch, place))
        return random_crop(self._pictures[self._order[place]], self._settings.side, chance)


def center_crops(pictures: Sequence[HasPixels], settings: TrainSettings) -> Tensor:
    """The center of every picture for validation, (N, 3, side, side) uint8 sRGB.

    Read once, because all of them fit into memory (98 MB for 2,000 of 128 px) and are asked for
    after every epoch.
    """
    side = settings.validation_side
    if not pictures:
        return torch.empty(0, 3, side, side, dtype=torch.uint8)
    batches = DataLoader(
        Crops(pictures, side),
        settings.batch_size,
        num_workers=settings.loader_workers,
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),
    )
    return torch.cat(list(batches))


def _ignore_interrupts(_: int) -> None:
    """Ctrl-C reaches the loader too, which has to live until the run has come to its stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
