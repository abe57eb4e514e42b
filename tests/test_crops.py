"""Crops: always of one size, random ones chosen by their generator alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from colordaemon.pictures.dataset import find_pictures
from colordaemon.pictures.loader import Crops, HasPixels, random_crop, to_gray_and_ab


class Pixels:
    """A source that holds its pixels, which nobody may write to."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self._pixels.setflags(write=False)

    def pixels(self) -> np.ndarray:
        return self._pixels


def coordinates(height: int, width: int) -> Pixels:
    """A picture in which red tells the column and green the row."""
    rows, columns = np.mgrid[:height, :width]
    return Pixels(np.dstack((columns, rows, np.zeros_like(rows))).astype(np.uint8))


def extents(count: int, height: int = 200, width: int = 250) -> np.ndarray:
    """(count, 3): height and width of random crops in pixels; whether they are mirrored."""
    found = []
    for index in range(count):
        crop = random_crop(coordinates(height, width), 100, np.random.default_rng(index))
        columns, rows = crop[:2].float()
        across, down = columns.mean(dim=0), rows.mean(dim=1)
        # Of a hundred samples the outer ones are half a step away from the edges.
        tall, wide = (float(x[-1] - x[0]) * 100 / 99 for x in (down, across))
        found.append((tall, abs(wide), wide < 0))
    return np.array(found)


def both_crops(picture: HasPixels, side: int) -> tuple[Tensor, Tensor]:
    """As for validation and as for training."""
    return Crops([picture], side)[0], random_crop(picture, side, np.random.default_rng(1))


def test_crops_have_one_size_whatever_the_picture() -> None:
    for height, width in ((1, 1), (3, 200), (500, 20)):
        for crop in both_crops(coordinates(height, width), 32):
            assert crop.shape == (3, 32, 32)


def test_a_random_crop_depends_on_its_generator_alone(pictures_folder: Path) -> None:
    picture = find_pictures(pictures_folder)[0]
    torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())
    first, again, other = (random_crop(picture, 32, np.random.default_rng(n)) for n in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert str(np.random.get_state()) == numpy_state


def test_crops_cover_half_to_all_of_the_short_side_stretched_either_way() -> None:
    tall, wide, mirrored = extents(400).T
    scale, stretch = np.sqrt(tall * wide) / 200, wide / tall
    assert 0.49 < scale.min() < 0.52 and 0.95 < scale.max() < 1.02
    assert 0.74 < stretch.min() < 0.78 and 1.28 < stretch.max() < 1.36
    assert 0.4 < mirrored.mean() < 0.6
    assert 0.66 < np.median(scale) < 0.76  # 0.71, the middle of the logarithms


def test_a_crop_for_validation_is_the_center() -> None:
    crop = Crops([coordinates(100, 200)], 100)[0]
    assert (crop[0] == torch.arange(50, 150)).all()
    assert (crop[1] == torch.arange(100).view(-1, 1)).all()


def test_a_crop_of_a_picture_of_one_color_has_that_color() -> None:
    source = Pixels(np.full((77, 91, 3), (200, 40, 90), np.uint8))
    for crop in both_crops(source, 64):
        assert (crop == torch.tensor((200, 40, 90)).view(3, 1, 1)).all()


def test_shrinking_averages_and_does_not_skip() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 200
    crop = Crops([Pixels(stripes)], 64)[0]
    assert ((crop.int() - 100).abs() <= 1).all()


def test_the_network_sees_gray_of_the_same_lightness_and_half_the_color() -> None:
    rgb = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    gray, ab = to_gray_and_ab(rgb)
    assert gray.shape == (2, 1, 32, 48)
    assert ab.shape == (2, 2, 16, 24)
    assert gray.min() >= 0 and gray.max() <= 1.0001


def test_a_gray_picture_is_seen_as_it_is_and_has_no_color() -> None:
    level = torch.arange(0, 256, dtype=torch.uint8).view(1, 1, 8, 32)
    gray, ab = to_gray_and_ab(level.expand(1, 3, 8, 32))
    torch.testing.assert_close(gray, level.float() / 255, atol=1e-5, rtol=0)
    assert ab.abs().max() < 1e-4
