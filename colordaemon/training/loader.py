"""Batches of crops, in an order that depends only on the seed and the epoch."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from colordaemon.config import TrainSettings
from colordaemon.errors import DataError
from colordaemon.training.dataset import Crops, Picture


def epoch_batches(pictures: Sequence[Picture], settings: TrainSettings) -> int:
    """How many batches an epoch has; the last pictures, short of a batch, wait for the next."""
    count = min(len(pictures), settings.pictures_per_epoch or len(pictures))
    if count < settings.batch_size:
        raise DataError(f"{count} training pictures do not fill a batch of {settings.batch_size}")
    return count // settings.batch_size


def batches(
    pictures: Sequence[Picture], epoch: int, settings: TrainSettings, done: int = 0
) -> Iterator[Tensor]:
    """An epoch's batches after the first `done`, the same whenever this epoch is run."""
    generator = torch.Generator().manual_seed(settings.seed + epoch)
    order = torch.randperm(len(pictures), generator=generator).tolist()
    chosen = order[: settings.pictures_per_epoch or len(order)]
    seed = int(torch.randint(2**62, (1,), generator=generator))
    crops = Crops([pictures[i] for i in chosen], settings.side, train=True, seed=seed)
    yield from load(crops, settings, first=done * settings.batch_size)


def load(crops: Crops, settings: TrainSettings, first: int = 0) -> DataLoader[Tensor]:
    """Batches of crops from `first` on, in order; only whole ones for training."""
    return DataLoader(
        crops,
        settings.batch_size,
        sampler=range(first, len(crops)),
        num_workers=settings.loader_workers,
        drop_last=crops.train,
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # or it would draw from the global one
    )


def _ignore_interrupts(_: int) -> None:
    """Ctrl-C reaches the loader too, which has to live until the run has come to its stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
