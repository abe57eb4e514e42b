"""Batches: the same whenever an epoch runs, shared out between processes without loss."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from pictures import colorful
from torch import Tensor

from colordaemon.config import TrainSettings
from colordaemon.pictures.loader import HasPixels, Schedule, center_crops, stream

# Python 3.12 warns of any fork beside threads, and torch has threads. The loader only reads.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


class Numbered:
    """A picture of one color, which is its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def pixels(self) -> np.ndarray:
        return np.full((40, 40, 3), self.number, np.uint8)


class Colorful(Numbered):
    def pixels(self) -> np.ndarray:
        return colorful(self.number)


def make_settings(**changes: Any) -> TrainSettings:
    values: dict[str, Any] = {"batch_size": 3, "side": 32, "validation_side": 32}
    return TrainSettings(**(values | changes))


SETTINGS = make_settings()
PICTURES = [Numbered(number) for number in range(40)]


def batches(
    pictures: Sequence[HasPixels],
    count: int | None = None,
    settings: TrainSettings = SETTINGS,
    epoch: int = 0,
    done: int = 0,
    rank: int = 0,
    world: int = 1,
) -> list[Tensor]:
    """So many batches, or what is left of the epoch."""
    schedule = Schedule([""] * len(pictures), settings, world)
    count = schedule.batches - done if count is None else count
    with closing(stream(pictures, schedule, settings, epoch, done, rank, world)) as opened:
        return list(islice(opened, count))


def numbers(shown: list[Tensor]) -> list[int]:
    return [number for batch in shown for number in batch[:, 0, 0, 0].tolist()]


def test_batches_are_what_the_schedule_says() -> None:
    schedule = Schedule([""] * 40, SETTINGS)
    assert numbers(batches(PICTURES, epoch=3)) == schedule.order(3)


def test_one_stream_goes_from_epoch_to_epoch() -> None:
    pictures: list[HasPixels] = [Colorful(number) for number in range(20)]
    through = batches(pictures, 12)
    assert torch.equal(torch.stack(through[:6]), torch.stack(batches(pictures)))
    assert torch.equal(torch.stack(through[6:]), torch.stack(batches(pictures, epoch=1)))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_together_see_what_one_with_a_larger_batch_sees(world: int) -> None:
    pictures: list[HasPixels] = [Colorful(number) for number in range(20)]
    shares = [batches(pictures, epoch=4, rank=rank, world=world) for rank in range(world)]
    alone = batches(pictures, epoch=4, settings=make_settings(batch_size=3 * world))
    assert {len(share) for share in shares} == {len(alone)}
    for step, expected in enumerate(alone):
        together = torch.stack([share[step] for share in shares], dim=1).flatten(0, 1)
        assert torch.equal(together, expected)


@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 2)])
def test_an_epoch_goes_on_where_it_was_stopped(rank: int, world: int) -> None:
    pictures: list[HasPixels] = [Colorful(number) for number in range(25)]
    whole = batches(pictures, epoch=3, rank=rank, world=world)
    for done in range(len(whole)):
        rest = batches(pictures, epoch=3, done=done, rank=rank, world=world)
        assert len(rest) == len(whole) - done
        assert all(torch.equal(x, y) for x, y in zip(rest, whole[done:], strict=True))


def test_validation_shows_all_pictures_in_order() -> None:
    crops = center_crops(PICTURES, SETTINGS)
    assert crops.shape == (40, 3, 32, 32) and numbers([crops]) == list(range(40))
    assert center_crops([], SETTINGS).shape == (0, 3, 32, 32)
