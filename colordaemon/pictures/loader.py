"""Batches of crops, cut by worker processes.

For training there is one pool of workers for the whole run, which goes from epoch to epoch without
waiting. Several processes that train together share an epoch: in every step, all of them together
see what one process with a batch as large as all of theirs would see.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from colordaemon.config import TrainSettings
from colordaemon.pictures.crops import Crops, Source, random_crop
from colordaemon.pictures.schedule import Schedule

_AHEAD = 4  # batches that each worker has ready

Position = tuple[int, int]  # an epoch and a place in its order


def stream(
    pictures: Sequence[Source],
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
        self, pictures: Sequence[Source], schedule: Schedule, settings: TrainSettings
    ) -> None:
        self._pictures, self._schedule, self._settings = pictures, schedule, settings
        self._epoch, self._order = -1, list[int]()

    def __getitem__(self, position: Position) -> Tensor:
        epoch, place = position
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._schedule.order(epoch)
        chance = np.random.default_rng((self._settings.seed, epoch, place))
        return random_crop(self._pictures[self._order[place]], self._settings.side, chance)


def center_crops(pictures: Sequence[Source], settings: TrainSettings) -> Tensor:
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
