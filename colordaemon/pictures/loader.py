"""Decides which picture comes at which place of which epoch, and loads them as batches of crops.

A batch is (N, 3, side, side) uint8 sRGB, cut by worker processes. Colors are converted on the
device. For training there is one pool of workers for the whole run, which goes from epoch to epoch
without waiting. Several processes that train together share an epoch: in every step, all of them
together see what one process with a batch as large as all of theirs would see.
"""

from __future__ import annotations

import itertools
import math
import signal
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from colordaemon.color import lightness_to_gray, rgb_to_lab
from colordaemon.config import TrainSettings
from colordaemon.errors import DataError

_AHEAD = 4  # batches that each worker has ready
SMALLEST_CROP = 0.5  # of the short side
MOST_STRETCH = 4 / 3  # of width to height, either way
Position = tuple[int, int]  # an epoch and a place in its order


class Schedule:
    """The order of every epoch, for `world` processes that train together.

    Every source of pictures is a deck of cards: it is shuffled, dealt to the last card, and
    shuffled anew, so that each of its pictures is seen as often as any other, however long an epoch
    is. How many cards of each deck go into an epoch is its share, rounded up or down by chance, so
    that a source of one picture is shown now and then, too. The order within the epoch is shuffled.
    All of it depends only on the seed and the epoch, so that a resumed run sees what it would have
    seen.

    sources: the name of each picture's source. No source gives more than `most_per_source` of the
    pictures of an epoch, unless there are too few sources for that; below it, each gives in
    proportion to its size. Raises DataError where an epoch would not fill a batch.
    """

    def __init__(self, sources: Sequence[str], settings: TrainSettings, world: int = 1) -> None:
        self._seed = settings.seed
        self._together = settings.batch_size * world
        wanted = settings.pictures_per_epoch or len(sources)
        self.batches = wanted // self._together
        """How many batches an epoch has for each process. The last pictures, short of a batch for
        all of them, wait for the next epoch."""
        if not sources or not self.batches:
            shared = f" for each of {world} processes" if world > 1 else ""
            what = "pictures_per_epoch of" if wanted < len(sources) else "training pictures:"
            raise DataError(
                f"{what} {wanted if sources else 0}, which do not fill a batch of "
                f"{settings.batch_size}{shared}"
            )
        decks: dict[str, list[int]] = defaultdict(list)
        for index, source in enumerate(sources):
            decks[source].append(index)
        self._decks = [torch.tensor(decks[source]) for source in sorted(decks)]
        sizes = [len(deck) for deck in self._decks]
        self._shares = shares(sizes, self.pictures, settings.most_per_source)

    @property
    def pictures(self) -> int:
        """How many pictures an epoch shows to all processes together."""
        return self.batches * self._together

    def order(self, epoch: int) -> list[int]:
        """The pictures of an epoch, by their index; all processes together take them in turn."""
        chance = torch.Generator().manual_seed(self._seed + epoch)
        counts = rounded(self._shares, self.pictures, float(torch.rand(1, generator=chance)))
        dealt = [
            deck[self._deal(len(deck), int(epoch * share), count, number)]
            for number, (deck, share, count) in enumerate(
                zip(self._decks, self._shares, counts, strict=True)
            )
            if count
        ]
        shuffled = torch.cat(dealt)[torch.randperm(self.pictures, generator=chance)]
        order: list[int] = shuffled.tolist()
        return order

    def of_batch(self, epoch: int, batch: int, rank: int = 0, world: int = 1) -> list[int]:
        """The pictures of one batch, counted from 0, of one process."""
        first = batch * self._together
        return self.order(epoch)[first + rank : first + self._together : world]

    def _deal(self, size: int, first: int, count: int, number: int) -> Tensor:
        """Cards `first`, first + 1, … of a deck that is shuffled anew whenever it is used up."""
        rounds = range(first // size, (first + count - 1) // size + 1)
        cards = [torch.randperm(size, generator=self._shuffler(number, n)) for n in rounds]
        skipped = first - rounds.start * size
        return torch.cat(cards)[skipped : skipped + count]

    def _shuffler(self, number: int, round_number: int) -> torch.Generator:
        mixed = (self._seed * 1_000_003 + number) * 1_000_003 + round_number
        return torch.Generator().manual_seed(mixed % 2**62)


def shares(sizes: Sequence[int], total: int, most: float) -> list[float]:
    """How many of `total` pictures each source gives: in proportion to `sizes`, and at most a share
    of `most` (0..1) of all, or an equal share if that is larger; they add up to `total`."""
    cap = max(most, 1 / len(sizes)) * total
    given = [0.0] * len(sizes)
    free = set(range(len(sizes)))
    while free:
        left = total - sum(given[i] for i in range(len(sizes)) if i not in free)
        scale = left / sum(sizes[i] for i in free)
        over = {i for i in free if sizes[i] * scale > cap}
        for i in over or free:
            given[i] = min(cap, sizes[i] * scale)
        free -= over or free
    return given


def rounded(shares: Sequence[float], total: int, offset: float) -> list[int]:
    """Shares as whole numbers that add up to `total`, each its share rounded up or down.

    offset: 0 <= x < 1, drawn anew each time, so that in the long run each gets its share. This is
    systematic sampling: the ends of the shares, laid in a row, are counted against a moved ruler.
    """
    ends = list(accumulate(shares))
    ends[-1] = total  # whatever was lost in adding up
    marks = [0, *(math.floor(end + offset) for end in ends)]
    return [after - before for before, after in pairwise(marks)]


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
