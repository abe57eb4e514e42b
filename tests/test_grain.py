"""Grain is measured, and filtered for the network where there is some."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from colordaemon.film.analysis import calmed, grain_of


def detailed(seed: int = 1) -> np.ndarray:
    """Edges and texture, without noise."""
    chance = np.random.default_rng(seed)
    picture = np.full((120, 160), 0.5, np.float32)
    for _ in range(40):
        x, y = (int(n) for n in chance.integers(0, (160, 120)))
        cv2.circle(picture, (x, y), int(chance.integers(4, 20)), float(chance.uniform(0, 1)), -1)
    return cv2.GaussianBlur(picture, (0, 0), 0.8)


@pytest.mark.parametrize("strength", [0.02, 0.04, 0.08])
def test_grain_is_measured_whatever_the_picture(strength: float) -> None:
    noise = strength * np.random.default_rng(2).standard_normal((120, 160))
    assert grain_of(detailed() + noise.astype(np.float32)) == pytest.approx(strength, rel=0.15)


def test_a_clean_picture_stays_as_it_is() -> None:
    picture = detailed()
    assert calmed(picture) is picture


def test_a_grainy_picture_comes_nearer_to_the_clean_one_and_keeps_its_edges() -> None:
    clean = detailed()
    noise = 0.05 * np.random.default_rng(3).standard_normal(clean.shape)
    grainy = (clean + noise).astype(np.float32)
    done = calmed(grainy)
    assert np.abs(done - clean).mean() < 0.6 * np.abs(grainy - clean).mean()
    edges = np.abs(cv2.Laplacian(clean, cv2.CV_32F)) > 0.2
    assert np.abs(done - clean)[edges].mean() < 0.08
