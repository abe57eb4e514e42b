"""Crops: always of one size, chosen by seed and index alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from colordaemon.pictures.crops import Crops, to_gray_and_ab
from colordaemon.pictures.dataset import find_pictures


@pytest.fixture
def folder(pictures_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(pictures_folder, tmp_path / "pictures"))


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
    crops = Crops([coordinates(height, width)] * count, 100, train=True)
    found = []
    for index in range(count):
        columns, rows = crops[index][:2].float()
        across, down = columns.mean(dim=0), rows.mean(dim=1)
        # Of a hundred samples the outer ones are half a step away from the edges.
        tall, wide = (float(x[-1] - x[0]) * 100 / 99 for x in (down, across))
        found.append((tall, abs(wide), wide < 0))
    return np.array(found)


@pytest.mark.parametrize("train", [False, True])
def test_crops_have_one_size_whatever_the_picture(folder: Path, train: bool) -> None:
    for height, width in ((1, 1), (3, 200), (500, 20)):
        cv2.imwrite(str(folder / "face" / f"{height}.png"), np.zeros((height, width, 3), np.uint8))
    pictures = find_pictures(folder, "face")
    crops = Crops(pictures, 32, train)
    assert {tuple(crops[i].shape) for i in range(len(crops))} == {(3, 32, 32)}


def test_chance_depends_on_seed_and_index_alone(pictures_folder: Path) -> None:
    pictures = find_pictures(pictures_folder)
    crops = Crops(pictures, 32, train=True, seed=5)
    expected = [crops[i] for i in range(6)]
    torch.rand(3)
    assert all(torch.equal(crops[i], expected[i]) for i in reversed(range(6)))
    other = Crops(pictures, 32, train=True, seed=6)
    assert not all(torch.equal(other[i], expected[i]) for i in range(6))


def test_crops_for_validation_are_always_the_same(pictures_folder: Path) -> None:
    pictures = find_pictures(pictures_folder)
    one, other = (Crops(pictures, 32, train=False, seed=seed) for seed in (1, 2))
    assert torch.equal(one[0], other[0])


def test_crops_draw_nothing_from_the_global_generators(pictures_folder: Path) -> None:
    torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())
    crops = Crops(find_pictures(pictures_folder), 32, train=True)
    for index in range(4):
        crops[index]
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
    crop = Crops([coordinates(100, 200)], 100, train=False)[0]
    assert (crop[0] == torch.arange(50, 150)).all()
    assert (crop[1] == torch.arange(100).view(-1, 1)).all()


@pytest.mark.parametrize("train", [False, True])
def test_a_crop_of_a_picture_of_one_color_has_that_color(train: bool) -> None:
    source = Pixels(np.full((77, 91, 3), (200, 40, 90), np.uint8))
    crops = Crops([source] * 9, 64, train)
    assert all((crops[i] == torch.tensor((200, 40, 90)).view(3, 1, 1)).all() for i in range(9))


def test_shrinking_averages_and_does_not_skip() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 200
    crop = Crops([Pixels(stripes)], 64, train=False)[0]
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
