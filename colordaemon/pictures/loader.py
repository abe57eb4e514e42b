"""Batches of crops, in an order that depends only on the seed and the epoch.

Several processes that train together share an epoch: in every step, all of them together see what
one process with a batch as large as all of theirs would see.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from colordaemon.config import TrainSettings
from colordaemon.errors import DataError
from colordaemon.pictures.crops import Crops, Source

AnySource = TypeVar("AnySource", bound=Source)


def epoch_batches(pictures: Sequence[Source], settings: TrainSettings, world: int = 1) -> int:
    """How many batches an epoch has for each of `world` processes.

    The last pictures, short of a batch for all of them, wait for the next epoch.
    """
    count = min(len(pictures), settings.pictures_per_epoch or len(pictures))
    together = settings.batch_size * world
    if count < together:
        shared = f" for each of {world} processes" if world > 1 else ""
        raise DataError(
            f"{count} training pictures do not fill a batch of {settings.batch_size}{shared}"
        )
    return count // together


def batches(
    pictures: Sequence[Source],
    epoch: int,
    settings: TrainSettings,
    done: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Tensor]:
    """An epoch's batches after the first `done`, the same whenever this epoch is run.

    rank: which of `world` processes, from 0; its pictures are every world-th of the epoch's.
    """
    chosen, seed = _shuffled(pictures, epoch, settings)
    together = settings.batch_size * world
    count = epoch_batches(pictures, settings, world) * together
    crops = Crops(chosen[:count], settings.side, train=True, seed=seed)
    yield from load(crops, settings, range(done * together + rank, count, world))


def pictures_of_batch(
    pictures: Sequence[AnySource],
    epoch: int,
    settings: TrainSettings,
    batch: int,
    rank: int = 0,
    world: int = 1,
) -> list[AnySource]:
    """What the batch of that number, counted from 0, was made of."""
    together = settings.batch_size * world
    chosen, _ = _shuffled(pictures, epoch, settings)
    return chosen[batch * together + rank : (batch + 1) * together : world]


def _shuffled(
    pictures: Sequence[AnySource], epoch: int, settings: TrainSettings
) -> tuple[list[AnySource], int]:
    """The pictures in the epoch's order, and a seed for its crops."""
    generator = torch.Generator().manual_seed(settings.seed + epoch)
    order = torch.randperm(len(pictures), generator=generator).tolist()
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return [pictures[i] for i in order], seed


def load(
    crops: Crops, settings: TrainSettings, order: Sequence[int] | None = None
) -> DataLoader[Tensor]:
    """Batches of crops in the given order, or all of them; only whole batches for training."""
    return DataLoader(
        crops,
        settings.batch_size,
        sampler=range(len(crops)) if order is None else order,
        num_workers=settings.loader_workers,
        drop_last=crops.train,
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # or it would draw from the global one
    )


def _ignore_interrupts(_: int) -> None:
    """Ctrl-C reaches the loader too, which has to live until the run has come to its stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
