"""Cuts are seen where pictures change, not where light does."""

from __future__ import annotations

import numpy as np
import pytest
from films import luma_of

from colordaemon.film.shots import CutDetector


def cuts(pictures: list[np.ndarray]) -> list[int]:
    detector = CutDetector()
    return [number for number, picture in enumerate(pictures) if detector.is_cut(picture)]


def scene(seed: int) -> np.ndarray:
    """A picture of large things, as photographs are."""
    coarse = np.random.default_rng(seed).uniform(20, 235, (6, 8))
    return np.kron(coarse, np.ones((16, 16))).astype(np.float32)


def test_the_first_frame_begins_a_shot() -> None:
    assert cuts([scene(1)]) == [0]


def test_a_new_scene_is_a_cut() -> None:
    assert cuts([scene(1)] * 5 + [scene(2)] * 5 + [scene(3)] * 2) == [0, 5, 10]


def test_flicker_is_no_cut() -> None:
    light = [1.0, 0.7, 1.1, 0.8, 1.0, 0.65]
    assert cuts([scene(1) * share for share in light]) == [0]
    assert cuts([scene(1) + 30 * (number % 2) for number in range(8)]) == [0]


def test_a_shot_begins_where_black_ends_unless_it_is_the_same_again() -> None:
    black = np.full((96, 128), 16, np.float32)
    assert cuts([black] * 3 + [scene(1)] * 3 + [black] * 3) == [0, 3]
    assert cuts([scene(1)] * 3 + [black] * 2 + [scene(1)] * 3) == [0]
    assert cuts([scene(1)] * 3 + [black] * 2 + [scene(2)] * 3) == [0, 5]


@pytest.mark.parametrize("left", [0.0, 0.15, 0.5])
def test_a_flash_is_no_cut(left: float) -> None:
    """left: how much of the picture can still be seen."""
    flash = 255 - (255 - scene(1)) * left
    for length in (1, 2):
        assert cuts([scene(1)] * 4 + [flash] * length + [scene(1)] * 4) == [0]


def test_a_fade_is_no_cut() -> None:
    assert cuts([16 + (scene(1) - 16) * share for share in np.linspace(0, 1, 25)]) == [0]


def test_grain_is_no_cut() -> None:
    chance = np.random.default_rng(1)
    assert cuts([scene(1) + chance.normal(0, 30, (96, 128)) for _ in range(6)]) == [0]


def test_a_pan_is_no_cut() -> None:
    wide = np.hstack([scene(1), scene(2)])
    assert cuts([wide[:, 3 * n : 3 * n + 128] for n in range(30)]) == [0]


def test_size_and_type_do_not_matter() -> None:
    pictures = [luma_of(0, (64, 48), shot=shot) for shot in (0, 0, 5, 5)]
    doubled = [np.kron(picture, np.ones((2, 2), np.uint8)) for picture in pictures]
    as_floats = [picture.astype(np.float32) for picture in pictures]
    assert cuts(pictures) == cuts(doubled) == cuts(as_floats)
