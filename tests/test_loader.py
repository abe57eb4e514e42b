"""Batches: the same whenever an epoch runs, shared out between processes without loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pictures import colorful
from torch import Tensor

from colordaemon.config import TrainSettings
from colordaemon.errors import DataError
from colordaemon.pictures.crops import Crops
from colordaemon.pictures.loader import batches, epoch_batches, load

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


def numbers(batch: Tensor) -> list[int]:
    return batch[:, 0, 0, 0].tolist()


def test_an_epoch_shows_pictures_once_in_an_order_of_its_own() -> None:
    first, second = (
        [n for b in batches(PICTURES, e, SETTINGS) for n in numbers(b)] for e in (0, 1)
    )
    assert len(first) == len(set(first)) == 39
    assert first != second
    assert first == [n for b in batches(PICTURES, 0, SETTINGS) for n in numbers(b)]


def test_an_epoch_may_be_a_part_of_the_pictures() -> None:
    settings = make_settings(pictures_per_epoch=10)
    assert epoch_batches(PICTURES, settings) == 3
    assert len(list(batches(PICTURES, 0, settings))) == 3


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_together_see_what_one_with_a_larger_batch_sees(world: int) -> None:
    pictures = [Colorful(number) for number in range(20)]
    shares = [list(batches(pictures, 4, SETTINGS, 0, rank, world)) for rank in range(world)]
    alone = list(batches(pictures, 4, make_settings(batch_size=3 * world)))
    assert {len(share) for share in shares} == {len(alone)}
    assert len(alone) == epoch_batches(pictures, SETTINGS, world)
    for step, expected in enumerate(alone):
        together = torch.stack([share[step] for share in shares], dim=1).flatten(0, 1)
        assert torch.equal(together, expected)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_processes_see_different_pictures(world: int) -> None:
    seen = [
        n
        for rank in range(world)
        for batch in batches(PICTURES, 2, SETTINGS, rank=rank, world=world)
        for n in numbers(batch)
    ]
    assert len(seen) == len(set(seen)) == 3 * world * epoch_batches(PICTURES, SETTINGS, world)


@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 2)])
def test_an_epoch_goes_on_where_it_was_stopped(rank: int, world: int) -> None:
    pictures = [Colorful(number) for number in range(25)]
    whole = list(batches(pictures, 3, SETTINGS, 0, rank, world))
    for done in range(len(whole) + 1):
        rest = list(batches(pictures, 3, SETTINGS, done, rank, world))
        assert len(rest) == len(whole) - done
        assert all(torch.equal(x, y) for x, y in zip(rest, whole[done:], strict=True))


def test_too_few_pictures_for_all_processes_are_an_error() -> None:
    assert epoch_batches(PICTURES[:6], SETTINGS, 2) == 1
    with pytest.raises(DataError, match="5 training pictures do not fill a batch of 3 for each of"):
        epoch_batches(PICTURES[:5], SETTINGS, 2)


def test_validation_shows_all_pictures_in_order() -> None:
    crops = Crops(PICTURES, 32, train=False)
    shown = [n for batch in load(crops, SETTINGS) for n in numbers(batch)]
    assert shown == list(range(40))
    every_third = [n for batch in load(crops, SETTINGS, range(1, 40, 3)) for n in numbers(batch)]
    assert every_third == list(range(1, 40, 3))
